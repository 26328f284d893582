"""What calls in a pickle mean. The list is closed: whatever is not on it becomes a token that carries its name."""

# What patterns find in a pickle's values is of any type.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportMatchNotExhaustive=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bridge.torchfile.arrays import array_of_bytes, dtype_of, new_array, scalar, set_array_state, set_dtype_state
from bridge.torchfile.limits import PAIR_NBYTES
from bridge.torchfile.tokens import Dict, Global, NumpyArray, NumpyType, Object, OldText, PickledTensor, Plain, Set

if TYPE_CHECKING:
    from bridge.torchfile.machine import Machine

RebuildFunction = Callable[["Machine", str, tuple[Any, ...]], Any]


def call(m: Machine, function: Any, args: Any) -> Any:
    """What `function(*args)` stands for."""
    if not isinstance(args, tuple):
        m.damaged("a call without arguments")
    if isinstance(function, Global):
        meaning = CALLS.get(function.path)
        return Object(function.path, called=True) if meaning is None else meaning(m, function.path, args)
    if isinstance(function, Object):
        return Object(function.origin, called=True)
    m.damaged("a call of a value that is not a function")


def make(m: Machine, cls: Any, args: Any) -> Any:
    """What `cls.__new__(cls, *args)` stands for."""
    if not isinstance(args, tuple):
        m.damaged("a new object without arguments")
    if isinstance(cls, Global):
        meaning = _CLASSES.get(cls.path)
        return Object(cls.path, called=False) if meaning is None else meaning(m, cls.path, args)
    if isinstance(cls, Object):
        return Object(cls.origin, called=True)
    m.damaged("a new object of a value that is not a class")


def build(m: Machine, value: Any, state: Any) -> None:
    """Give `value` its state, as unpickling does with attributes."""
    if isinstance(value, Object):
        value.state = state
    elif isinstance(value, NumpyArray):
        set_array_state(m, value, state)
    elif isinstance(value, NumpyType):
        set_dtype_state(value, state)
    elif isinstance(value, PickledTensor):
        value.stated = True
    elif not isinstance(value, (Dict, Set, Plain)):  # attributes of these, such as `_metadata`, are of no use
        m.damaged("attributes for a value that has none")


# ---- containers and values


def _dict(m: Machine, path: str, args: tuple[Any, ...]) -> Any:
    """Empty, or with the pairs of a list, or a copy of a dict."""
    into = Dict()
    match args:
        case () | (None,):
            pass
        case (Dict() as other,):
            m.copy(PAIR_NBYTES * len(other))
            into.update(other)
            into.others = other.others
        case (list() as pairs,):
            m.copy(PAIR_NBYTES * len(pairs))
            for pair in pairs:
                match pair:
                    case (key, value):
                        into.put(key, value)
                    case _:
                        m.damaged("a dict of values that are not pairs")
        case _:
            return Object(path, called=True)
    return into


def _default_dict(m: Machine, path: str, args: tuple[Any, ...]) -> Any:
    """`defaultdict(factory, …)`: the factory makes nothing here."""
    return _dict(m, path, args[1:])


def _set(m: Machine, path: str, args: tuple[Any, ...]) -> Any:
    match args:
        case ():
            return Set()
        case (list() as items,):
            m.copy(8 * len(items))
            return Set(items)
    return Object(path, called=True)


def _encoded(m: Machine, path: str, args: tuple[Any, ...]) -> Any:
    """`encode(text, "latin1")`: how protocol 2 spells bytes."""
    match args:
        case (str() as text, "latin1" | "latin-1"):
            m.copy(len(text))
            try:
                return text.encode("latin-1")
            except UnicodeEncodeError:
                m.damaged("invalid bytes")
    return Object(path, called=True)


def _bytes(m: Machine, path: str, args: tuple[Any, ...]) -> Any:
    """`bytearray(b"…")`, or of text and an encoding."""
    match args:
        case ():
            return b""
        case (bytes() as data,) if not isinstance(data, OldText):
            return data
    return _encoded(m, path, args)


def _size(m: Machine, path: str, args: tuple[Any, ...]) -> Any:
    match args:
        case (tuple() as shape,):
            return shape
        case (list() as shape,):
            m.copy(8 * len(shape))
            return tuple(shape)
    return Object(path, called=True)


def _plain(what: str) -> RebuildFunction:
    def token(m: Machine, path: str, args: tuple[Any, ...]) -> Any:
        return Plain(what)

    return token


def _instance(m: Machine, path: str, args: tuple[Any, ...]) -> Any:
    """`_reconstructor(cls, object, None)`: how Python 2 made instances."""
    match args:
        case (Global() as cls, Global(name="object"), None):
            return Object(cls.path, called=False)
    return Object(path, called=True)


# ---- tensors


def _tensor(m: Machine, path: str, args: tuple[Any, ...]) -> Any:
    return PickledTensor(path.rpartition(".")[2], args)


def _parameter(m: Machine, path: str, args: tuple[Any, ...]) -> Any:
    return PickledTensor("_rebuild_parameter", args) if args else Object(path, called=True)


_NUMPY = ("numpy.core", "numpy._core")
_BUILTINS = ("builtins", "__builtin__")

_CLASSES: Mapping[str, RebuildFunction] = MappingProxyType(
    {
        "collections.OrderedDict": _dict,
        "collections.Counter": _dict,
        "collections.defaultdict": _default_dict,
        "numpy.dtype": dtype_of,
        "torch.Size": _size,
        "torch.device": _plain("a device"),
        **{f"{room}.{name}": _set for room in _BUILTINS for name in ("frozenset", "set")},
        **{f"{room}.{name}": _plain(f"a {name}") for room in _BUILTINS for name in ("complex", "range", "slice")},
        **{f"{room}.bytearray": _bytes for room in _BUILTINS},
        **{f"{room}.bytes": _bytes for room in _BUILTINS},
    }
)
"""Classes of which instances are made."""

TENSORS = (
    *("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter"),
    *("_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_sparse_tensor", "_rebuild_sparse_csr_tensor"),
    *("_rebuild_nested_tensor", "_rebuild_meta_tensor_no_storage", "_rebuild_wrapper_subclass"),
    *("_rebuild_device_tensor_from_numpy", "_rebuild_device_tensor_from_cpu_tensor", "_rebuild_xla_tensor"),
)
"""Functions of `torch._utils` that make tensors."""

TRAMPOLINES = (
    "torch._tensor._rebuild_from_type_v2",
    "torch._tensor._rebuild_from_type",
    "torch.tensor._rebuild_from_type",
)
"""Functions that are given one of those to call."""

CALLS: Mapping[str, RebuildFunction] = MappingProxyType(
    {
        **_CLASSES,
        "_codecs.encode": _encoded,
        "copy_reg._reconstructor": _instance,
        "copyreg._reconstructor": _instance,
        "torch._utils._get_layout": _plain("a layout"),
        "torch.serialization._get_layout": _plain("a layout"),
        "torch.nn.parameter.Parameter": _parameter,
        **{f"torch._utils.{name}": _tensor for name in TENSORS},
        **dict.fromkeys(TRAMPOLINES, _tensor),
        **{f"{room}.multiarray._reconstruct": new_array for room in _NUMPY},
        **{f"{room}.multiarray.scalar": scalar for room in _NUMPY},
        **{f"{room}.numeric._frombuffer": array_of_bytes for room in _NUMPY},
    }
)
"""Functions and classes that are called."""
