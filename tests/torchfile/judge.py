"""Two readers, one file of torch.save's: do they agree?"""

from __future__ import annotations

import time
import warnings
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import bridge
from bridge.source import LocalFile
from bridge.torchfile import read_torch_file
from tests.torchfile.reading import bits, torch_bits

SLOW = 2.0  # seconds of this process
LARGE = 1 << 24


class Verdict(NamedTuple):
    """`kind`: what the readers made of a file; `problem`: where they may not differ so."""

    kind: str
    problem: str | None = None


def verdict(path: Path) -> Verdict:
    """Compare with torch.load(weights_only=True). Errors of other kinds than our own come through.

    Where both read the file, every tensor must have the same bits. Where one refuses, the file is only counted:
    PyTorch compares fewer headers, and reads fewer classes, than we do.
    """
    start = time.process_time()
    ours = _ours(path)
    if time.process_time() - start > SLOW:
        return Verdict("slow", f"took more than {SLOW} s")
    theirs = _theirs(path)
    if theirs is None:
        return Verdict("both refuse" if ours is None else "only we read")
    if ours is None:
        return Verdict("only torch reads")
    root, arrays = ours
    tensors = _under(theirs, root)
    for key, array in arrays.items():
        tensor = tensors.get(key)
        if not isinstance(tensor, torch.Tensor):
            return Verdict("differ", f"torch has no tensor {key!r} under {root!r}")
        if array.shape != tuple(tensor.shape) or bits(array) != torch_bits(tensor):
            return Verdict("differ", f"{key!r} has other values")
    return Verdict("equal")


def value(ckpt: bridge.Checkpoint, key: str) -> np.ndarray:
    """One tensor, as users get it."""
    return ckpt[key]


def _ours(path: Path) -> tuple[str, dict[str, np.ndarray]] | None:
    try:
        roots = _roots(path)
        with bridge.open(path, modules=True, root=None if len(roots) == 1 else roots[0]) as ckpt:
            specs = ckpt.specs.items()
            readable = {key: prod(spec.shape) * spec.dtype.itemsize for key, spec in specs if key not in ckpt.refused}
            # What is promised can be read. Four bytes may be expanded to a gigabyte, which takes its time.
            return roots[0], {key: value(ckpt, key) for key, nbytes in readable.items() if nbytes < LARGE}
    except bridge.CheckpointError as e:
        if not str(e).isprintable():
            raise ValueError("a message that cannot be printed") from e
        return None


def _roots(path: Path) -> list[str]:
    """The dicts that may be meant."""
    source = LocalFile(path, path.name)
    try:
        return list(read_torch_file(source, modules=True).roots)
    finally:
        source.close()


def _theirs(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 - it raises whatever comes
        return None


def _under(saved: Any, root: str) -> dict[str, Any]:
    """What torch.load has by our path, names flattened."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, at: Any, depth: int) -> None:
        if isinstance(at, dict) and depth < 60:
            for key, inner in at.items():
                if isinstance(key, str):
                    walk(f"{prefix}.{key}" if prefix else key, inner, depth + 1)
        elif isinstance(at, torch.Tensor):
            flat[prefix] = at

    walk("", saved, 0)
    cut = f"{root}." if root else ""
    return {key.removeprefix(cut): tensor for key, tensor in flat.items() if key.startswith(cut)}
