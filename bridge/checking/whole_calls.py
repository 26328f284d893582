"""How a model may be called on what PyTorch's was called with: by the names of its parameters, mapped and not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from bridge.checking.kept import Kept
from bridge.model.template import kind_of, modules_of

Way = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function of the model and of more, and the rest of what it is called with."""

_SAME = {
    "input_ids": ("token", "tokens", "ids", "text", "texts"),
    "pixel_values": ("image", "images", "pixels", "picture", "pictures"),
}
"""Names that transformers has, and those that ports have for the same."""
_FIRST = ("input_ids", "pixel_values", "inputs_embeds", "input_values", "input_features")
_KEYS = ("key", "rng")
_SET = {"inference": True, "deterministic": True, "train": False, "training": False, "is_training": False}
"""Parameters that say whether something is trained."""
_BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def in_inference(model: Any) -> Any:
    """The model, or the model of a `(model, state)` pair, as it is at inference: what is recorded is."""
    if is_pair(model):
        return in_inference(model[0]), model[1]
    trains = any(vars(module).get("inference") is False for _, module in modules_of(model))
    return eqx.nn.inference_mode(model) if trains else model


def is_pair(model: Any) -> bool:
    """Whether it is a model with its state."""
    return isinstance(model, tuple) and len(model) == 2 and kind_of(type(model[1])) == "state"


def ways(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Way]:
    """The calls to try: with all that the model has parameters for, with the first argument, with all in their order;
    each mapped over examples, not mapped, and mapped over the second axis where time may be the first.
    """
    dtype = _float_of(model)
    named = {f"arg{n}": value for n, value in enumerate(args)} | dict(kwargs)
    held = {name: _arrays(value, dtype) for name, value in named.items() if _has_values(value)}
    params = _params(model[0] if is_pair(model) else model)
    free = [name for name in params if name not in (*_KEYS, *_SET, "state")]
    seen: list[Mapping[str, str]] = []
    for given in (_by_name(free, held), _first(free, held), dict(zip(free, held, strict=False))):
        if not given or given in seen:
            continue
        seen.append(given)
        for masks in (True, False) if any(_is_mask(held, name) for name in given.values()) else (False,):
            arrays = tuple(
                held[name].astype(bool) if masks and _is_mask(held, name) else held[name] for name in given.values()
            )
            time_first = all(leaf.ndim > 2 for leaf in jtu.tree_leaves(arrays))
            for axis in (0, None, 1) if time_first else (0, None):
                yield _call(params, tuple(given), pair=is_pair(model), axis=axis), arrays


