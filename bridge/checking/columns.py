"""Which columns of a module's input and output are a layer's: those that a plan cuts out of its weight."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from bridge.checking.matching import KeyPlace
from bridge.checking.pieces import LayerElements, positions
from bridge.checking.recording import Recording
from bridge.mapping.arrays import Numbers

_OUT_AXIS = {"Conv1D": 1}  # of a weight; of all others 0


class ColumnMatch(NamedTuple):
    """Columns of a module's output that are a layer's: `own` of the layer's output, `theirs` of the module's; `None`
    is all of them. `place` is the parameter that says so. `taken` are columns of the module's input.
    """

    module: str
    place: KeyPlace
    own: Numbers | None = None
    theirs: Numbers | None = None
    taken: Numbers | None = None


def part_of(layer: Any, piece: LayerElements, place: KeyPlace, owner: str, recording: Recording) -> ColumnMatch:
    """What a piece of a layer's weight says of the columns of a module, where both are linear."""
    param, key_shape = recording.params[place.param], piece.index_map.key_shape
    if not isinstance(layer, eqx.nn.Linear) or len(param.shape) < 2 or len(key_shape) < 2:
        return ColumnMatch(owner, place)
    module = recording.modules[owner]
    first = len(key_shape) - 2
    axis = first + (_OUT_AXIS.get(module.torch_kind or module.kind, 0) if place.matrix is None else 0)
    along, across = positions(piece.index_map, 0), positions(piece.index_map, 1)
    if along is None or across is None or along.key_axis == across.key_axis:
        return ColumnMatch(owner, place)
    # A weight that lies the wrong way round has the columns of its output along its other axis.
    given, taken = (across, along) if along.key_axis != axis else (along, across)
    if given.key_axis != axis:
        return ColumnMatch(owner, place)
    theirs = given.key + place.row
    height = piece.index_map.leaf_shape[0]
    own = along.leaf if given is along else np.arange(len(theirs))
    count = param.shape[-2] if place.matrix is not None or place.row < 0 else key_shape[axis]
    return ColumnMatch(
        owner,
        place,
        _unless_all(own, height),
        _unless_all(theirs, count),
        _unless_all(taken.key, key_shape[taken.key_axis]),
    )


def _unless_all(numbers: Numbers, count: int) -> Numbers | None:
    """Numbers, or `None` where they are all of so many, in their order."""
    return None if len(numbers) == count and (numbers == np.arange(count)).all() else numbers
