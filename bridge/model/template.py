"""A model's tree: its leaves by the names that PyTorch would give them, its `Template`, and the model filled again."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.template import Spec, Template

if TYPE_CHECKING:
    from bridge.model.layouts import Layouts, OwnLayout
    from bridge.model.placing import Placing

ARRAYS = (jax.Array, np.ndarray, jax.ShapeDtypeStruct)


def equinox_in_use() -> ModuleType | None:
    """Equinox, if the program has imported it."""
    if "equinox" not in sys.modules:
        return None
    import equinox as eqx  # waits where another thread is still at it

    return eqx


# Models have many nodes of few types, and asking JAX's abstract classes takes time.
@cache
def kind_of(kind: type) -> str:
    """What a node of this type is to the walk: an `"index"` into a state, a `"state"`, a `"module"`, an `"array"`."""
    eqx = equinox_in_use()
    # By its bases: `issubclass` would ask all classes that derive from `eqx.Module`, a hundred of them, one by one.
    bases = kind.__mro__
    if eqx is not None and (eqx.Module in bases or eqx.nn.State in bases):
        return "index" if eqx.nn.StateIndex in bases else "state" if eqx.nn.State in bases else "module"
    return "array" if issubclass(kind, ARRAYS) else ""


@cache
def hidden(kind: type) -> tuple[str] | None:
    """The attribute of a module that PyTorch's names do not show."""
    eqx = equinox_in_use()
    if eqx is None:
        return None
    names = {eqx.nn.Sequential: "layers", eqx.nn.Shared: "pytree"}
    return next(((name,) for base, name in names.items() if base in kind.__mro__), None)


class Leaf:
    """One leaf: its name as PyTorch would write it, keystr's own spelling, and its place among all leaves."""

    __slots__ = ("alias", "name", "place", "value")

    def __init__(self, name: str, alias: str, value: Any, place: int) -> None:
        self.name, self.alias, self.value, self.place = name, alias, value, place


class Walked:
    """All leaves of a tree, in JAX's order, its modules by name (outermost first), and where it points into a `State`.

    `indices` have a leaf's form; their values are `eqx.nn.StateIndex`es, whose own leaves are none of the model's.
    Modules are Equinox's, and whatever else is one of the types in `layers`.
    """

    def __init__(self, layers: tuple[type, ...] = ()) -> None:
        self.layers = layers
        self.leaves: list[Leaf] = []
        self.modules: list[tuple[str, Any]] = []
        self.indices: list[Leaf] = []
        self.count = 0


def walk(tree: Any, layers: tuple[type, ...] = ()) -> Walked:
    """Name every leaf of `tree`.

    A name is `jax.tree_util.keystr(path, simple=True, separator=".")` without what PyTorch's names do not show: the
    `.layers` of `eqx.nn.Sequential` and the `.pytree` of `eqx.nn.Shared`.
    """
    walked = Walked(layers)
    _walk(tree, (), (), walked)
    return walked


def is_array(value: Any) -> bool:
    """Whether a leaf is an array that a checkpoint can fill: PRNG keys and Python numbers are not."""
    if not isinstance(value, ARRAYS):
        return False
    return not jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def joined(prefix: str, name: str) -> str:
    """A name below a prefix; either may be empty."""
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _walk(node: Any, name: tuple[str, ...], alias: tuple[str, ...], walked: Walked) -> None:
    kind = kind_of(type(node))
    if kind == "index":
        walked.indices.append(Leaf(".".join(name), ".".join(alias), node, walked.count))
        # An initial value that nobody has deleted: the state holds what counts.
        walked.count += len(jtu.tree_leaves(node))
        return
    if kind == "state":
        at = quote(".".join(alias))
        raise PlanError(at, "is an equinox State within a larger tree", "Pass the pair (model, state)")
    if kind == "module" or (walked.layers and isinstance(node, walked.layers)):
        walked.modules.append((".".join(name), node))
    children = [] if kind == "array" else list(_children(node))
    if kind == "array" or (len(children) == 1 and children[0][1] is node):
        walked.leaves.append(Leaf(".".join(name), ".".join(alias), node, walked.count))
        walked.count += 1
        return
    unseen = hidden(type(node)) if kind == "module" else None
    for path, child in children:
        shown = tuple(jtu.keystr((entry,), simple=True) for entry in path)
        visible = shown[1:] if shown[:1] == unseen else shown
        _walk(child, name + visible, alias + shown, walked)


def _children(node: Any) -> Iterator[tuple[Any, Any]]:
    """The direct children of a node, with their paths; a leaf is its own only child."""
    yield from jtu.tree_leaves_with_path(node, is_leaf=lambda child: child is not node)


class Model:
    """A template model taken apart: what the mapping needs to know of it, and what it takes to put it together."""

    __slots__ = ("arrays", "like", "template")

    def __init__(self, template: Template, arrays: Mapping[str, Leaf], like: Any) -> None:
        self.template, self.arrays, self.like = template, arrays, like

    def abstract(self, name: str) -> bool:
        """Whether a leaf has a shape and no value."""
        return isinstance(self.arrays[name].value, jax.ShapeDtypeStruct)

    def kept(self, name: str) -> Any:
        """The template's own value of a leaf. **Raises:** `PlanError` where it is abstract and has none."""
        value = self.arrays[name].value
        if isinstance(value, jax.ShapeDtypeStruct):
            raise PlanError(
                f"leaf {quote(name)}",
                "may be missing, but the template is abstract and has no value to keep",
                "Give a concrete template, or allow_missing={pattern: function} to make one",
            )
        return value

    def filled(self, values: Mapping[str, Any]) -> Any:
        """The model with the arrays of `values`, by leaf name; all else is the template's."""
        leaves, structure = jtu.tree_flatten(self.like)
        for name, leaf in self.arrays.items():
            leaves[leaf.place] = values[name]
        return jtu.tree_unflatten(structure, leaves)