def given_by(fn: Callable[..., Any], model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Way:
    """A function of the user's, of the model and of what PyTorch took: arrays, by their names where they had names."""
    dtype = _float_of(model)
    arrays = tuple(_arrays(value, dtype) for value in args if _has_values(value))
    named = {name: _arrays(value, dtype) for name, value in kwargs.items() if _has_values(value)}
    params = inspect.signature(fn).parameters.values()
    if not any(param.kind is Parameter.VAR_KEYWORD for param in params):
        taken = {param.name for param in params}
        rest = [name for name in named if name not in taken]
        free = [param for param in params if param.kind in _BY_PLACE and param.name not in named][1 + len(arrays) :]
        # A function that calls the only input `x`, say, means that one.
        arrays += tuple(named.pop(name) for name, _ in zip(rest, free, strict=False))
        named = {name: array for name, array in named.items() if name in taken}
    names = tuple(named)

    def run(model: Any, *given: Any) -> Any:
        return fn(model, *given[: len(arrays)], **dict(zip(names, given[len(arrays) :], strict=True)))

    return run, (*arrays, *named.values())


def _params(module: Any) -> dict[str, Parameter]:
    """The parameters of a model's call, by name; of one that takes any number `*args`, many."""
    try:
        found = dict(inspect.signature(module.__call__).parameters)
    except (AttributeError, TypeError, ValueError):
        return {}
    many = [name for name, param in found.items() if param.kind is Parameter.VAR_POSITIONAL]
    more = {f"*{n}": Parameter(f"_{n}", Parameter.POSITIONAL_ONLY) for n in range(8)} if many else {}
    return {name: param for name, param in (found | more).items() if param.kind in (*_BY_PLACE, Parameter.KEYWORD_ONLY)}


def _by_name(free: Sequence[str], held: Mapping[str, Any]) -> dict[str, str]:
    """Of each parameter the recorded argument: by its place, the main input for the first, and those whose names have
    the parameter's in them: `mask`, of `attention_mask`.
    """
    left = [name for name in held if not name.startswith("arg")]
    found = dict(zip(free, [name for name in held if name.startswith("arg")], strict=False))
    for param in free[len(found) :]:
        words = {word.removesuffix("s") for word in param.split("_")}
        same = [name for name in left if param in _SAME.get(name, ())]
        same += [name for name in left if words <= {word.removesuffix("s") for word in name.split("_")}]
        if not found and not same:
            same = [*(name for name in _FIRST if name in left), *left]
        if same:
            found[param] = same[0]
            left.remove(same[0])
    return found


def _first(free: Sequence[str], held: Mapping[str, Any]) -> dict[str, str]:
    """The first parameter alone."""
    return dict(list(_by_name(free[:1], held).items())[:1])


def _is_mask(held: Mapping[str, Any], name: str) -> bool:
    """Whether an argument is a mask of ones and zeros, which JAX's models mostly take as booleans."""
    array = held[name]
    if "mask" not in name or not eqx.is_array(array) or not jnp.issubdtype(array.dtype, jnp.integer):
        return False
    return bool(((array == 0) | (array == 1)).all())


def _call(
    params: Mapping[str, Parameter], given: tuple[str, ...], *, pair: bool, axis: int | None
) -> Callable[..., Any]:
    """A function of the model, or of the pair, and of an array for each of some parameters, mapped over an axis."""
    fixed = {name: value for name, value in _SET.items() if name in params}
    fixed |= {name: None for name in _KEYS if name in params and params[name].default is Parameter.empty}
    # By place as far as that goes, so that what is taken first comes first.
    names = list(params)
    by_place = 0
    while by_place < len(given) and given[by_place] == names[by_place] and params[given[by_place]].kind in _BY_PLACE:
        by_place += 1

    def call(model: Any, state: tuple[Any, ...], arrays: tuple[Any, ...]) -> Any:
        named = dict(zip(given[by_place:], arrays[by_place:], strict=True)) | fixed
        if state and "state" in params:
            named, state = named | {"state": state[0]}, ()
        return model(*arrays[:by_place], *state, **named)

    def run(model: Any, *arrays: Any) -> Any:
        model, *state = model if pair else (model,)
        if axis is None:
            return call(model, tuple(state), arrays)
        leaves, structure = jtu.tree_flatten(arrays)
        count = leaves[0].shape[axis]
        # What is the same for all examples has one, or no axis for them.
        over = [axis if leaf.ndim > axis and leaf.shape[axis] == count else None for leaf in leaves]
        leaves = [
            leaf[0] if where is None and leaf.shape[:1] == (1,) else leaf
            for leaf, where in zip(leaves, over, strict=True)
        ]
        axes = (None, jtu.tree_unflatten(structure, over))
        mapped = jax.vmap(
            lambda state, arrays: call(model, state, arrays), axes, (0, None) if pair else 0, axis_name="batch"
        )
        return mapped(tuple(state), jtu.tree_unflatten(structure, leaves))

    return run


def _has_values(value: Any) -> bool:
    """Whether an argument is tensors, alone or in tuples and dicts, and nothing else."""
    leaves = jtu.tree_leaves(value)
    return bool(leaves) and all(isinstance(leaf, Kept) for leaf in leaves)


def _arrays(value: Any, dtype: Any) -> Any:
    """A recorded argument as the model takes it."""
    return jtu.tree_map(lambda kept: _array(kept, dtype), value)


def _array(kept: Kept, dtype: Any) -> jax.Array:
    """A recorded input as the model takes it: floats in its own dtype."""
    assert kept.values is not None
    array = kept.values.reshape(kept.shape)
    if array.dtype.kind in "iu":
        return jnp.asarray(array.astype(np.int32) if array.dtype.itemsize == 8 else array)
    return jnp.asarray(array) if array.dtype == bool else jnp.asarray(array).astype(dtype)


def _float_of(model: Any) -> Any:
    """The dtype that most of the model's elements have."""
    sizes: dict[Any, int] = {}
    for leaf in jtu.tree_leaves(eqx.filter(model, eqx.is_inexact_array)):
        sizes[leaf.dtype] = sizes.get(leaf.dtype, 0) + leaf.size
    return max(sizes, key=sizes.__getitem__, default=jnp.float32)
