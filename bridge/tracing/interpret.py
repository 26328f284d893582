"""Runs a jaxpr, and returns the values that are marked in it beside its results.

What lies in a loop comes out with the loop's axis in front; of a condition, what did not run is filled with NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from bridge._errors import BridgeError
from bridge._text import quote
from bridge.tracing.mark import Token, mark_p

# What is a call and nothing more. A rule of differentiation has done its work when a jaxpr is there.
_INLINED = ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint")
_INLINED += ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")


class CallOf:
    """A call of a module as the program makes it. Where Python code ran once and was compiled, it may be made often."""

    __slots__ = ("token",)

    def __init__(self, token: Token) -> None:
        self.token = token


class Mark(NamedTuple):
    """A marked value, without the value.

    `axes`: for each axis that loops and `vmap` have put in front, loops first, whether the module changes along it.
    `order`: when it was made, as numbers to compare; `None` stands for the number of a step, for each loop.
    """

    call: CallOf
    slot: int
    axes: tuple[bool, ...]
    order: tuple[int | None, ...]
    shape: tuple[int, ...]


class Met(NamedTuple):
    """A marked value that was met."""

    mark: Mark
    value: jax.Array


Select = Callable[[Mark, jax.Array], jax.Array | None]
"""What to keep of a marked value, inside the loops that the module changes with; `None` for nothing."""


class _LoopValue(NamedTuple):
    """A value, and the loops with whose steps it changes."""

    value: Any
    loops: frozenset[int]


class _ProgramPoint(NamedTuple):
    """Where in the program a jaxpr is run: the order of its marks begins with `order`; `loops` are around it."""

    order: tuple[int | None, ...]
    loops: tuple[int, ...]

    def at(self, *more: int | None) -> _ProgramPoint:
        """A place within."""
        return self._replace(order=self.order + more)


class Interpreter:
    """Runs jaxprs. `select` says what to keep of a marked value."""

    def __init__(self, select: Select) -> None:
        self.select = select
        self.loops = 0

    def __call__(self, jaxpr: ClosedJaxpr, args: Sequence[Any]) -> tuple[list[Any], list[Met]]:
        """The results of the jaxpr, and what was met, in the order of the program."""
        held, met = self._run(jaxpr, [_LoopValue(arg, frozenset()) for arg in args], _ProgramPoint((), ()))
        return [one.value for one in held], met

    def _run(
        self, closed: ClosedJaxpr, args: Sequence[_LoopValue], place: _ProgramPoint
    ) -> tuple[list[_LoopValue], list[Met]]:
        jaxpr, consts = closed.jaxpr, [_LoopValue(const, frozenset()) for const in closed.consts]
        known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))
        calls: dict[Token, CallOf] = {}
        met: list[Met] = []

        def read(atom: Any) -> _LoopValue:
            return _LoopValue(atom.val, frozenset()) if isinstance(atom, Literal) else known[atom]

        for number, equation in enumerate(jaxpr.eqns):
            inputs = [read(atom) for atom in equation.invars]
            if equation.primitive is mark_p:
                call = calls.setdefault(equation.params["token"], CallOf(equation.params["token"]))
                met += self._mark(equation, call, inputs, place.at(number))
                outputs = inputs[:1]
            elif _has_marks(equation):
                outputs, found = self._equation(equation, inputs, place.at(number))
                met += found
            else:
                loops = frozenset[int]().union(*(one.loops for one in inputs))
                outputs = [_LoopValue(value, loops) for value in self._bound(jaxpr, equation, inputs)]
            known |= dict(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars], met

    def _bound(self, around: Jaxpr, equation: JaxprEqn, inputs: list[_LoopValue]) -> list[Any]:
        """What one equation gives."""
        atoms = zip(equation.invars, inputs, strict=True)
        values = {atom: one.value for atom, one in atoms if not isinstance(atom, Literal)}
        # As a jaxpr of its own: how parameters are handed to a primitive differs between releases of JAX.
        one = around.replace(
            constvars=[],
            invars=list(values),
            outvars=equation.outvars,
            eqns=[equation],
            effects=equation.effects,
            debug_info=around.debug_info._replace(arg_names=None, result_paths=None),
        )
        return jaxpr_as_fun(ClosedJaxpr(one, ()))(*values.values())

    def _mark(self, equation: JaxprEqn, call: CallOf, inputs: list[_LoopValue], place: _ProgramPoint) -> Iterator[Met]:
        value, *own = inputs
        loops = tuple(any(loop in one.loops for one in own) for loop in place.loops)
        axes = loops + equation.params["axes"]
        mark = Mark(call, equation.params["slot"], axes, place.order, tuple(value.value.shape))
        kept = self.select(mark, value.value)
        if kept is not None:
            yield Met(mark, kept)

    def _equation(
        self, equation: JaxprEqn, inputs: list[_LoopValue], place: _ProgramPoint
    ) -> tuple[list[_LoopValue], list[Met]]:
        name = equation.primitive.name
        if name == "scan":
            return self._scan(equation, inputs, place)
        if name == "cond":
            return self._cond(equation, inputs, place)
        inner = next(_inner(equation))
        if name not in _INLINED or len(inner.jaxpr.invars) != len(inputs):
            _refuse(equation)
        return self._run(inner, inputs, place)

    def _scan(
        self, equation: JaxprEqn, inputs: list[_LoopValue], place: _ProgramPoint
    ) -> tuple[list[_LoopValue], list[Met]]:
        params, inner = equation.params, equation.params["jaxpr"]
        consts, carried = params["num_consts"], params["num_carry"]
        self.loops += 1
        loop, marks = self.loops, list[Mark]()
        within = _ProgramPoint(place.at(None).order, (*place.loops, loop))
        changing = [
            frozenset() if n < consts else frozenset() if _is_handed_on(inner.jaxpr, n, consts, carried) else {loop}
            for n in range(len(inputs))
        ]

        def step(carry: list[Any], xs: list[Any]) -> tuple[list[Any], Any]:
            values = [*(one.value for one in inputs[:consts]), *carry, *xs]
            held = [_LoopValue(v, i.loops | c) for v, i, c in zip(values, inputs, changing, strict=True)]
            outputs, met = self._run(inner, held, within)
            marks[:] = [one.mark for one in met]
            results = [one.value for one in outputs]
            return results[:carried], (results[carried:], [one.value for one in met])

        start, xs = (
            [one.value for one in part] for part in (inputs[consts : consts + carried], inputs[consts + carried :])
        )
        carry, (results, values) = jax.lax.scan(
            step, start, xs, length=params["length"], reverse=params["reverse"], unroll=params["unroll"]
        )
        loops = frozenset[int]().union(*(one.loops for one in inputs))
        return [_LoopValue(value, loops) for value in (*carry, *results)], list(map(Met, marks, values))

    def _cond(
        self, equation: JaxprEqn, inputs: list[_LoopValue], place: _ProgramPoint
    ) -> tuple[list[_LoopValue], list[Met]]:
        which, *operands = inputs
        branches, loops = equation.params["branches"], [one.loops for one in operands]
        marks: list[list[Mark]] = []

        def run(number: int, values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
            held = list(map(_LoopValue, values, loops))
            outputs, met = self._run(branches[number], held, place.at(number))
            marks.append([one.mark for one in met])
            return [one.value for one in outputs], [one.value for one in met]

        values = [one.value for one in operands]
        shapes = [jax.eval_shape(lambda *v, n=n: run(n, v)[1], *values) for n in range(len(branches))]
        found = marks[: len(branches)]

        def branch(number: int) -> Callable[..., Any]:
            def only(*values: Any) -> Any:
                outputs, kept = run(number, values)
                parts = [kept if n == number else list(map(_absent, part)) for n, part in enumerate(shapes)]
                return outputs, [value for part in parts for value in part]

            return only

        outputs, kept = jax.lax.switch(which.value, [branch(n) for n in range(len(branches))], *values)
        together = frozenset[int]().union(*(one.loops for one in inputs))
        met = list(map(Met, (mark for part in found for mark in part), kept))
        return [_LoopValue(value, together) for value in outputs], met


def _absent(spec: Any) -> jax.Array:
    """What stands for a value of a branch that did not run."""
    inexact = jnp.issubdtype(spec.dtype, jnp.inexact)
    return jnp.full(spec.shape, jnp.nan if inexact else 0, spec.dtype)


def _is_handed_on(jaxpr: Jaxpr, number: int, consts: int, carried: int) -> bool:
    """Whether an input of a scan's body is one that every step hands on to the next as it is."""
    return number < consts + carried and jaxpr.outvars[number - consts] is jaxpr.invars[number]


