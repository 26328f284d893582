"""A model whose modules know their names, and mark what they are called with and what they give.

Each module becomes one of a subclass of its own class with a static field more. So it is the same pytree, with the same
arrays, and goes through `scan`, `vmap` and `filter_jit` as it did.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import jax.tree_util as jtu

from bridge.model.template import hidden, joined, kind_of
from bridge.tracing.mark import Slot, Token, mark

_LABEL = "_bridge_label"
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


class OpaqueValue:
    """Stands for what is no array and no plain value: a module, a state, a key, a function."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{self.kind}>"


class Label:
    """The name of a module, and the ranks of its arrays. Each trace makes its own, so that nothing that JAX has cached
    of another trace is taken for this one's.
    """

    __slots__ = ("name", "rank")

    def __init__(self, name: str, rank: int) -> None:
        self.name, self.rank = name, rank

    def __repr__(self) -> str:
        return self.name


def named(model: Any) -> Any:
    """The model with names; of a `(model, state)` pair the model alone."""
    if isinstance(model, tuple) and len(model) == 2 and kind_of(type(model[1])) == "state":
        return _rebuilt(model[0], "", _with_label), model[1]
    return _rebuilt(model, "", _with_label)


def plain(tree: Any) -> Any:
    """A tree without names: each module of its own class."""
    return _rebuilt(tree, "", _without_label)


def _rebuilt(node: Any, name: str, change: Callable[[Any, str], Any]) -> Any:
    """The tree with each module changed, innermost first. Names are those of `bridge.model.template.walk`."""
    kind = kind_of(type(node))
    if kind in ("array", "state", "index"):
        return node
    found, structure = jtu.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)
    if len(found) == 1 and found[0][1] is node:
        return node
    unseen = hidden(type(node)) if kind == "module" else None
    children: list[Any] = []
    for path, child in found:
        shown = tuple(jtu.keystr((entry,), simple=True) for entry in path)
        visible = shown[1:] if shown[:1] == unseen else shown
        children.append(_rebuilt(child, joined(name, ".".join(visible)), change))
    node = jtu.tree_unflatten(structure, children)
    return change(node, name) if kind == "module" else node


def _with_label(module: Any, name: str) -> Any:
    if not _marks(type(module)):
        return module
    own = _own(module)
    fields = vars(module) | {_LABEL: Label(name, own[0].ndim if own else 0)}
    return _of_class(_labelled(type(module)), fields)


def _without_label(module: Any, name: str) -> Any:
    fields = dict(vars(module))
    return _of_class(type(module).__mro__[1], fields) if fields.pop(_LABEL, None) else module


def _of_class(kind: type, fields: dict[str, Any]) -> Any:
    """A module of these fields, made as JAX makes it: no constructor runs."""
    new = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(new, name, value)
    return new


def _marks(kind: type) -> bool:
    """Whether calls of such modules are seen: not those that stand for a function, and give no values of their own."""
    ours = kind.__module__.split(".")[0] == "equinox" and (
        kind.__name__.startswith("_") or "_module" in kind.__module__
    )
    return "__call__" in dir(kind) and not ours and not issubclass(kind, eqx.nn.Shared)


@cache
def _labelled(kind: type) -> type:
    """The subclass of `kind` whose calls are marked."""
    body = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__annotations__": {_LABEL: Any},
        _LABEL: eqx.field(static=True, default=None),
        "__call__": lambda self, *args, **kwargs: _called(labelled, self, args, kwargs),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Equinox has to say of a class, it said when that was made
        labelled = type(kind)(kind.__name__, (kind,), body)
    return labelled


def _called(kind: type, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a module as its class does, and mark what goes in and what comes out."""
    label, own = getattr(module, _LABEL), _own(module)
    token = Token(label.name, kind.__name__, label.rank - own[0].ndim if own else 0)
    (args, kwargs), token.inputs, count = _marked((args, kwargs), own[:1], token, 0)
    output = super(kind, module).__call__(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
    output, token.output, _ = _marked(output, own[:1], token, count)
    return output


def _marked(tree: Any, own: tuple[jax.Array, ...], token: Token, start: int) -> tuple[Any, Any, int]:
    """The tree with its arrays marked; a pytree of slots; and the number that follows the last slot."""
    leaves, structure = jtu.tree_flatten(tree, is_leaf=_is_whole)
    slots: list[Any] = []
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, _PLAIN):
            slots.append(leaf)
        elif _is_whole(leaf) or not eqx.is_array(leaf):
            slots.append(OpaqueValue(type(leaf).__name__))
        elif jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            slots.append(OpaqueValue("key"))
        else:
            value = mark(jnp.asarray(leaf), own, token=token, slot=start)
            if isinstance(leaf, jax.core.Tracer):  # what is known while tracing stays known
                leaves[place] = value
            slots.append(Slot(start))
            start += 1
    return jtu.tree_unflatten(structure, leaves), jtu.tree_unflatten(structure, slots), start


def _is_whole(node: Any) -> bool:
    """Whether a node is not looked into: a module of the model, a state."""
    return kind_of(type(node)) in ("state", "index") or getattr(node, _LABEL, None) is not None


def _own(module: Any) -> tuple[jax.Array, ...]:
    """The arrays of a module; the floats among them first."""
    arrays = [leaf for leaf in jtu.tree_leaves(module) if eqx.is_array(leaf)]
    arrays = [leaf for leaf in arrays if not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)]
    return tuple(sorted(arrays, key=lambda leaf: not jnp.issubdtype(leaf.dtype, jnp.inexact)))
