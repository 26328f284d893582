"""Tensors that are not stored as they are: two views that bridge itself knows nothing of, and checkpoints of them.

What each key means is in `values` as plain numpy has it, and a second checkpoint stores just these values: a load of
the one is judged by a load of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import bridge
from bridge.format.table import Form, StoredTensor, Table
from bridge.format.view import Box, View
from bridge.source.bytes import LocalFile
from bridge.source.checkpoint import Checkpoint
from tests.save.files import write

BF16 = np.dtype(ml_dtypes.bfloat16)
Shape = tuple[int, ...]


class Scaled:
    """Codes times scales: one scale for each block of codes, whose last ones may be smaller."""

    def __init__(self, *grain: int) -> None:
        self.grain = grain

    def boxes(self, box: Box) -> Sequence[Box]:
        return box, tuple(range(r.start // n, -(-r.stop // n)) for r, n in zip(box, self.grain, strict=True))

    def values(self, box: Box, parts: Sequence[np.ndarray], out: np.ndarray) -> None:
        codes, scales = parts
        for axis, (r, n) in enumerate(zip(box, self.grain, strict=True)):
            scales = np.take(scales, np.arange(r.start, r.stop) // n - r.start // n, axis)
        np.multiply(codes, scales, out=scales)
        out[...] = scales


class Nibbles:
    """Two numbers of four bits in each byte, along the last axis."""

    def __init__(self, rank: int) -> None:
        self.grain = (1,) * (rank - 1) + (2,)

    def boxes(self, box: Box) -> Sequence[Box]:
        return [(*box[:-1], range(box[-1].start // 2, -(-box[-1].stop // 2)))]

    def values(self, box: Box, parts: Sequence[np.ndarray], out: np.ndarray) -> None:
        both = np.stack([parts[0] & 15, parts[0] >> 4], -1).reshape(*parts[0].shape[:-1], -1)
        out[...] = both[..., box[-1].start % 2 :][..., : len(box[-1])].astype(np.int8) - 8


class Made:
    """A checkpoint in the making: what is stored, and what its keys are."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.stored: dict[str, np.ndarray] = {}
        self.tensors: dict[str, tuple[Form, str, int, tuple[Any, ...]]] = {}
        self.values: dict[str, np.ndarray] = {}

    def plain(self, key: str, shape: Shape, dtype: np.dtype) -> None:
        """A key that is stored as it is."""
        self.values[key] = self.stored[key] = self.rng.standard_normal(shape, np.float32).astype(dtype)
        self.tensors[key] = Form(dtype, shape, self.stored[key].nbytes), key, 0, ()

    def storage(self, name: str, count: int, dtype: np.dtype) -> None:
        """Flat memory for strided keys."""
        self.stored[name] = self.rng.standard_normal(count, np.float32).astype(dtype)

    def strided(self, key: str, name: str, offset: int, shape: Shape, strides: Shape) -> None:
        """A key that lies in a storage, as PyTorch's tensors do."""
        flat = self.stored[name]
        steps = tuple(n * flat.itemsize for n in strides)
        self.values[key] = np.ndarray(shape, flat.dtype, flat.view(np.uint8)[offset * flat.itemsize :], 0, steps).copy()
        span = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if prod(shape) else 0
        form = Form(flat.dtype, shape, span * flat.itemsize, strides)
        self.tensors[key] = form, name, offset * flat.itemsize, ()

    def scaled(self, key: str, shape: Shape, grain: Shape, dtype: np.dtype, *, view: View | None = None) -> None:
        """A key of codes and scales."""
        scales = tuple(-(-n // g) for n, g in zip(shape, grain, strict=True))
        self.stored[f"{key}.codes"] = self.rng.integers(-128, 128, shape, np.int8)
        self.stored[f"{key}.scales"] = self.rng.standard_normal(scales, np.float32)
        codes = self.stored[f"{key}.codes"]
        self._scaled(
            key, shape, grain, dtype, codes, (f"{key}.codes", Form(codes.dtype, shape, codes.nbytes), ()), view
        )

    def packed(self, key: str, shape: Shape, grain: Shape, dtype: np.dtype) -> None:
        """A key whose codes are computed themselves, out of bytes that are stored transposed."""
        scales = tuple(-(-n // g) for n, g in zip(shape, grain, strict=True))
        halves = (*shape[:-1], shape[-1] // 2)
        self.stored[f"{key}.packed"] = self.rng.integers(0, 256, halves[::-1], np.uint8)
        self.stored[f"{key}.scales"] = self.rng.standard_normal(scales, np.float32)
        raw = self.stored[f"{key}.packed"].T
        codes = np.stack([raw & 15, raw >> 4], -1).reshape(shape).astype(np.int8) - 8
        steps = tuple(n // raw.itemsize for n in raw.strides)
        inner = f"{key}.packed", Form(raw.dtype, halves, raw.nbytes, steps), ()
        form = Form(codes.dtype, shape, raw.nbytes, None, Nibbles(len(shape)))
        self._scaled(key, shape, grain, dtype, codes, (f"{key}.packed", form, (inner,)), None)

    def _scaled(
        self, key: str, shape: Shape, grain: Shape, dtype: np.dtype, codes: np.ndarray, first: Any, view: View | None
    ) -> None:
        scales = self.stored[f"{key}.scales"]
        whole = np.empty(shape, dtype)
        view = view or Scaled(*grain)
        view.values(tuple(map(range, shape)), [codes, scales], whole)
        self.values[key] = whole
        second = f"{key}.scales", Form(scales.dtype, scales.shape, scales.nbytes), ()
        form = Form(dtype, shape, first[1].nbytes + scales.nbytes, None, view)
        self.tensors[key] = form, first[0], 0, (first, second)

    def open(self, folder: Path) -> Checkpoint:
        """The checkpoint: what is stored lies in two files, and its keys are found in them."""
        folder.mkdir(exist_ok=True)
        names = list(self.stored)
        paths = [folder / "a.safetensors", folder / "b.safetensors"]
        for path, part in zip(paths, (names[::2], names[1::2]), strict=True):
            write(path, {name: self.stored[name] for name in part})
        ckpt = bridge.open(paths)
        ckpt.specs = self.table(ckpt.specs)
        return ckpt

    def table(self, stored: Table) -> Table:
        """The keys, over the stored tensors."""

        def part(name: str, form: Form, parts: tuple[Any, ...]) -> StoredTensor:
            found = tuple(part(*inner) for inner in parts)
            return StoredTensor(name, form, stored[name].file, stored[name].offset, found)

        forms = {id(form): form for form, _, _, _ in self.tensors.values()}
        kinds = [list(forms).index(id(form)) for form, _, _, _ in self.tensors.values()]
        ranks = [stored.files.index(stored[name].file) for _, name, _, _ in self.tensors.values()]
        offsets = [stored[name].offset + at for _, name, at, _ in self.tensors.values()]
        parts = {n: tuple(part(*p) for p in parts) for n, (_, _, _, parts) in enumerate(self.tensors.values()) if parts}
        columns = np.array(kinds, np.intp), list(forms.values()), stored.files, np.array(ranks, np.intp)
        return Table(list(self.tensors), *columns, np.array(offsets, np.int64), parts)

    def judge(self, path: Path) -> Path:
        """A checkpoint that stores the values themselves."""
        return write(path, self.values)


def layers(kind: str, count: int = 3, shape: Shape = (30, 50)) -> Made:
    """Layers `h.0.w`, `h.1.w`, … of one kind, and some plain keys among them."""
    made = Made()
    rows, columns = shape
    if kind == "transposed":
        made.storage("storage", count * rows * columns, np.dtype("f4"))
    for n in range(count):
        key = f"h.{n}.w"
        made.plain(f"h.{n}.b", (rows,), BF16)
        if kind == "transposed":
            made.strided(key, "storage", n * rows * columns, shape, (1, rows))
        elif kind == "sliced":
            made.storage(f"storage.{n}", 2 * rows * (columns + 7) + 5, BF16)
            made.strided(key, f"storage.{n}", 5, shape, (2 * (columns + 7), 1))
        elif kind == "expanded":
            made.storage(f"storage.{n}", columns, np.dtype("f4"))
            made.strided(key, f"storage.{n}", 0, shape, (0, 1))
        elif kind == "scaled":
            made.scaled(key, shape, (16, 8), np.dtype("f4"))
        elif kind == "scaled bf16":
            made.scaled(key, shape, (7, 50), BF16)
        else:
            made.packed(key, shape, (4, 32), np.dtype("f4"))
    return made


KINDS = ["transposed", "sliced", "expanded", "scaled", "scaled bf16", "packed"]


def stored_nbytes(made: Made, key: str) -> int:
    """How many bytes a key takes where it is stored."""
    return made.tensors[key][0].nbytes


@contextmanager
def counted(patch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The lengths of all reads of local files meanwhile."""
    lengths: list[int] = []
    read = LocalFile.readinto

    def counting(self: LocalFile, buffers: Sequence[memoryview], offset: int) -> None:
        lengths.append(sum(buffer.nbytes for buffer in buffers))
        read(self, buffers, offset)

    with patch.context() as context:
        context.setattr(LocalFile, "readinto", counting)
        yield lengths


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Fail unless both hold the same arrays, bit for bit."""
    assert one.keys() == other.keys()
    for name in one:
        a, b = np.asarray(one[name]), np.asarray(other[name])
        assert (a.dtype, a.shape) == (b.dtype, b.shape), name
        assert a.tobytes() == b.tobytes(), name
