"""Which of the model's outputs is which of PyTorch's, where there are several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.tree_util as jtu

from bridge.checking.kept import Kept
from bridge.checking.whole_align import RunArray, Wanted

Path = tuple[str, ...]
"""Where an array stands in an output: keys, names of fields, numbers in tuples."""


def recorded_paths(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Kept]]:
    """The tensors of a recorded output, each with its path."""
    if isinstance(tree, Kept):
        yield path, tree
    elif isinstance(tree, Mapping | tuple):
        items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
        for key, child in items:
            yield from recorded_paths(child, (*path, str(key)))


def is_ordered(tree: Any) -> bool:
    """Whether the arrays of an output are in the order in which it was made. JAX sorts dicts by their keys."""
    return not any(isinstance(key, jtu.DictKey) for keys, _ in jtu.tree_leaves_with_path(tree) for key in keys)


def own_path(keys: Sequence[Any]) -> Path:
    """The path of an array in an output of the model."""
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in keys)


def candidates(
    own: Sequence[tuple[Path, RunArray]], theirs: Sequence[tuple[Path, Kept]], *, ordered: bool
) -> list[list[tuple[RunArray, Kept]]]:
    """Pairs to compare, in groups: of each group one pair must agree.

    Outputs of one name belong together. Without names those of the same place do, where there are as many and they are
    `ordered`. If one side gives fewer, each of its arrays is some array of the other's: nobody asked for the rest.
    """
    named = dict(own)
    same = [[(named[path], kept)] for path, kept in theirs if path in named and _is_named(path)]
    if same:
        return same
    arrays = [array for _, array in own if any(_fits(array, kept) for _, kept in theirs)]
    wanted = [kept for _, kept in theirs if any(_fits(array, kept) for _, array in own)]
    same_count = ordered and len(arrays) == len(wanted)
    if same_count and all(_fits(array, kept) for array, kept in zip(arrays, wanted, strict=True)):
        return [[pair] for pair in zip(arrays, wanted, strict=True)]
    if len(arrays) < len(wanted):
        return [[(array, kept) for kept in wanted if _fits(array, kept)] for array in arrays]
    return [[(array, kept) for array in arrays if _fits(array, kept)] for kept in wanted]


def _is_named(path: Path) -> bool:
    return any(not part.isdecimal() for part in path)


def _fits(array: RunArray, kept: Kept) -> bool:
    return kept.values is not None and Wanted(kept, shared=False).view(array.shape) is not None
