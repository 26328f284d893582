"""Which of the model's outputs is which of PyTorch's, where there are several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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


def own_path(keys: Sequence[Any]) -> Path:
    """The path of an array in an output of the model."""
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in keys)


def candidates(
    own: Sequence[tuple[Path, RunArray]], theirs: Sequence[tuple[Path, Kept]]
) -> list[list[tuple[RunArray, Kept]]]:
    """Pairs to compare, in groups: of each group one pair must agree.

    Outputs of one name belong together. Without names those of the same place do, where there are as many. If one side
    gives fewer, each of its arrays is some array of the other's: the others are what nobody asked for.
    """
    named = dict(own)
    same = [[(named[path], kept)] for path, kept in theirs if path in named and _is_named(path)]
    if same:
        return same
    arrays = [array for _, array in own if any(_fits(array, kept) for _, kept in theirs)]
    wanted = [kept for _, kept in theirs if any(_fits(array, kept) for _, array in own)]
    # JAX sorts a dict by its keys: its order says nothing.
    ordered = len(arrays) == len(wanted) and not any(_is_named(path) for path, _ in own)
    if ordered and all(_fits(array, kept) for array, kept in zip(arrays, wanted, strict=True)):
        return [[pair] for pair in zip(arrays, wanted, strict=True)]
    if len(arrays) < len(wanted):
        return [[(array, kept) for kept in wanted if _fits(array, kept)] for array in arrays]
    return [[(array, kept) for array in arrays if _fits(array, kept)] for kept in wanted]


def _is_named(path: Path) -> bool:
    return any(not part.isdecimal() for part in path)


def _fits(array: RunArray, kept: Kept) -> bool:
    return kept.values is not None and Wanted(kept).view(array.shape) is not None
