"""Files of torch.save as tables of tensors: from here on they are like those of any other file."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from bridge.format.header import Header
from bridge.format.table import Form, StoredTensor, Table
from bridge.source.bytes import ByteSource
from bridge.torchfile import Entry, Inline, RootTensors, read_torch_file
from bridge.torchfile.view import ArrayView, ByteSwappedView

_OURS = "eqx-bridge."  # what we write into metadata ourselves: a pickle has no say in it
_VOID = Form(np.dtype("V"), (), 0)
_BYTE = Form(np.dtype(np.uint8), (), 1)
Shape = tuple[int, ...]


def read_torch_header(source: ByteSource, *, file: str, root: str | None, modules: bool) -> Header:
    """What a file of torch.save holds, by its pickle; no values are read.

    **Arguments:**

    - `source`: the file; `file`: what specs call it.
    - `root`: the path of the dict that is meant, None for the only one.
    - `modules`: read whole modules too, by their attributes.

    **Returns:** a `Header`. Tensors that cannot be read are in its table's `refused`. `CheckpointError` for a file that
    is damaged or unsafe, and where it is not clear which dict is meant.
    """
    found = read_torch_file(source, file, modules=modules, distant=source.parallel is not None)
    tensors = found.entries(root)
    metadata = {name: text for name, text in found.metadata.items() if not name.startswith(_OURS)}
    return Header(metadata, table_of(tensors, file), 0, tensors.skipped)


def table_of(tensors: RootTensors, file: str) -> Table:
    """The tensors as columns."""
    rows = _ColumnsBuilder(file)
    for key, entry in tensors.entries.items():
        if isinstance(entry, Entry):
            rows.add(key, entry)
        else:
            rows.hold(key, entry)
    for key in tensors.refused:
        rows.put(key, rows.kind(_VOID), 0)
    return rows.table(tensors.refused)


class _ColumnsBuilder:
    """Columns in the making."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.names, self.kinds, self.offsets = list[str](), list[int](), list[int]()
        self.forms: dict[Form, int] = {}
        self.parts: dict[int, tuple[StoredTensor, ...]] = {}
        self.swapping: dict[int, ByteSwappedView] = {}
        self.known: dict[tuple[int, Shape, Shape], tuple[int, Form]] = {}

    def add(self, key: str, entry: Entry) -> None:
        """A tensor that lies in a storage. Those of one dtype, shape and strides share a form."""
        alike = id(entry.dtype), entry.shape, entry.strides  # the dtypes are those of one table
        found = self.known.get(alike)
        if found is None:
            stored = _stored(entry)
            own = self._swapped(stored) if entry.swapped and entry.dtype.itemsize > 1 else stored
            found = self.known[alike] = self.kind(own), stored
        kind, stored = found
        offset = entry.offset + entry.start * entry.dtype.itemsize
        if entry.swapped and entry.dtype.itemsize > 1:
            self.parts[len(self.names)] = (StoredTensor(key, stored, self.file, offset),)
        self.put(key, kind, offset)

    def hold(self, key: str, inline: Inline) -> None:
        """An array that the pickle itself holds."""
        values = np.ascontiguousarray(inline.values, inline.values.dtype.newbyteorder("<")).reshape(inline.values.shape)
        form = Form(np.dtype(values.dtype), values.shape, values.nbytes, None, ArrayView(values))
        self.parts[len(self.names)] = (StoredTensor(key, _BYTE, self.file, 0),)
        self.put(key, self.kind(form), 0)

    def put(self, key: str, kind: int, offset: int) -> None:
        """One more row."""
        self.names.append(key)
        self.kinds.append(kind)
        self.offsets.append(offset)

    def kind(self, form: Form) -> int:
        """The number of a form."""
        return self.forms.setdefault(form, len(self.forms))

    def table(self, refused: Mapping[str, tuple[str, str, str]]) -> Table:
        """All rows."""
        kinds, ranks = np.array(self.kinds, np.intp), np.zeros(len(self.names), np.intp)
        offsets = np.array(self.offsets, np.int64)
        return Table(self.names, kinds, list(self.forms), [self.file], ranks, offsets, self.parts, refused)

    def _swapped(self, stored: Form) -> Form:
        view = self.swapping.setdefault(len(stored.shape), ByteSwappedView(len(stored.shape)))
        return Form(stored.dtype, stored.shape, stored.nbytes, None, view)


def _stored(entry: Entry) -> Form:
    """How a tensor lies in its storage: in C's order, as most do, or by strides."""
    shape, size = entry.shape, entry.dtype.itemsize
    if 0 in shape:
        return Form(entry.dtype, shape, 0)
    count = 1
    for extent, stride in zip(reversed(shape), reversed(entry.strides), strict=True):
        if extent != 1 and stride != count:
            reach = sum((extent - 1) * stride for extent, stride in zip(shape, entry.strides, strict=True))
            return Form(entry.dtype, shape, (reach + 1) * size, entry.strides)
        count *= extent
    return Form(entry.dtype, shape, prod(shape) * size)
