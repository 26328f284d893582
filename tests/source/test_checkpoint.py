"""`Checkpoint`: a dictionary of tensors."""

from __future__ import annotations

import gc
import os
import re
import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bridge import _errors
from bridge._dtypes import DTYPES
from bridge.source import Checkpoint, open_checkpoint
from tests.craft import checkpoint, craft, entry
from tests.errors.promised import text_of

TENSORS = {
    "layers.0.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "layers.1.weight": np.arange(12, 24, dtype=np.float64).reshape(4, 3),
    "scalar": np.array(7, np.int64),
    "none": np.zeros((0, 3), np.float16),
    "mask": np.array([True, False, True]),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "x.safetensors", {"format": "np"})
    return tmp_path / "x.safetensors"


def test_a_dictionary(path: Path):
    with open_checkpoint(path) as ckpt:
        assert len(ckpt) == 5
        assert set(ckpt) == set(ckpt.keys()) == set(ckpt.specs) == set(TENSORS)
        assert "scalar" in ckpt
        assert "layers" not in ckpt
        assert 3 not in ckpt
        assert ckpt.metadata == {"format": "np"}
        assert ckpt.files == ("x.safetensors",)
        assert ckpt.commit is None
        assert ckpt.index is None
        assert repr(ckpt) == f"<Checkpoint '{path}': 5 keys in 1 file>"
        for key, tensor in TENSORS.items():
            spec = ckpt.specs[key]
            assert (spec.dtype, spec.shape, spec.nbytes) == (tensor.dtype, tensor.shape, tensor.nbytes)
            assert spec.file == "x.safetensors"


def test_tensors_are_the_reference_s(path: Path):
    theirs = load_file(path)
    with open_checkpoint(path) as ckpt:
        for key in ckpt:
            assert ckpt[key].dtype == theirs[key].dtype
            assert ckpt[key].shape == theirs[key].shape
            assert ckpt[key].tobytes() == theirs[key].tobytes()


def test_memory_is_the_tensor_s_own(path: Path):
    with open_checkpoint(path) as ckpt:
        for key in ckpt:
            first, second = ckpt[key], ckpt[key]
            assert first.flags.writeable
            assert first.flags.c_contiguous
            assert first.nbytes == 0 or first.ctypes.data % 64 == 0  # numpy makes addresses up for empty arrays
            assert not np.shares_memory(first, second)
        first[...] = False
        assert ckpt["mask"].any()
    assert first.tobytes() == bytes(first.nbytes)  # readable after the checkpoint is closed


def test_an_unknown_key(path: Path):
    with open_checkpoint(path) as ckpt, pytest.raises(_errors.UnknownKeyError) as caught:
        ckpt["layer.0.weight"]
    assert isinstance(caught.value, KeyError)
    assert str(caught.value) == (
        f"key 'layer.0.weight' is not in '{path}' (5 keys). Did you mean 'layers.0.weight' or 'layers.1.weight'?"
    )
    with open_checkpoint(path) as ckpt, pytest.raises(_errors.UnknownKeyError) as caught:
        ckpt["\x1b[2J"]
    assert str(caught.value) == f"key '\\x1b[2J' is not in '{path}' (5 keys). Take one that `keys()` lists."


def test_closed(path: Path):
    ckpt = open_checkpoint(path)
    with ckpt:
        pass
    ckpt.close()
    message = "^" + re.escape(text_of("read: the checkpoint is closed").replace("'x.safetensors'", f"'{path}'")) + "$"
    with pytest.raises(_errors.CheckpointError, match=message):
        ckpt["scalar"]
    with pytest.raises(_errors.CheckpointError, match=message):
        ckpt.byte_source("x.safetensors")
    assert ckpt.specs["scalar"].shape == ()  # what was read stays


def test_bytes_by_spec(path: Path):
    with open_checkpoint(path) as ckpt:
        spec = ckpt.specs["layers.1.weight"]
        got = bytearray(spec.nbytes)
        ckpt.byte_source(spec.file).readinto([memoryview(got)], spec.offset)
        assert bytes(got) == TENSORS["layers.1.weight"].tobytes()


