"""numpy arrays and numbers whose data lies in the pickle itself."""

# What patterns find in a pickle's values is of any type.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportMatchNotExhaustive=false

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bridge.torchfile.dtypes import ML_DTYPES, NUMPY_CODES
from bridge.torchfile.limits import MAX_AXES, MAX_ELEMENTS
from bridge.torchfile.tokens import Global, NumpyArray, NumpyType, Object, Plain

if TYPE_CHECKING:
    from bridge.torchfile.machine import Machine


def new_array(m: Machine, path: str, args: tuple[Any, ...]) -> Any:
    """`_reconstruct(ndarray, (0,), b"b")`: an array that gets its data by BUILD."""
    match args:
        case (Global(path="numpy.ndarray"), _, _):
            return NumpyArray()
    return Object(path, called=True)


def array_of_bytes(m: Machine, path: str, args: tuple[Any, ...]) -> Any:
    """`_frombuffer(data, dtype, shape, order)`, as protocol 5 has it."""
    match args:
        case (data, dtype, shape, "C" | "F" as order):
            array = NumpyArray()
            _fill(m, array, shape, dtype, order == "F", data)
            return array
    return Object(path, called=True)


def dtype_of(m: Machine, path: str, args: tuple[Any, ...]) -> Any:
    """`dtype("f4", False, True)`; a class of ml_dtypes in place of the text."""
    match args:
        case (str() as code, *_):
            return NumpyType(code)
        case (Global() as cls, *_):
            return NumpyType(cls.path)
    return Object(path, called=True)


def scalar(m: Machine, path: str, args: tuple[Any, ...]) -> Any:
    """`scalar(dtype, data)`: a number."""
    return Plain("a number of numpy's")


def set_dtype_state(dtype: NumpyType, state: Any) -> None:
    """`(3, "<", …)`: the order of its bytes. Fields of a structure make it a dtype that we do not know."""
    match state:
        case (int(), "<" | ">" | "|" | "=" as order, None, None, None, *_):
            dtype.big = order == ">"
        case _:
            dtype.code = "a structure"


def set_array_state(m: Machine, array: NumpyArray, state: Any) -> None:
    """`(version, shape, dtype, whether in Fortran's order, data)`."""
    match state:
        case (int(), shape, dtype, bool() as fortran, data):
            _fill(m, array, shape, dtype, fortran, data)
        case _:
            array.values, array.problem = None, "is a numpy array with an invalid state"


def _fill(m: Machine, array: NumpyArray, shape: Any, dtype: Any, fortran: bool, data: Any) -> None:
    array.values = None
    if not isinstance(dtype, NumpyType):
        array.problem = "is a numpy array without a dtype"
        return
    known = NUMPY_CODES.get(dtype.code, ML_DTYPES.get(dtype.code))
    if known is None:
        array.problem = f"is a numpy array of dtype {dtype.code[:40]!r}, not of numbers"
        return
    if isinstance(data, str) and data.isascii():  # as Python 2 wrote bytes
        data = data.encode()
    if not isinstance(data, bytes) or not _is_shape(shape) or math.prod(shape) * known.itemsize != len(data):
        array.problem = "is a numpy array whose shape and data disagree"
        return
    values = np.frombuffer(data, known.newbyteorder(">") if dtype.big else known)
    try:
        array.values = values.reshape(shape, order="F" if fortran else "C")
    except ValueError:  # an empty one, with axes that numpy cannot count
        array.problem = "is a numpy array of a shape that numpy cannot hold"


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) <= MAX_AXES
        and all(type(extent) is int and 0 <= extent <= MAX_ELEMENTS for extent in shape)
    )
