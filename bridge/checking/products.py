"""What went into a linear layer and what came out: calls of its module, or products with its parameter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bridge.checking.counterparts import ColumnMatch
from bridge.checking.kept import Kept, common_rows, tensors
from bridge.checking.recording import Op, Recording
from bridge.mapping.arrays import Numbers


class Product(NamedTuple):
    """Rows of an input and of an output, and which columns of the layer's and of the module's output these are."""

    taken: np.ndarray
    given: np.ndarray
    own: Numbers
    bias: bool
    dtype: np.dtype


def product_of(recording: Recording, part: ColumnMatch, width: int, height: int) -> Product | str:
    """The recorded product of one part of a linear layer from `width` to `height` columns; or why there is none."""
    module = recording.modules[part.module]
    own = np.arange(height) if part.own is None else part.own
    theirs = np.arange(len(own)) if part.theirs is None else part.theirs
    if module.torch_kind == "Linear" or module.kind == "Conv1D":
        reason = "PyTorch did not call it in the recorded run"
        for call in recording.calls_of(part.module):
            taken = next(tensors((call.args, dict(call.kwargs))), None)
            given = next(tensors(call.output), None)
            if taken is None or given is None or not len(rows := common_rows(taken, given)):
                reason = "no row of its input and output was kept"
                continue
            if len(taken.columns) < taken.width:
                return "its input was not kept whole"
            return _product(taken.at(rows), given.at(rows), given, own, theirs, bias="bias" in module.params)
        if recording.calls_of(part.module) or module.torch_kind == "Linear":
            return reason
    reason = f"PyTorch has it in '{part.module}', a {module.kind}, which is no linear layer"
    for op in recording.ops:
        if _is_of(recording, op.param, part):
            found = _of_op(recording, op, part, own, theirs)
            if not isinstance(found, str):
                return found
            reason = found
    return reason


def _is_of(recording: Recording, name: str, part: ColumnMatch) -> bool:
    """Whether a product is one with the parameter of this part."""
    one, other = recording.params.get(name), recording.params.get(part.place.param)
    return one is not None and other is not None and one.storage[0] == other.storage[0]


def _product(
    taken: np.ndarray, given: np.ndarray, kept: Kept, own: Numbers, theirs: Numbers, *, bias: bool
) -> Product | str:
    """Those columns of the output that are both the layer's and kept."""
    places = {column: place for place, column in enumerate(kept.columns.tolist())}
    found = [(n, places[column]) for n, column in enumerate(theirs.tolist()) if column in places]
    if not found:
        return "no column of its output was kept"
    mine, there = (np.array(side, np.intp) for side in zip(*found, strict=True))
    return Product(taken, given[:, there], own[mine], bias, kept.dtype)


def _of_op(recording: Recording, op: Op, part: ColumnMatch, own: Numbers, theirs: Numbers) -> Product | str:
    """A product outside of a layer: `taken @ view` where the view is of the parameter of this part."""
    param = recording.params[part.place.param]
    if len(op.shape) < 2 or len(param.shape) < 2 or len(op.strides) != len(op.shape):
        return "its product was not kept"
    rows = common_rows(op.taken, op.given)
    expert = part.place.matrix
    if len(op.shape) == 3:
        expert = expert or 0
        if op.groups and op.groups[0].values is not None:
            ends = op.groups[0].values.reshape(-1)
            rows = rows[np.searchsorted(ends, rows, side="right") == expert]
        elif len(op.taken.shape) == 3:
            rows = rows[rows // op.taken.shape[1] == expert]
    if not len(rows):
        return NO_TOKEN
    if len(op.taken.columns) < op.taken.width:
        return "its input was not kept whole"
    # A column of the view by the place of its first element in the parameter.
    start = op.offset - param.storage[1] + (expert or 0) * (op.strides[0] if len(op.shape) == 3 else 0)
    columns = start + np.arange(op.given.width) * op.strides[-1]
    stride = param.shape[-1] if op.strides[-2] == 1 or op.shape[-2] == 1 else 1
    matrix = (expert or 0) * param.shape[-2] * param.shape[-1] if len(param.shape) > 2 else 0
    wanted = {matrix + column * stride: n for n, column in enumerate(theirs.tolist())}
    numbers = np.array([wanted.get(column, -1) for column in columns.tolist()], np.intp)
    there = np.flatnonzero(numbers >= 0)
    chosen = own[numbers[there]] if len(there) else own[:0]
    return _product(op.taken.at(rows), op.given.at(rows), op.given, chosen, there, bias=op.op.startswith("add"))


NO_TOKEN = "none of the rows that were kept went to it"
