"""From what a pickle says of a tensor to the place of its elements, with every number checked."""

# What patterns find in a pickle's values is of any type.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from bridge._errors import CheckpointError
from bridge._text import human_nbytes, plural, quote
from bridge.torchfile.dtypes import DTYPES, itemsize
from bridge.torchfile.entry import Entry, Refused
from bridge.torchfile.limits import MAX_AXES, MAX_DEPTH, MAX_ELEMENTS, MAX_EXPANDED_NBYTES
from bridge.torchfile.meaning import TENSORS, TRAMPOLINES
from bridge.torchfile.tokens import Global, PickledTensor, Storage

LocateStorage = Callable[[Storage], tuple[int, int]]
"""Where the bytes of a storage lie, as (offset, nbytes). A `CheckpointError` if they do not."""

_CANNOT = {
    "_rebuild_qtensor": ("is quantised by PyTorch", "Save it dequantised: tensor.dequantize()"),
    "_rebuild_sparse_tensor": ("is sparse", "Save it dense: tensor.to_dense()"),
    "_rebuild_sparse_csr_tensor": ("is sparse", "Save it dense: tensor.to_dense()"),
    "_rebuild_nested_tensor": ("is nested", "Save its parts: tensor.unbind()"),
    "_rebuild_meta_tensor_no_storage": ("is a meta tensor, without values", "Save it after it was given values"),
    "_rebuild_wrapper_subclass": ("wraps other tensors", "Save what it wraps as plain tensors"),
    "_rebuild_device_tensor_from_numpy": ("was saved from XLA", "Save it from the CPU: tensor.cpu()"),
    "_rebuild_device_tensor_from_cpu_tensor": ("was saved from XLA", "Save it from the CPU: tensor.cpu()"),
    "_rebuild_xla_tensor": ("was saved from XLA", "Save it from the CPU: tensor.cpu()"),
}
_TYPES = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
_RESAVE = "Save it as a plain tensor, of another dtype"


