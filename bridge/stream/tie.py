"""Tied keys: stored twice, they must be equal to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bridge._errors import CheckpointError
from bridge.stream.convert import assign


def comparing(leaf: np.ndarray) -> Callable[[Sequence[np.ndarray]], None]:
    """A check that what was read, cast as the leaf's own key was, has the leaf's bits."""

    def compare(arrays: Sequence[np.ndarray]) -> None:
        values = np.empty(leaf.shape, leaf.dtype)
        assign(values, arrays[0])
        if values.tobytes() != np.ascontiguousarray(leaf).tobytes():
            raise CheckpointError(
                "is tied to a leaf that another key fills, but their values differ: the weights are not tied. "
                "Give each a leaf of its own, or drop one on purpose with '-> _'"
            )

    return compare
