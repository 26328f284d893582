"""The dicts of a checkpoint that hold tensors, and their paths."""

# What patterns find in a pickle's values is of any type.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.torchfile.limits import MAX_DEPTH, MAX_NODES
from bridge.torchfile.tokens import Dict, NumpyArray, Object, PickledTensor


class TensorDict(NamedTuple):
    """A dict that holds `tensors` tensors and `arrays` numpy arrays directly, and the keys that lead to it."""

    path: tuple[str, ...]
    values: Dict
    tensors: int
    arrays: int

    @property
    def name(self) -> str:
        """The path as one name."""
        return ".".join(self.path)


class WalkLimit:
    """Counts what is looked at in one file, so that values nested in themselves come to an end."""

    def __init__(self, name: str) -> None:
        """**Arguments:** the file's name."""
        self._name, self._nodes = quote(name), 0

    def step(self, depth: int, nodes: int) -> None:
        """Count `nodes` values at some depth; an error where either is out of proportion."""
        self._nodes += nodes
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise CheckpointError(
                self._name,
                f"is nested without end: more than {MAX_DEPTH} levels, or {MAX_NODES:,} values",
                "Do not load it anywhere: it is made by hand",
            )

    def dicts(self, saved: Any, module: Callable[[Object], Dict | None]) -> list[TensorDict]:
        """Every dict with tensors or arrays that text keys lead to, in the order of the file.

        **Arguments:**

        - `saved`: what the file holds.
        - `module`: the tensors of an object that is a module, all of them by their full names; None for others.
        """
        found: list[TensorDict] = []
        waiting: list[tuple[tuple[str, ...], Any]] = [((), saved)]
        while waiting:
            path, value = waiting.pop()
            values = module(value) if isinstance(value, Object) else value
            if not isinstance(values, Dict):
                continue
            self.step(len(path), len(values))
            kinds = [type(inner) for inner in values.values()]
            tensors, arrays = kinds.count(PickledTensor), kinds.count(NumpyArray)
            if tensors or arrays:
                found.append(TensorDict(path, values, tensors, arrays))
            if values is value and (Dict in kinds or Object in kinds):
                inner = [((*path, key), v) for key, v in values.items() if isinstance(v, (Dict, Object))]
                waiting += reversed(inner)
        return found
