"""The table of dtypes against the reference's own list, and every dtype bit for bit."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import safetensors

from bridge import _errors
from bridge._dtypes import DTYPES, dtype_name
from bridge.source import open_checkpoint
from tests.craft import craft, entry, reference


def test_the_reference_knows_the_same(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(craft({"a": entry("F7", [], 0, 1)}, b"x"))
    with pytest.raises(safetensors.SafetensorError) as caught:
        safetensors.safe_open(path, "np")
    listed = str(caught.value).split("expected one of")[1]
    assert re.findall(r"`(\w+)`", listed) == list(DTYPES)


@pytest.mark.parametrize("name", DTYPES)
def test_bits_are_the_reference_s(name: str, tmp_path: Path):
    path = tmp_path / "x.safetensors"
    for nbytes in (DTYPES[name].bits - 1, DTYPES[name].bits, DTYPES[name].bits + 1):
        path.write_bytes(craft({"a": entry(name, [8], 0, nbytes)}, bytes(nbytes)))
        assert (reference(path) is not None) == (nbytes == DTYPES[name].bits)


@pytest.mark.parametrize("name", DTYPES)
def test_names_go_both_ways(name: str):
    assert DTYPES[name].name == name
    assert dtype_name(DTYPES[name].numpy) == name
    assert DTYPES[name].packed == (DTYPES[name].bits < 8)
    assert DTYPES[name].numpy.itemsize * 8 == max(8, DTYPES[name].bits)


@pytest.mark.parametrize("dtype", ["c16", ">f4", "U3", "O", "M8[s]", "V2"])
def test_a_dtype_without_a_name(dtype: str):
    with pytest.raises(_errors.CheckpointError, match=r"^dtype '.*' has no name in safetensors, which knows bool, "):
        dtype_name(np.dtype(dtype))


@pytest.mark.parametrize("name", [name for name in DTYPES if not DTYPES[name].packed])
def test_every_bit_pattern_survives(name: str, tmp_path: Path):
    # 64 kB of everything: NaN payloads, subnormals, minus zero, booleans that are neither 0 nor 1.
    data = np.random.default_rng(0).integers(0, 256, 65536, np.uint8).tobytes()
    count = len(data) * 8 // DTYPES[name].bits
    path = tmp_path / "x.safetensors"
    path.write_bytes(craft({"a": entry(name, [count // 4, 4], 0, len(data))}, data))
    with open_checkpoint(path) as ckpt:
        array = ckpt["a"]
    assert array.dtype == DTYPES[name].numpy
    assert array.shape == (count // 4, 4)
    assert array.tobytes() == data
