"""`bridge.trace`: the result of a function of a model, and the inputs and outputs of each submodule's calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.tree_util as jtu

from bridge._errors import BridgeError
from bridge._text import quote
from bridge.model.template import walk
from bridge.tracing.interpret import CallOf, Interpreter, Mark, Met, Select
from bridge.tracing.mark import Slot
from bridge.tracing.named import named, plain


class Call:
    """One call of a submodule: `name`, `kind` (its class), `number` (0 for the first call of that name).

    `inputs` is the tuple of its positional arguments, `keywords` a dict of its keyword arguments, `output` the result.
    They are pytrees like those of the call. Each array has one more leading axis for every loop (`lax.scan`) and every
    `vmap` around the call: outermost first, loops before `vmap`s. Objects that are neither arrays nor plain values show
    as `<their class>`.
    """

    __slots__ = ("inputs", "keywords", "kind", "marks", "name", "number", "output", "peeled")

    def __init__(self, met: list[Met], number: int) -> None:
        token = met[0].mark.call.token
        self.name, self.kind, self.number, self.peeled = token.name, token.kind, number, token.peeled
        self.marks: dict[int, Met] = {one.mark.slot: one for one in met}
        self.inputs, self.keywords = self._filled(token.inputs)
        self.output = self._filled(token.output)

    def _filled(self, slots: Any) -> Any:
        def value(slot: Any) -> Any:
            return (self.marks[slot.number].value if slot.number in self.marks else None) if is_slot(slot) else slot

        return jtu.tree_map(value, slots, is_leaf=is_slot)

    @property
    def end(self) -> Mark:
        """The last of its marks: when it was over."""
        return self.marks[max(self.marks)].mark

    def __repr__(self) -> str:
        return f"Call({self.name!r}, {self.kind}, output={eqx.tree_pformat(self.output)})"


def is_slot(node: Any) -> bool:
    """Whether a node of a token's trees stands for an array."""
    return isinstance(node, Slot)


class Trace(Mapping[str, Call]):
    """The result of `bridge.trace`: a mapping from names to calls, in order of execution. `.result` is the function's.

    A module comes after the modules that it calls. The first call of a module has the module's name, such as
    `"layers.norm"`; a second call is `"layers.norm#2"`. The model itself is `""`. `.fn`, `.model` and `.args` are the
    arguments of `bridge.trace`, `.calls` is a tuple of all calls.

    ```python
    linear = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    trace = bridge.trace(lambda pair, x: pair["first"](x), {"first": linear}, jnp.ones(2))
    assert (trace["first"].output == trace.result).all()
    ```
    """

    def __init__(self, program: Program, model: Any, values: tuple[Any, list[Any]]) -> None:
        self.program, self.model = program, model
        self.fn, self.args = program.fn, program.args
        self.result, kept = values
        self.calls = _calls(list(map(Met, program.marks, kept)))
        self._named = {call.name + (f"#{call.number + 1}" if call.number else ""): call for call in self.calls}

    def again(self, model: Any) -> Trace:
        """The trace of a model with other values: runs the compiled program again."""
        return Trace(self.program, model, self.program.run(model))

    def __getitem__(self, name: str) -> Call:
        if name not in self._named:
            raise KeyError(f"no call of {quote(name)}: .keys() has those that were made")
        return self._named[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)

    def __repr__(self) -> str:
        return f"Trace of {len(self.calls)} calls: {', '.join(self._named)}"


def _calls(met: list[Met]) -> tuple[Call, ...]:
    """What was met as calls, in the order in which they ended."""
    groups: dict[CallOf, list[Met]] = {}
    for one in reversed(met):  # so that a call stands where its last mark does
        groups.setdefault(one.mark.call, []).append(one)
    counts: dict[str, int] = {}
    calls: list[Call] = []
    for call in reversed(groups):
        number = counts[call.token.name] = counts.get(call.token.name, -1) + 1
        calls.append(Call(groups[call], number))
    return tuple(calls)


