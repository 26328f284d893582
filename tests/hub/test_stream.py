"""`hf://`: the bytes that are needed, into the final arrays, with nothing on the disk."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save

import bridge
from bridge.source import retry
from tests.errors.promised import text_of
from tests.hub.repo import HEAD, HEAD_NBYTES, REPO, TENSORS, TEXT, VISION, WEIGHTS, like, once, same
from tests.hub.server import COMMIT, Fault, Hub

BIG = {f"w{n}": np.random.default_rng(n).standard_normal((700, 1000), np.float32) for n in range(8)}  # 22 MB


def test_nothing_on_the_disk(repo: Hub, cache: Path):
    model = bridge.load("hf://org/name", like("vision"), allow_unexpected=["**"])
    assert same(model)
    assert not cache.exists()
    # One file's bytes, of which the first came with its header, and the headers of the others.
    assert repo.nbytes() == len(WEIGHTS[VISION]) + 2 * HEAD_NBYTES


def test_the_commit_and_the_names(repo: Hub):
    with bridge.open("hf://org/name") as ckpt:
        assert ckpt.commit == COMMIT
        assert ckpt.source == "hf://org/name/"
        assert ckpt["head.weight"].tobytes() == TENSORS["head.weight"].tobytes()
        assert ckpt.beside("config.json") == REPO["config.json"]
    with bridge.open(f"hf://org/name/{HEAD}") as ckpt:
        assert ckpt.commit == COMMIT
        assert ckpt.source == f"hf://org/name/{HEAD}"
        assert list(ckpt) == ["head.weight"]


def test_a_revision_in_the_url(repo: Hub):
    other = "a" * 40
    files = {"sub/folder/model.safetensors": save({"a": np.arange(3)})}
    repo.add("org/name", files, commit=other, revision="refs/pr/1")
    for url in ("hf://org/name@refs/pr/1/sub/folder", "hf://models/org/name@refs%2Fpr%2F1/sub/folder/"):
        with bridge.open(url) as ckpt:
            assert (ckpt.commit, list(ckpt)) == (other, ["a"])
    with bridge.open("hf://org/name", revision="refs/pr/1", subfolder="sub/folder") as ckpt:
        assert ckpt["a"].tolist() == [0, 1, 2]
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.open("hf://org/name@v1", revision="v2")
    assert str(caught.value) == text_of("hub: a URL with one revision, and another")


def test_verify_by_what_the_hub_lists(repo: Hub, cache: Path):
    bridge.open("hf://org/name", verify=True).close()
    last = WEIGHTS[TEXT][:-1] + bytes([WEIGHTS[TEXT][-1] ^ 1])
    repo.fault = lambda r: (
        Fault(body=last[r.range[0] : r.range[1]]) if r.range and r.range[0] and str(len(last)) in str(r.range) else None
    )
    with pytest.raises(bridge.CheckpointError, match=f"^'hf://org/name/{TEXT}' is not the file it should be: sha256 "):
        bridge.open("hf://org/name", verify=True)
    assert not cache.exists()


def test_no_such_repo(hub: Hub):
    with pytest.raises(bridge.CheckpointError, match=r"^Hub repo 'org/name' does not exist, or is private"):
        bridge.open("hf://org/name")


# ---- one large file: ranges, several in flight


@pytest.fixture(scope="module")
def content() -> bytes:
    return save(BIG)


@pytest.fixture
def big(hub: Hub, content: bytes) -> Hub:
    hub.add("org/big", {"model.safetensors": content})
    return hub


def template(*keys: str) -> dict[str, jax.ShapeDtypeStruct]:
    return {key: jax.ShapeDtypeStruct(BIG[key].shape, np.float32) for key in keys}


def right(model: dict[str, jax.Array]) -> bool:
    return all(np.asarray(value).tobytes() == BIG[key].tobytes() for key, value in model.items())


def test_several_requests_are_in_flight(big: Hub):
    big.fault = lambda r: Fault(stall=0.1) if r.server == "cdn" else None
    assert right(bridge.load("hf://org/big", template(*BIG)))
    assert 4 <= big.most_open <= 8
    assert all(r.range is not None for r in big.weights())


def test_all_of_a_file_is_fetched_once(big: Hub, content: bytes):
    assert right(bridge.load("hf://org/big", template(*BIG)))
    assert big.nbytes() == len(content)
    # Where the file is stored was asked once.
    assert sum(r.server == "hub" and "/resolve/" in r.path for r in big.requests) == 1


def test_only_the_bytes_that_are_needed(big: Hub):
    model = bridge.load("hf://org/big", template("w1", "w5"), allow_unexpected=["**"])
    assert right(model)
    assert big.nbytes() == BIG["w1"].nbytes + BIG["w5"].nbytes + HEAD_NBYTES


def test_a_lost_connection_is_resumed_where_it_was(big: Hub, content: bytes):
    big.fault = once(Fault(after=1_000_000), lambda r: bool(r.range and r.range[0]), times=3)
    assert right(bridge.load("hf://org/big", template(*BIG)))
    # What came before a connection was lost is not asked for again; some of it may have been under way.
    assert len(content) <= big.nbytes() <= len(content) + 3 * 1_000_000
    ends = {r.range[0] + 1_000_000 for r in big.requests if r.range and r.nbytes == 1_000_000 and r.range[0]}
    assert ends <= {r.range[0] for r in big.requests if r.range}


def test_a_connection_that_is_reset(big: Hub):
    big.fault = once(Fault(after=500_000, reset=True), lambda r: bool(r.range and r.range[0]), times=2)
    assert right(bridge.load("hf://org/big", template("w3"), allow_unexpected=["**"]))


def test_connections_that_are_always_lost(big: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retry, "WAITS", (0.0, 0.0))
    big.fault = lambda r: Fault(after=0) if r.range and r.range[0] else None
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.load("hf://org/big", template("w3"), allow_unexpected=["**"])
    assert str(caught.value).startswith("key 'w3': 'hf://org/big/model.safetensors' cannot be read at byte ")
    assert str(caught.value).endswith("Check the network and try again.")


def test_an_address_that_has_expired(big: Hub):
    big.fault = once(Fault(status=403), lambda r: bool(r.server == "cdn" and r.range and r.range[0]))
    assert right(bridge.load("hf://org/big", template(*BIG)))
    assert sum(r.server == "hub" and "/resolve/" in r.path for r in big.requests) >= 2


def test_a_server_that_ignores_ranges(big: Hub):
    big.fault = lambda r: Fault(whole=True) if r.server == "cdn" else None
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.load("hf://org/big", template(*BIG))
    assert str(caught.value) == (
        text_of("https: an answer that is whole").replace(
            "'https://example.com/x.safetensors'", "'hf://org/big/model.safetensors'"
        )
    )


def test_a_server_that_begins_to_ignore_ranges(big: Hub):
    big.fault = lambda r: Fault(whole=True) if r.range and r.range[0] else None
    with pytest.raises(bridge.CheckpointError, match="its server ignores ranges"):
        bridge.load("hf://org/big", template("w3"), allow_unexpected=["**"])


@pytest.mark.parametrize(
    ("patch", "problem"),
    [
        (
            {"Content-Range": "bytes 0-9/{total}"},
            "were asked for, 0 to 10 came. Fetch it to the disk and open it there.",
        ),
        ({"Content-Range": None}, "its server does not say which range it sends (Content-Range). "),
        (
            {"Content-Range": "bytes {start}-{last}/5"},
            "has changed since it was opened: it held {total:,} bytes, now 5.",
        ),
    ],
)
def test_another_range_than_was_asked_for(patch: dict[str, str | None], problem: str, big: Hub, content: bytes):
    total = len(content)

    def fault(r):
        if not r.range or not r.range[0]:
            return None
        numbers = {"total": total, "start": r.range[0], "last": min(r.range[1], total) - 1}
        return Fault(patch={k: v and v.format(**numbers) for k, v in patch.items()})

    big.fault = fault
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.load("hf://org/big", template("w3"), allow_unexpected=["**"])
    assert "'hf://org/big/model.safetensors'" in str(caught.value)
    assert problem.format(total=total) in str(caught.value)


def test_more_than_was_asked_for(big: Hub):
    big.fault = lambda r: (
        Fault(body=bytes(5_000_000), patch={"Content-Length": "5000000"}) if r.range and r.range[0] else None
    )
    with pytest.raises(bridge.CheckpointError, match="bytes were asked for, and more came"):
        bridge.load("hf://org/big", template("w3"), allow_unexpected=["**"])
