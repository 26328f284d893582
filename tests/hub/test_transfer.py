"""What comes from the Hub: by whom it may be had, whole or in pieces, true or spoilt."""

from __future__ import annotations

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

import bridge
from bridge.source import download
from tests.errors.promised import text_of
from tests.hub.repo import HEAD, HEAD_NBYTES, VISION, WEIGHTS, like, once, same, served, whole
from tests.hub.server import COMMIT, Fault, Hub

# ---- the token


@pytest.mark.parametrize("token", ["hf_good", False])
def test_the_token_stays_on_the_hub(token: str | bool, repo: Hub):
    assert same(bridge.load("org/name", like(""), token=token))
    assert same(bridge.load("hf://org/name", like(""), token=token))
    seen = {server: {r.token for r in repo.requests if r.server == server} for server in ("hub", "cdn")}
    assert seen == {"hub": {"Bearer hf_good" if token else None}, "cdn": {None}}


# ---- what comes is what was asked for


def test_verify(repo: Hub):
    with bridge.open("org/name", verify=True):
        assert sorted(whole(repo)) == sorted(WEIGHTS.values())


def spoilt(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_a_wrong_body_is_found_by_verify(repo: Hub):
    wrong = Fault(body=spoilt(WEIGHTS[VISION], len(WEIGHTS[VISION]) - 1))
    repo.fault = lambda r: wrong if r.range is None and served(repo, r) == WEIGHTS[VISION] else None
    with pytest.raises(bridge.CheckpointError, match=f"^'org/name/{VISION}' is not the file it should be: sha256 "):
        bridge.open("org/name", verify=True)


def test_a_file_with_another_header_is_noticed(repo: Hub):
    wrong = Fault(body=spoilt(WEIGHTS[VISION], 20))
    repo.fault = lambda r: wrong if r.range is None and served(repo, r) == WEIGHTS[VISION] else None
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.load("org/name", like(""))
    assert str(caught.value) == (
        text_of("hub: another file than the one whose header was read")
        .replace("model-00001-of-00003.safetensors", VISION)
        .replace("0123456789abcdef0123456789abcdef01234567", COMMIT)
    )


def test_a_download_that_ends_early_is_resumed(repo: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what the client writes at once
    cut = 100_000
    repo.fault = once(Fault(after=cut), lambda r: r.range is None and served(repo, r) == WEIGHTS[HEAD])
    assert same(bridge.load("org/name", like("")))
    resumed = [r for r in repo.weights() if r.range and r.range[0] > 0]
    assert [(r.range[0], r.nbytes) for r in resumed if r.range] == [(cut, len(WEIGHTS[HEAD]) - cut)]


def test_a_connection_that_is_reset(repo: Hub):
    reset = Fault(after=len(WEIGHTS[HEAD]) // 2, reset=True)
    repo.fault = once(reset, lambda r: r.range is None and served(repo, r) == WEIGHTS[HEAD])
    assert same(bridge.load("org/name", like("")))


def test_downloads_that_never_come_to_an_end(repo: Hub):
    repo.fault = lambda r: Fault(after=100) if (r.range is None and r.server == "cdn") or (r.range or (0,))[0] else None
    with pytest.raises(bridge.CheckpointError, match=r"^'org/name/model-0000.-of-00003.safetensors' cannot be fetched"):
        bridge.load("org/name", like(""))
    repo.fault = lambda r: None
    assert same(bridge.load("org/name", like("")))  # what had come does no harm


def test_nothing_comes_any_more(repo: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 60)
    repo.fault = lambda r: Fault(stall=20) if r.range is None and r.server == "cdn" else None
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.load("org/name", like("vision"), allow_unexpected=["**"])
    assert str(caught.value) == (
        text_of("hub: a file that does not come")
        .replace("'org/name/model-00001-of-00003.safetensors'", f"'org/name/{VISION}'")
        .replace("0.3 s", "0.5 s")
    )


def test_nothing_comes_of_a_small_file(repo: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 60)
    repo.fault = lambda r: Fault(stall=20) if "index.json" in r.path else None
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.open("org/name")
    assert str(caught.value) == (
        text_of("hub: a file that does not come")
        .replace("'org/name/model-00001-of-00003.safetensors'", "'org/name/model.safetensors.index.json'")
        .replace("0.3 s", "0.5 s")
    )


def test_a_mirror_that_ignores_ranges(repo: Hub):
    repo.fault = lambda r: Fault(whole=True)
    assert same(bridge.load("org/name", like("vision"), allow_unexpected=["**"]))
    assert whole(repo) == [WEIGHTS[VISION]]


def test_a_mirror_that_ignores_ranges_and_a_long_header(hub: Hub):
    tensors = {f"a.tensor.with.a.long.name.{n}": np.full(3, n, np.int32) for n in range(1000)}
    hub.add("org/name", {"model.safetensors": save(tensors)})
    hub.fault = lambda r: Fault(whole=True)
    with bridge.open("org/name") as ckpt:
        assert set(ckpt) == set(tensors)
        assert ckpt["a.tensor.with.a.long.name.7"].tolist() == [7, 7, 7]


def test_a_hub_that_leads_in_circles(repo: Hub):
    repo.fault = lambda r: Fault(status=302, headers={"Location": r.path}) if HEAD in r.path else None
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.open("org/name")
    assert str(caught.value).endswith(f"'org/name/{HEAD}' redirects in a loop. Try again later.")


def test_a_file_of_another_length_than_the_hub_lists(repo: Hub):
    longer = WEIGHTS[HEAD] + bytes(8)
    at = repo.digest(WEIGHTS[HEAD])
    repo.fault = lambda r: (
        Fault(patch={"Content-Range": f"bytes 0-{HEAD_NBYTES - 1}/{len(longer)}"}) if at in r.path else None
    )
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.open("org/name")
    assert str(caught.value).endswith(
        f"'org/name/{HEAD}' holds {len(longer):,} bytes, the Hub lists {len(WEIGHTS[HEAD]):,}. "
        "Try again, or tell the repo's owner."
    )
