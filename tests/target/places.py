"""Folders with a checkpoint of every build, and what a reader finds there while another one takes its place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import bridge
from tests.save.files import INDEX, Bits, bits, write

OLD = {key: np.full((4, 4), n, np.float32) for n, key in enumerate("abc")}
NEW = {key: np.full((3, 5), 10 + n, np.float32) for n, key in enumerate("bcde")}
ONE, MANY = "5GB", 1  # max_shard_size


def nothing(folder: Path) -> None:
    folder.mkdir()


def one_file(folder: Path) -> None:
    write(folder / "model.safetensors", OLD)


def other_name(folder: Path) -> None:
    write(folder / "resnet.safetensors", OLD)


def many_files(folder: Path, index: str = INDEX, name: str = "model-{}-of-00003.safetensors") -> None:
    weight_map = {key: name.format(f"{n + 1:05}") for n, key in enumerate(OLD)}
    for key, file in weight_map.items():
        write(folder / file, {key: OLD[key]})
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def foreign_index(folder: Path) -> None:
    many_files(folder, "diffusion_pytorch_model.safetensors.index.json")


def below(folder: Path) -> None:
    many_files(folder, name="part/{}.safetensors")


def index_of_one(folder: Path) -> None:
    write(folder / "model.safetensors", OLD)
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(OLD, "model.safetensors")}))


def index_beside_one(folder: Path) -> None:
    many_files(folder)
    write(folder / "model.safetensors", {"stale": OLD["a"]})


def ambiguous(folder: Path) -> None:
    write(folder / "x.safetensors", OLD)
    write(folder / "y.safetensors", OLD)


STANDING: dict[str, Callable[[Path], None]] = {
    f.__name__: f for f in (one_file, other_name, many_files, foreign_index, below, index_of_one, index_beside_one)
}
ABSENT: dict[str, Callable[[Path], None]] = {f.__name__: f for f in (nothing, ambiguous)}


def save(tensors: dict[str, np.ndarray], folder: Path, limit: int | str) -> bridge.SaveReport:
    return bridge.save(tensors, folder, "** -> **", max_shard_size=limit, overwrite=True)


def held(source: Path) -> dict[str, Bits] | None:
    """What `bridge.open` finds there, whole; `None` where there is no checkpoint."""
    try:
        with bridge.open(source) as ckpt:
            return {key: bits(ckpt[key]) for key in ckpt}
    except bridge.CheckpointError:
        return None


def expected(tensors: dict[str, np.ndarray]) -> dict[str, Bits]:
    return {key: bits(array) for key, array in tensors.items()}


def names(folder: Path) -> set[str]:
    """All files and folders below `folder`."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, folder: Path, into: Path) -> Iterator[list[Path]]:
    """Snapshots of `folder` after every change of a name in it: what a writer killed right there would leave.

    Files are linked, not copied: they keep their inodes.
    """
    snapshots: list[Path] = []

    def snapshot() -> None:
        copy = into / str(len(snapshots))
        copy.mkdir(parents=True)
        for path in sorted(folder.rglob("*")):
            there = copy / path.relative_to(folder)
            there.mkdir() if path.is_dir() else link(path, there)
        snapshots.append(copy)

    def watching(call: Callable) -> Callable:
        def wrapper(*args: object, **kwargs: object) -> object:
            result = call(*args, **kwargs)
            snapshot()
            return result

        return wrapper

    link = os.link
    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "link", "unlink"):
            patch.setattr(os, name, watching(getattr(os, name)))
        yield snapshots
