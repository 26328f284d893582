"""Real processes under `jax.distributed`, on 127.0.0.1: each reads its own bytes, and writes its own."""

from __future__ import annotations

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge
from tests.place.process import PART, RULES, part_of
from tests.place.processes import processes

L, E, D = 2, 8, 512


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints, and what a model has of each; saved by one process alone too."""
    folder = tmp_path_factory.mktemp("checkpoints")
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    t = {f"l.{n}.rows": draw(512, D) for n in range(L)}
    t |= {f"l.{n}.e.{e}": draw(64, D) for n in range(L) for e in range(E)}
    t |= {f"l.{n}.heads": draw(8 * 32, D) for n in range(L)}
    t |= {"qkv": draw(512, D), "whole": draw(1000)}
    leaves = {
        "rows": np.stack([t[f"l.{n}.rows"] for n in range(L)]),
        "experts": np.stack([np.stack([t[f"l.{n}.e.{e}"].T for n in range(L)]) for e in range(E)]),
        "heads": np.stack([t[f"l.{n}.heads"].reshape(8, 32, D) for n in range(L)]),
        **{
            name: t["qkv"][rows] for name, rows in {"split": np.s_[:256], "k": np.s_[256:384], "v": np.s_[384:]}.items()
        },
        "whole": t["whole"],
    }
    written(folder, "exact", t, leaves)
    for name, shape in {"wide": (16, 1 << 16), "narrow": (512, 512)}.items():
        t = {name: draw(*shape)}
        written(folder, name, t, t)
    t = {
        "a": draw(64, D),
        "b": draw(64, D),
        "gu": draw(2 * 96, 64),
        "p": draw(40, D),
        "q": draw(24, D),
        "norm": draw(D),
    }
    t["half"] = draw(64, D).astype(ml_dtypes.bfloat16)
    leaves = {
        "summed": t["a"] + t["b"],
        "gate": t["gu"][::2].T,
        "up": t["gu"][1::2].T,
        "joined": np.concatenate([t["p"], t["q"]]),
        "half": t["half"].astype(np.float32),
        "norm": t["norm"] + np.float32(1),
    }
    written(folder, "kinds", t, leaves)
    some = {name: leaves[name] for name in ("half", "joined", "norm")} | {"extra": np.arange(64, dtype=np.float32)}
    bridge.save(some, folder / "saved-1" / "elsewhere", ["** -> **"])
    path = folder / "exact.safetensors"
    bridge.save({"part": part_of(path)}, folder / "saved-1" / "based.safetensors", PART, base=path)
    return folder


def written(folder: Path, name: str, tensors: dict[str, np.ndarray], leaves: dict[str, np.ndarray]) -> None:
    save_file(tensors, folder / f"{name}.safetensors")
    np.savez(folder / f"{name}.npz", **leaves)
    if name in ("exact", "kinds"):
        alone = folder / "saved-1"
        plan = bridge.plan(folder / f"{name}.safetensors", leaves, RULES[name])
        model = bridge.load(folder / f"{name}.safetensors", leaves, plan)
        bridge.save(model, alone / name, plan, max_shard_size="300KB", metadata={"a": "b"})
        bridge.save(model, alone / f"{name}.safetensors", plan)
        own = model | {"own": np.arange(5.0, dtype=np.float32)}
        bridge.save(own, alone / f"{name}-rules", ["** -> **"], dtype="bf16", max_shard_size="300KB")
        bridge.save(own, alone / f"{name}-rules", ["** -> **"], max_shard_size="1MB", overwrite=True)


@pytest.mark.parametrize("count", [2, 4])
def test_each_process_reads_and_writes_its_own_bytes(folder: Path, count: int):
    file = {name: (folder / f"{name}.safetensors").stat().st_size for name in RULES}
    with processes("tests.place.process", count, folder) as started:
        for name in RULES:
            for process in started:
                process.wait()
            before = [process.read_nbytes() for process in started]
            for process in started:
                process.go()
            for process in started:
                process.wait()
            read = [process.read_nbytes() - b for process, b in zip(started, before, strict=True)]
            for process, nbytes in zip(started, read, strict=True):
                assert not process.maps(folder / f"{name}.safetensors")
                process.go()
                said = process.started.stdout.readline()
                needed, planned = map(int, re.fullmatch(r"needed (\d+) planned (\d+)\n", said).groups())
                # Beside the weights: 64 KiB to see the header, what the kernel says of memory, samples to compare.
                beside = 96 << 10
                if name in ("exact", "wide"):
                    assert planned == needed
                    assert needed <= nbytes <= 1.05 * needed + beside, (name, nbytes, needed)
                else:
                    assert planned <= nbytes <= file[name] + beside, (name, nbytes, planned)
        for process in started:
            status, _, err = process.end()
            assert status == 0, err
    alone, together = folder / "saved-1", folder / f"saved-{count}"
    assert files(alone) == files(together)
    assert len(list(alone.glob("exact/*.safetensors"))) > 5


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