class Program:
    """`fn(model, *args)` as a jaxpr with marks, compiled so that it returns what `select` keeps of them.

    **Raises:** `BridgeError` where a submodule is called in a loop of unknown length.
    """

    def __init__(self, fn: Callable[..., Any], model: Any, args: tuple[Any, ...], select: Select) -> None:
        self.fn, self.args = fn, args
        self.marks: list[Mark] = []
        _check(model)
        dynamic, static = eqx.partition((model, args), eqx.is_array)
        shape: list[Any] = []

        def traced(dynamic: Any) -> Any:
            model, args = eqx.combine(dynamic, static)
            arrays, rest = eqx.partition(plain(fn(named(model), *args)), eqx.is_array)
            shape[:] = [rest]
            return arrays

        jaxpr, out = jax.make_jaxpr(traced, return_shape=True)(dynamic)
        self._rest, self._structure = shape[0], jtu.tree_structure(out)

        def compiled(leaves: list[Any]) -> tuple[list[Any], list[Any]]:
            results, met = Interpreter(select)(jaxpr, leaves)
            self.marks = [one.mark for one in met]
            return results, [one.value for one in met]

        self._compiled = jax.jit(compiled)

    def run(self, model: Any) -> tuple[Any, list[Any]]:
        """What the function gives for a model of the same shapes, and what is kept of the marks."""
        leaves = jtu.tree_leaves(eqx.filter((model, self.args), eqx.is_array))
        results, kept = self._compiled(leaves)
        return eqx.combine(jtu.tree_unflatten(self._structure, results), self._rest), kept


def _check(model: Any) -> None:
    """**Raises:** `BridgeError` for a model without values, or without modules."""
    walked = walk(model[0] if isinstance(model, tuple) and model else model)
    if not walked.modules:
        kind = quote(type(model).__name__)
        raise BridgeError(kind, "has no Equinox modules, so there are no calls to trace", "Give an Equinox model")
    for leaf in walked.leaves:
        if isinstance(leaf.value, jax.ShapeDtypeStruct):
            problem = "is abstract, but a trace computes with its values"
            raise BridgeError(f"leaf {quote(leaf.name)}", problem, "Give the model with its values")


def _all(mark: Mark, value: jax.Array) -> jax.Array:
    return value


def trace(fn: Callable[..., Any], model: Any, *args: Any) -> Trace:
    """Run `fn(model, *args)` compiled, and record the inputs and outputs of each submodule of the model.

    Works through `jax.lax.scan`, `fori_loop` (with a known number of steps), `cond`, `jax.vmap`, `eqx.filter_jit`,
    `jax.checkpoint` and gradients. The result of `fn` is bit for bit that of `eqx.filter_jit(fn)(model, *args)`.

    **Arguments:**

    - `fn`: a function of the model and of `args`, often `lambda model, x: jax.vmap(model)(x)`.
    - `model`: an `eqx.Module` or a tree of modules; or a `(model, state)` pair.
    - `args`: the other arguments of `fn`.

    **Returns:** a `Trace`: a mapping from the names of submodules to their calls.

    ```python
    mlp = eqx.nn.MLP(2, 3, 4, depth=1, key=jax.random.key(0))
    trace = bridge.trace(lambda mlp, x: jax.vmap(mlp)(x), mlp, jnp.ones((5, 2)))
    assert list(trace) == ["layers.0", "layers.1", ""]
    assert trace["layers.0"].inputs[0].shape == (5, 2)
    assert trace["layers.0"].output.shape == (5, 4)
    assert (trace.result == trace[""].output).all()
    ```

    **Raises:** `BridgeError` if a submodule is called in a `while_loop`, whose number of steps is unknown, or in code
    for several devices (`jax.shard_map`), and if the model is abstract or has no modules.
    """
    program = Program(fn, model, args, _all)
    return Trace(program, model, program.run(model))