class EntryReader:
    """Makes the entries of one file."""

    def __init__(self, name: str, file: str, place: LocateStorage, *, swapped: bool) -> None:
        """**Arguments:**

        - `name`: of the file, for messages.
        - `file`: what entries call it.
        - `place`: where storages lie.
        - `swapped`: whether they are big-endian.
        """
        self._name, self._file, self._place, self._swapped = quote(name), file, place, swapped
        self._places: dict[str, tuple[int, int]] = {}

    def entry(self, key: str, tensor: PickledTensor) -> Entry | Refused:
        """Where a tensor lies, or that it is of a kind that cannot be read; an error if it is not sound."""
        found = self._plain(key, tensor)
        if isinstance(found, Refused):
            return found
        match found.how, found.args:
            case "_rebuild_tensor_v3", (Storage() as storage, start, shape, strides, _, _, Global() as dtype, *rest):
                kind = dtype.name if dtype.module == "torch" else dtype.path
                return self._view(key, storage, kind, (start, shape, strides), rest)
            case "_rebuild_tensor" | "_rebuild_tensor_v2", (Storage() as storage, start, shape, strides, *rest):
                if storage.kind is None:
                    self._unsound(key, "has no dtype")
                return self._view(key, storage, storage.kind, (start, shape, strides), rest[2:])
            case _:
                self._unsound(key, "is not made as torch.save makes tensors")

    def _plain(self, key: str, tensor: PickledTensor) -> PickledTensor | Refused:
        """What parameters and tensors with attributes are made of."""
        for _ in range(MAX_DEPTH):
            if tensor.stated:
                return self._refused(key, "was given a state after it was made", "Save it as a plain tensor")
            if tensor.how in _CANNOT:
                return self._refused(key, *_CANNOT[tensor.how])
            match tensor.how, tensor.args:
                case "_rebuild_parameter" | "_rebuild_parameter_with_state", (PickledTensor() as inner, *_):
                    tensor = inner
                case "_rebuild_from_type_v2" | "_rebuild_from_type", (
                    Global() as function,
                    Global() as cls,
                    tuple() as args,
                    _,
                ):
                    if cls.path not in _TYPES:
                        problem = f"is of the class {quote(cls.path)}, whose code bridge does not run"
                        return self._refused(key, problem, "Save it as a plain tensor")
                    module, _, how = function.path.rpartition(".")
                    if not ((module == "torch._utils" and how in TENSORS) or function.path in TRAMPOLINES):
                        self._unsound(key, f"is made by {quote(function.path)}, which bridge does not call")
                    tensor = PickledTensor(how, args)
                case _:
                    return tensor
        self._unsound(key, "is nested without end")

    def _view(
        self, key: str, storage: Storage, kind: str, layout: tuple[Any, Any, Any], meta: list[Any]
    ) -> Entry | Refused:
        if any(meta):
            return self._refused(
                key, "is lazily conjugated or negated", "Save it resolved: tensor.resolve_conj().resolve_neg()"
            )
        dtype = DTYPES.get(kind)
        if dtype is None:
            return self._refused(key, f"has the dtype {quote(f'torch.{kind}')}, which numpy does not have", _RESAVE)
        start, shape, strides = layout
        if not (_are_counts((start,)) and _are_counts(shape) and _are_counts(strides)):
            self._unsound(key, "has an invalid shape, strides or offset")
        if len(shape) != len(strides) or len(shape) > MAX_AXES:
            self._unsound(key, f"has {plural(len(shape), 'axis')} and {plural(len(strides), 'stride')}")
        offset, nbytes = self._located(key, storage)
        start = self._inside(key, storage, dtype, start, shape, strides)
        taken_nbytes = math.prod(shape) * dtype.itemsize
        if taken_nbytes > nbytes + MAX_EXPANDED_NBYTES:
            taken, held = human_nbytes(taken_nbytes), human_nbytes(nbytes)
            return self._refused(key, f"is expanded to {taken} from {held}", "Save it as it is before expand()")
        return Entry(self._file, storage.key, offset, nbytes, dtype, start, shape, strides, self._swapped)

    def _inside(
        self, key: str, storage: Storage, dtype: np.dtype, start: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> int:
        """The first element, counted from the start of the storage; an error if the last one lies beyond it."""
        first, held = storage.window or (0, storage.numel * itemsize(storage.kind) // dtype.itemsize)
        if storage.window is not None and itemsize(storage.kind) != dtype.itemsize:
            self._unsound(key, "is part of a view whose elements are of another length")
        elements = math.prod(shape)
        if elements:
            last = start + sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True))
            if last >= held:
                self._unsound(key, f"reaches to element {last:,} of a storage that holds {held:,}")
            if elements * dtype.itemsize > MAX_ELEMENTS:
                self._unsound(key, "has more elements than 64 bits count")
        return first + min(start, held)  # PyTorch lets an empty tensor begin beyond the end

    def _located(self, key: str, storage: Storage) -> tuple[int, int]:
        place = self._places.get(storage.key)
        if place is None:
            try:
                place = self._places[storage.key] = self._place(storage)
            except CheckpointError as e:
                raise CheckpointError(f"key {quote(key)}", f": {e.statement}", e.advice) from e
        return place

    def _refused(self, key: str, problem: str, advice: str) -> Refused:
        return Refused(f"key {quote(key)} in {self._name}", f"cannot be read: it {problem}", advice)

    def _unsound(self, key: str, problem: str) -> NoReturn:
        raise CheckpointError(
            f"key {quote(key)} in {self._name}", problem, "Fetch the file again: it is damaged, or made by hand"
        )


def _are_counts(numbers: Any) -> bool:
    if type(numbers) is not tuple:
        return False
    for number in numbers:  # noqa: SIM110 - a generator takes twice the time
        if type(number) is not int or not 0 <= number <= MAX_ELEMENTS:
            return False
    return True
