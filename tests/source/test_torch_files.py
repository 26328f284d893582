"""What torch.save has written, opened as any checkpoint: what a file is, its content says."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import bridge
from bridge import _errors
from bridge.source import open_checkpoint
from bridge.source.bytes import LocalFile
from tests.craft import checkpoint
from tests.errors.promised import text_of
from tests.torchfile import craft
from tests.torchfile.craft import DATA, GOOD, archive, dict_of, number, storage, tensor, text
from tests.torchfile.sparse import sparse

VALUES = np.arange(4, dtype=np.float32)


def saved(path: Path, value: bytes | None = None, records: dict[str, bytes] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(archive(dict_of(GOOD) if value is None else value, records))
    return path


def named(path: Path, key: str) -> Path:
    """A file that holds one tensor under this name."""
    return saved(path, dict_of({key: tensor()}))


def keys(*args: Any, **options: Any) -> list[str]:
    with open_checkpoint(*args, **options) as ckpt:
        return list(ckpt)


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(_errors.CheckpointError) as caught:
        open_checkpoint(*args, **options)
    return str(caught.value)


# ---- one file


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.bin", "x.ckpt", "x", "x.safetensors", "x.pth.tar"])
@pytest.mark.parametrize("old", [False, True], ids=["zip", "stream"])
def test_a_file_of_any_name(name: str, old: bool, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(craft.stream(dict_of(craft.IN_STREAM)) if old else archive(dict_of(GOOD)))
    with open_checkpoint(path) as ckpt:
        assert list(ckpt) == ["w"]
        spec = ckpt.specs["w"]
        assert (spec.dtype, spec.shape, spec.nbytes, spec.file) == (np.dtype("f4"), (4,), 16, name)
        assert path.read_bytes()[spec.offset : spec.offset + 16] == DATA
        assert ckpt["w"].tobytes() == DATA
        assert ckpt["w"].ctypes.data % 64 == 0
        assert ckpt.files == (name,)
        assert (ckpt.refused, ckpt.skipped, ckpt.metadata, ckpt.index) == ({}, {}, {}, None)


def test_safetensors_of_any_name(tmp_path: Path):
    (tmp_path / "x.pth").write_bytes(checkpoint({"a": VALUES}))
    assert keys(tmp_path / "x.pth") == ["a"]


def test_a_header_whose_length_looks_like_a_pickle(tmp_path: Path):
    """0x010280 bytes: the file begins as a pickle of protocol 2 does."""
    path = tmp_path / "x.pth"
    body = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", 0x010280) + body.ljust(0x010280) + bytes(4))
    assert path.read_bytes()[:2] == b"\x80\2"
    assert keys(path) == ["a"]


def test_what_lies_beside_the_tensors(tmp_path: Path):
    step, name, nothing = number(7), text("a\x1b[2J"), craft.NONE
    path = saved(tmp_path / "x.pth", dict_of({"step": step, **GOOD, "name": name, "none": nothing}))
    with open_checkpoint(path) as ckpt:
        assert list(ckpt) == ["w"]
        assert ckpt.metadata == {"step": "7", "name": "a\x1b[2J"}
        assert ckpt.skipped == {"step": "a number", "name": "text", "none": "None"}


def test_a_pickle_cannot_say_that_it_is_ours(tmp_path: Path):
    path = saved(tmp_path / "x.pth", dict_of({**GOOD, "eqx-bridge.converted": text("1"), "epoch": number(1)}))
    with open_checkpoint(path) as ckpt:
        assert ckpt.metadata == {"epoch": "1"}


SPARSE = craft.call(craft.name("torch._utils", "_rebuild_sparse_tensor"), craft.NONE)


def test_a_tensor_that_cannot_be_read_is_refused_when_it_is_used(tmp_path: Path):
    path = saved(tmp_path / "x.pth", dict_of({"s": SPARSE, **GOOD}))
    with open_checkpoint(path) as ckpt:
        assert sorted(ckpt) == ["s", "w"]
        assert ckpt["w"].tobytes() == DATA
        problem = text_of("tensor: one that cannot be read").replace("'x.pth'", f"'{path}'")
        assert ckpt.refused == {"s": problem}
        assert ckpt.specs["s"].dtype == np.dtype("V")
        with pytest.raises(_errors.CheckpointError) as caught:
            ckpt["s"]
        assert str(caught.value) == problem


def test_closed(tmp_path: Path):
    with open_checkpoint(saved(tmp_path / "x.pth")) as ckpt:
        pass
    with pytest.raises(_errors.CheckpointError, match="is closed"):
        ckpt["w"]


# ---- which dict

ROOTS = {"model": dict_of(GOOD), "ema": dict_of({"v": tensor(), "w": tensor()}), "epoch": number(3)}


def test_several_dicts(tmp_path: Path):
    path = saved(tmp_path / "x.pth", dict_of(ROOTS))
    assert refusal(path) == (
        text_of("torch file, root: several dicts").replace("'x.pth'", f"'{path}'").replace("'model_ema'", "'ema'")
    )
    assert keys(path, root="ema") == ["v", "w"]
    assert keys(path, root="") == ["model.w", "ema.v", "ema.w"]
    assert refusal(path, root="mdoel") == (
        f"'{path}' has no tensors under root='mdoel'. Choose another root: root='model' (1 tensor), root='ema' (2 tensors)."
    )


def test_a_root_of_safetensors(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(checkpoint({"a": VALUES}))
    assert refusal(path, root="model") == (
        text_of("source: a root of safetensors")
        .replace("'x.safetensors'", f"'{path}'")
        .replace("'model_ema'", "'model'")
    )
    assert keys(path, modules=True) == ["a"]


def module(**tensors: bytes) -> bytes:
    state = {"_parameters": dict_of(tensors), "_buffers": craft.EMPTY_DICT, "_modules": craft.EMPTY_DICT}
    return craft.instance("pkg", "Net", dict_of(state))


def test_whole_modules(tmp_path: Path):
    path = saved(tmp_path / "x.pth", module(weight=tensor()))
    assert "Open it with modules=True" in refusal(path)
    assert keys(path, modules=True) == ["weight"]


# ---- folders and lists


def test_pytorch_model_then_the_only_one(tmp_path: Path):
    named(tmp_path / "other.ckpt", "other")
    assert keys(tmp_path) == ["other"]
    named(tmp_path / "pytorch_model.bin", "model")
    assert keys(tmp_path) == ["model"]


def test_safetensors_are_preferred(tmp_path: Path):
    named(tmp_path / "pytorch_model.bin", "torch")
    (tmp_path / "pytorch_model.bin.index.json").write_text("{")
    (tmp_path / "any.safetensors").write_bytes(checkpoint({"safe": VALUES}))
    assert keys(tmp_path) == ["safe"]


def test_what_a_trainer_leaves_is_left_alone(tmp_path: Path):
    named(tmp_path / "weights.pt", "weights")
    for name in (
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "training_args.bin",
        "scaler.pt",
        "adapter_model.bin",
    ):
        named(tmp_path / name, name)
    (tmp_path / "adapter_model.safetensors").write_bytes(checkpoint({"a": VALUES}))
    named(tmp_path / "consolidated.00.pth", "c")
    assert keys(tmp_path) == ["weights"]


def test_several_candidates_are_listed(tmp_path: Path):
    for name in ("last.ckpt", "best.ckpt"):
        named(tmp_path / name, "a")
    assert refusal(tmp_path) == (
        text_of("folder: several files of PyTorch's")
        .replace("'./'", f"'{tmp_path}/'")
        .replace("a.pt", "best.ckpt")
        .replace("b.pt", "last.ckpt")
    )


def test_variants(tmp_path: Path):
    named(tmp_path / "diffusion_pytorch_model.bin", "plain")
    named(tmp_path / "diffusion_pytorch_model.fp16.bin", "fp16")
    assert keys(tmp_path) == ["plain"]
    assert keys(tmp_path, variant="fp16") == ["fp16"]
    assert refusal(tmp_path, variant="int8") == (
        f"'{tmp_path}/' holds no file of variant 'int8', only 'diffusion_pytorch_model.bin', "
        "'diffusion_pytorch_model.fp16.bin'. Leave `variant` out, or name one that is there."
    )


INDEX = {"weight_map": {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}}


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_an_index(variant: str | None, tmp_path: Path):
    named(tmp_path / "pytorch_model-00001-of-00002.bin", "a")
    saved(tmp_path / "pytorch_model-00002-of-00002.bin", dict_of({"b": tensor(None, (2,), (2,), 1), "stale": SPARSE}))
    middle = f".{variant}" if variant else ""
    (tmp_path / f"pytorch_model.bin.index{middle}.json").write_text(json.dumps(INDEX))
    with open_checkpoint(tmp_path, variant=variant) as ckpt:
        assert list(ckpt) == ["a", "b"]
        assert ckpt.refused == {}
        assert ckpt["a"].tobytes() == DATA
        assert ckpt["b"].tolist() == [1, 3]
        assert ckpt.index is not None


def test_a_list_of_files_of_both_kinds(tmp_path: Path):
    (tmp_path / "a.safetensors").write_bytes(checkpoint({"a": VALUES}))
    x = saved(tmp_path / "x.pth", dict_of({"s": SPARSE, "w": tensor(None, (2,), (2,))}))
    with open_checkpoint([tmp_path / "a.safetensors", x]) as ckpt:
        assert sorted(ckpt) == ["a", "s", "w"]
        assert ckpt["w"].tolist() == [0, 2]
        assert list(ckpt.refused) == ["s"]
    assert keys([x, tmp_path / "a.safetensors"], root="") == ["w", "s", "a"]
    assert "key 'w' is in 'x.pth' and in 'y.pth'" in refusal([x, saved(tmp_path / "y.pth")])


# ---- how much is read


def test_planning_a_file_of_4_gb_reads_its_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A hundred storages, sparse on the disk."""
    numel, count = 10_000_000, 101
    each = {f"w{n}": tensor(storage(key=str(n), numel=numel), (numel,)) for n in range(count)}
    path = tmp_path / "x.pth"
    sparse(path, dict_of(each), [4 * numel] * count)
    assert path.stat().st_size > 4e9
    reads: list[int] = []
    read = LocalFile.readinto

    def counting(self: LocalFile, buffers: Any, offset: int) -> None:
        reads.append(sum(buffer.nbytes for buffer in buffers))
        read(self, buffers, offset)

    monkeypatch.setattr(LocalFile, "readinto", counting)
    plan = bridge.plan(path, None)
    assert plan.ok
    assert plan.nbytes == 4 * numel * count
    assert sum(reads) < 150_000  # the end of the file, the pickle, and the header of each record
    assert len(reads) < count + 10


# ---- from afar


@pytest.fixture
def store():
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/repo/pytorch_model.bin", archive(dict_of(GOOD)))
    fs.pipe_file("/repo/old/x.pth", craft.stream(dict_of(craft.IN_STREAM)))
    yield fs
    fs.rm("/repo", recursive=True)


@pytest.mark.parametrize("url", ["memory://repo", "memory://repo/pytorch_model.bin", "memory://repo/old/x.pth"])
def test_a_url(url: str, store: Any):
    with open_checkpoint(url) as ckpt:
        assert ckpt["w"].tobytes() == DATA