def test_a_file_that_fails_leaves_nothing_open(tmp_path: Path):
    (tmp_path / "a.safetensors").write_bytes(checkpoint({"a": np.zeros(1, np.float32)}))
    (tmp_path / "b.safetensors").write_bytes(b"bad")
    gc.collect()  # what other tests left
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(_errors.CheckpointError, match=r"b\.safetensors' holds 3 bytes") as caught:
        open_checkpoint([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    del caught
    assert len(os.listdir("/proc/self/fd")) == before


def test_hundreds_of_files_need_few_descriptors(tmp_path: Path):
    paths = [tmp_path / f"{i:03}.safetensors" for i in range(300)]
    for i, path in enumerate(paths):
        path.write_bytes(checkpoint({f"key.{i}": np.full(3, i, np.int32)}))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 64, hard))
    try:
        with open_checkpoint(paths) as ckpt:
            assert [int(ckpt[key][0]) for key in ckpt] == list(range(300))
            assert len(os.listdir("/proc/self/fd")) < used + 64
            os.utime(paths[299], ns=(0, 0))
            with pytest.raises(_errors.CheckpointError, match="has changed since it was opened"):
                ckpt["key.299"]
            os.replace(paths[0], paths[298])
            with pytest.raises(_errors.CheckpointError, match="has changed since it was opened"):
                ckpt["key.298"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_opens_leave_nothing_behind(path: Path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(1000):
        with open_checkpoint(path) as ckpt:
            ckpt["scalar"]
    assert len(os.listdir("/proc/self/fd")) == before


def one(folder: Path, dtype: str, shape: list[int], data: bytes) -> Checkpoint:
    (folder / "x.safetensors").write_bytes(craft({"a": entry(dtype, shape, 0, len(data))}, data))
    return open_checkpoint(folder / "x.safetensors")


def test_f4_is_unpacked_the_low_half_first(tmp_path: Path):
    codes = [7, 0, 1, 15, 8, 2, 9, 10]
    packed = bytes(low | high << 4 for low, high in zip(codes[::2], codes[1::2], strict=True))
    with one(tmp_path, "F4", [4, 2], packed) as ckpt:
        assert ckpt.specs["a"].nbytes == 4
        array = ckpt["a"]
    assert array.dtype == DTYPES["F4"].numpy
    assert array.view(np.uint8).ravel().tolist() == codes
    assert array.astype(np.float32).ravel().tolist() == [6.0, 0.0, 0.5, -6.0, -0.0, 1.0, -0.5, -1.0]
    assert array.ctypes.data % 64 == 0


@pytest.mark.torch
def test_f4_is_unpacked_as_pytorch_unpacks_it(tmp_path: Path):
    import safetensors.torch
    import torch
    from torch.onnx._internal.exporter._type_casting import unpack_float4x2_as_uint8

    packed = torch.arange(256, dtype=torch.uint8).reshape(4, 64)
    safetensors.torch.save_file({"a": packed.view(torch.float4_e2m1fn_x2)}, tmp_path / "x.safetensors")
    with open_checkpoint(tmp_path / "x.safetensors") as ckpt:
        array = ckpt["a"]
    assert array.shape == (4, 128)
    assert array.view(np.uint8).tolist() == unpack_float4x2_as_uint8(packed.view(torch.float4_e2m1fn_x2)).tolist()


@pytest.mark.parametrize("dtype", ["F6_E2M3", "F6_E3M2"])
def test_f6_has_a_spec_and_no_array(dtype: str, tmp_path: Path):
    with one(tmp_path, dtype, [2, 4], bytes(6)) as ckpt:
        assert (ckpt.specs["a"].shape, ckpt.specs["a"].nbytes) == ((2, 4), 6)
        with pytest.raises(_errors.CheckpointError) as caught:
            ckpt["a"]
    assert str(caught.value) == (
        text_of("read: values in three quarters of a byte")
        .replace("'x.safetensors'", f"'{tmp_path}/x.safetensors'")
        .replace("F6_E2M3", f"{dtype}")
    )


@pytest.mark.parametrize("shape", [[1] * 65, [0, 2**63], [0, 2**64 - 1], [0, 2**40, 2**40]])
def test_a_shape_that_numpy_cannot_hold(shape: list[int], tmp_path: Path):
    with one(tmp_path, "I8", shape, b"" if 0 in shape else b"x") as ckpt:
        assert ckpt.specs["a"].shape == tuple(shape)
        with pytest.raises(_errors.CheckpointError, match="axes and a shape that numpy cannot hold"):
            ckpt["a"]


def test_a_tensor_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> np.ndarray:
        raise MemoryError

    with one(tmp_path, "F32", [1000], bytes(4000)) as ckpt:
        monkeypatch.setattr(np, "empty", refuse)
        with pytest.raises(_errors.CheckpointError) as caught:
            ckpt["a"]
    assert str(caught.value) == (
        f"key 'a' in '{tmp_path}/x.safetensors' takes 4.0 kB, more memory than there is. "
        "Free some, or load less at once."
    )


def test_suggestions_are_quick_for_many_keys():
    from bridge.source.suggest import closest

    names = [f"model.layers.{i // 10}.self_attn.sub{i % 10}.weight" for i in range(100_000)]
    assert closest("model.layers.77.self_atn.sub3.weight", names)[0] == "model.layers.77.self_attn.sub3.weight"
    assert closest("x" * 1_000_000, names) == []
    assert closest("", names) == []


def test_files_are_closed_when_forgotten():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(checkpoint({"a": np.zeros(1, np.float32)}))
        before = len(os.listdir("/proc/self/fd"))
        ckpt = open_checkpoint(path)
        assert len(os.listdir("/proc/self/fd")) == before + 1
        del ckpt
        assert len(os.listdir("/proc/self/fd")) == before
