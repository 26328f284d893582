"""Repos and web servers that have only what PyTorch saved: the pickle first, by ranges, then the bytes that are needed."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save

import bridge
from bridge.source.bytes import LocalFile
from tests.hub.server import COMMIT, Hub
from tests.torchfile.craft import archive, dict_of, storage, stream, tensor

RNG = np.random.default_rng(0)
VALUES = {f"w{n}": RNG.standard_normal((100, 500), np.float32) for n in range(4)}
LAST = len(VALUES) - 1


def torch_file(*names: str) -> bytes:
    """A zip in which each tensor is stored transposed."""
    value = dict_of({n: tensor(storage(key=str(k), numel=50_000), (100, 500), (1, 100)) for k, n in enumerate(names)})
    return archive(value, {f"data/{k}": np.ascontiguousarray(VALUES[n].T).tobytes() for k, n in enumerate(names)})


WHOLE = torch_file(*VALUES)
NAMES = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
PARTS = dict(zip(NAMES, (torch_file("w0", "w1"), torch_file("w2", "w3")), strict=True))
INDEX = {"weight_map": {"w0": NAMES[0], "w1": NAMES[0], "w2": NAMES[1], "w3": NAMES[1]}}


def same(model: dict[str, jax.Array]) -> bool:
    return bool(model) and all(np.asarray(model[name]).tobytes() == VALUES[name].tobytes() for name in model)


def like(*names: str) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct((100, 500), np.float32) for name in names}


@pytest.fixture
def repo(hub: Hub) -> Hub:
    hub.add("org/name", {"pytorch_model.bin.index.json": json.dumps(INDEX).encode(), **PARTS, "config.json": b"{}"})
    return hub


def test_a_repo_is_planned_from_its_pickles(repo: Hub, cache: Path):
    plan = bridge.plan("org/name", None)
    assert plan.ok
    assert plan.keys == tuple(VALUES)
    assert repo.nbytes() < sum(map(len, PARTS.values())) / 4  # the ends of the files, and the headers of some records
    assert all(request.range is not None for request in repo.weights())
    assert not list(cache.rglob("*.bin"))


def test_only_the_files_that_are_needed_are_fetched(repo: Hub, cache: Path):
    assert same(bridge.load("org/name", like("w2"), allow_unexpected=["**"]))
    assert [path.name for path in cache.rglob("*.bin")] == [NAMES[1]]
    with bridge.open("org/name") as ckpt:
        assert ckpt.commit == COMMIT
        assert same({name: ckpt[name] for name in ckpt})
    before = len(repo.weights())
    assert same(bridge.load("org/name", None))
    with bridge.open("org/name", local_files_only=True) as ckpt:
        assert all(isinstance(ckpt.byte_source(name), LocalFile) for name in NAMES)
    assert len(repo.weights()) == before


def test_safetensors_are_preferred(hub: Hub):
    hub.add("org/name", {"pytorch_model.bin": b"never looked at", "any.safetensors": save({"a": np.zeros(2)})})
    assert list(bridge.open("org/name")) == ["a"]


def test_a_repo_of_traps(hub: Hub):
    hub.add("org/name", {"pytorch_model.bin": archive(dict_of({"w": b"cposix\nsystem\n(X\4\0\0\0exittR"}))})
    with pytest.raises(bridge.CheckpointError, match=r"'posix\.system'"):
        bridge.open("org/name")


def test_streamed(repo: Hub, cache: Path):
    assert same(bridge.load("hf://org/name", None))
    assert same(bridge.load(f"hf://org/name/{NAMES[0]}", None))
    assert not cache.exists()


@pytest.mark.parametrize("name", ["x.pth", "x.pth.tar"])
def test_the_bytes_that_are_needed_from_a_web_server(name: str, hub: Hub):
    hub.web = {f"/a/{name}": WHOLE}
    model = bridge.load(f"{hub.web_url}/a/{name}", like("w1"), allow_unexpected=["**"])
    assert same(model)
    assert VALUES["w1"].nbytes < sum(request.nbytes for request in hub.requests) < 2 * VALUES["w1"].nbytes
    assert all(request.range is not None for request in hub.requests)
    assert len(hub.requests) < 12


def test_a_stream_from_a_web_server(hub: Hub):
    value = dict_of(
        {n: tensor(storage("FloatStorage", str(k), 50_000, b"N"), (100, 500), (500, 1)) for k, n in enumerate(VALUES)}
    )
    raw = b"".join((50_000).to_bytes(8, "little") + values.tobytes() for values in VALUES.values())
    hub.web = {"/old.pt": stream(value, tuple(map(str, range(len(VALUES)))), raw)}
    assert same(bridge.load(f"{hub.web_url}/old.pt", like(f"w{LAST}"), allow_unexpected=["**"]))
    assert sum(request.nbytes for request in hub.requests) < 2 * VALUES["w0"].nbytes


def test_a_folder_of_a_web_server_that_lists_nothing(hub: Hub):
    hub.web = {"/repo/pytorch_model.bin": WHOLE, "/parts/pytorch_model.bin.index.json": json.dumps(INDEX).encode()}
    hub.web |= {f"/parts/{name}": content for name, content in PARTS.items()}
    assert same(bridge.load(f"{hub.web_url}/repo", None))
    assert same(bridge.load(f"{hub.web_url}/parts", None))