def _inner(equation: JaxprEqn) -> Iterator[ClosedJaxpr]:
    """The jaxprs within an equation."""
    for value in equation.params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(one, ClosedJaxpr):
                yield one
            elif isinstance(one, Jaxpr):
                yield ClosedJaxpr(one, ())


def _has_marks(equation: JaxprEqn) -> bool:
    if equation.params.get("differentiated"):  # computed again for the way back: marked the first time
        return False
    return any(inner.primitive is mark_p or _has_marks(inner) for one in _inner(equation) for inner in one.jaxpr.eqns)


def _refuse(equation: JaxprEqn) -> None:
    """**Raises:** `BridgeError`, always."""
    names = sorted({repr(token) for token in _tokens(equation)})
    name, advice = equation.primitive.name, "Trace a function that calls it outside"
    if name == "while":
        steps = "jax.lax.scan, or jax.lax.fori_loop with bounds that are Python numbers"
        name, advice = "while_loop", f"Trace a function that takes a fixed number of steps: {steps}"
    elif name in ("shard_map", "smap", "pmap", "xla_pmap"):
        advice = "Trace the model outside of it, on one device"
    raise BridgeError(quote(names[0]), f"is called within {name}, and a trace cannot look into that", advice)


def _tokens(equation: JaxprEqn) -> Iterator[Token]:
    for one in _inner(equation):
        for inner in one.jaxpr.eqns:
            yield from [inner.params["token"]] if inner.primitive is mark_p else _tokens(inner)
