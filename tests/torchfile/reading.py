"""Values by entries, with numpy alone, and their comparison with PyTorch's bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bridge.source import LocalFile
from bridge.torchfile import Entry, Inline, RootTensors, TorchFile, read_torch_file


def opened(path: Path, *, modules: bool = False) -> TorchFile:
    source = LocalFile(path, path.name)
    try:
        return read_torch_file(source, modules=modules)
    finally:
        source.close()


def tensors(path: Path, root: str | None = None, *, modules: bool = False) -> RootTensors:
    source = LocalFile(path, path.name)
    try:
        return read_torch_file(source, modules=modules).entries(root)
    finally:
        source.close()


def values(path: Path, root: str | None = None, *, modules: bool = False) -> dict[str, np.ndarray]:
    """All values of a root; nothing may be refused."""
    found = tensors(path, root, modules=modules)
    assert not found.refused
    return {key: value(path, entry) for key, entry in found.entries.items()}


def value(path: Path, entry: Entry | Inline) -> np.ndarray:
    if isinstance(entry, Inline):
        return entry.values
    raw = np.fromfile(path, np.uint8, entry.nbytes, offset=entry.offset)
    assert raw.nbytes == entry.nbytes
    width = entry.dtype.itemsize
    if entry.swapped:
        part = width // 2 if entry.dtype.kind == "c" else width
        raw = raw[: raw.nbytes // part * part].reshape(-1, part)[:, ::-1].reshape(-1).copy()
    steps = tuple(stride * width for stride in entry.strides)
    return np.ndarray(entry.shape, entry.dtype, raw, entry.start * width, steps)  # as_strided knows no float8


def bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def torch_bits(tensor: torch.Tensor) -> bytes:
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.detach().reshape(-1))
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def assert_same(found: dict[str, np.ndarray], saved: dict[str, torch.Tensor]) -> None:
    """The same names in the same order, shapes and bits."""
    assert list(found) == list(saved)
    for key, tensor in saved.items():
        assert found[key].shape == tuple(tensor.shape), key
        assert found[key].dtype.name == str(tensor.dtype).removeprefix("torch."), key
        assert bits(found[key]) == torch_bits(tensor), key