def take_apart(like: Any, layouts: Layouts | None = None) -> Model:
    """Read the leaves of `like`, a pytree or a `(model, state)` pair. `layouts` are the user's own.

    **Raises:** `PlanError` where two leaves have one name, where a model's state is not given or not its own, for
    layouts that are not of its layers; `RuleError` for a rule that a layout cannot have.
    """
    model, state = _split(like)
    if isinstance(model, type | FunctionType | str | int | float) or _is_texts(model):
        _refuse_like(model)
    own = _own_layouts(layouts)
    walked = walk(model, tuple(layout.kind for layout in own))
    if state is not None or walked.indices:
        _add_state(walked, like, state)
    kind = type(model).__name__
    placing = _placing(walked, own, kind)
    arrays = _arrays(walked, {} if placing is None else placing.shown, kind)
    leaves = {name: Spec(np.dtype(leaf.value.dtype), tuple(leaf.value.shape)) for name, leaf in arrays.items()}
    if placing is None:
        return Model(Template(leaves, kind=kind), arrays, like)
    own = {leaf.alias: name for name, leaf in arrays.items() if leaf.alias != name}
    return Model(placing.template(leaves, own, kind), arrays, like)


def _is_texts(like: Any) -> bool:
    """Whether a list holds texts alone: rules in the place of the model."""
    return isinstance(like, list | tuple) and bool(like) and all(isinstance(item, str) for item in like)


def _refuse_like(like: Any) -> NoReturn:
    """**Raises:** `PlanError`: this is no model."""
    name = getattr(like, "__name__", "")
    if isinstance(like, type):
        problem, advice = f"is the class {quote(name)}", f"Make one without memory: eqx.filter_eval_shape({name}, …)"
    elif isinstance(like, FunctionType):
        problem, advice = f"is the function {quote(name)}", f"Call it without memory: eqx.filter_eval_shape({name})"
    elif isinstance(like, int | float):
        problem, advice = f"is {like!r}", "Give a pytree of arrays or jax.ShapeDtypeStruct"
    else:
        problem, advice = "holds only texts", "Give the model first, then rules: load(source, like, rules)"
    raise PlanError("like", f"{problem}, not a model", advice)


def modules_of(like: Any) -> list[tuple[str, Any]]:
    """The modules of a model, or of a `(model, state)` pair, by name; outermost first."""
    return walk(_split(like)[0]).modules


def _split(like: Any) -> tuple[Any, Any]:
    """The model and its state; `None` for a tree that has no state."""
    if isinstance(like, tuple) and len(like) == 2 and kind_of(type(like[1])) == "state":
        return like
    return like, None


def _add_state(walked: Walked, like: Any, state: Any) -> None:
    """The leaves of the model's state among the others. **Raises:** `PlanError` where it was not given."""
    from bridge.model.state import refuse_stateless, state_leaves  # few models have any

    if state is None:
        refuse_stateless(like, walked.indices)
    walked.leaves += state_leaves(state, walked.indices, walked.count)


def _own_layouts(layouts: Layouts | None) -> Sequence[OwnLayout]:
    """The layouts that a user gives."""
    if layouts is None:
        return ()
    from bridge.model.layouts import own_layouts  # it imports Equinox

    return own_layouts(layouts)


def _placing(walked: Walked, own: Sequence[OwnLayout], kind: str) -> Placing | None:
    """The layouts of the tree's modules. One of plain containers has none, and needs no Equinox.

    **Raises:** `PlanError` for a user's layout that is no module's.
    """
    for layout in own:
        if not any(isinstance(module, layout.kind) for _, module in walked.modules):
            types = sorted({type(module).__name__ for _, module in walked.modules})
            raise PlanError(
                "layouts",
                f": no layer of {kind} is a {quote(layout.kind.__name__)}, for which a layout is given",
                f"Name a type of its layers: {', '.join(map(quote, types))}"
                if types
                else "Leave layouts out: it has only plain containers",
            )
    if not walked.modules:
        return None
    from bridge.model.placing import Placing  # it imports Equinox

    return Placing(walked.modules, own)


def _arrays(walked: Walked, shown: Mapping[str, str], kind: str) -> dict[str, Leaf]:
    """The arrays by name; `shown` are the names that layouts give."""
    arrays: dict[str, Leaf] = {}
    for leaf in walked.leaves:
        if not is_array(leaf.value):
            continue
        name = shown.get(leaf.name, leaf.name)
        if name in arrays:
            raise PlanError(
                f"leaf {quote(name)}",
                f"appears twice in {kind}, as {quote(arrays[name].alias)} and as {quote(leaf.alias)}",
                "Rename one of the attributes",
            )
        arrays[name] = leaf
    return arrays
