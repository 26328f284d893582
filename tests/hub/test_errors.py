"""What can go wrong with the Hub: one error each, in the user's words, soon."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from huggingface_hub import constants

import bridge
from tests.errors.promised import text_of
from tests.hub.repo import HEAD, WEIGHTS, like, once, same
from tests.hub.server import Fault, Hub


def refusal(**options: Any) -> str:
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.open("org/name", **options)
    assert "hf_" not in str(caught.value)  # no message holds a token
    return str(caught.value)


def test_no_such_repo(hub: Hub):
    for token in (False, "hf_good"):
        assert refusal(token=token) == text_of("hub: no such repo").replace("other", "name")


def test_a_private_repo(repo: Hub):
    repo.repos["org/name"].private = True
    assert refusal() == text_of("hub: no such repo").replace("other", "name")
    assert same(bridge.load("org/name", like(""), token="hf_good"))


def test_a_gated_repo(repo: Hub):
    repo.repos["org/name"].gated = True
    assert refusal() == text_of("hub: a repo that needs access")
    assert same(bridge.load("org/name", like(""), token="hf_good"))


def test_a_repo_whose_files_are_gated(repo: Hub):
    # The Hub shows what there is to everybody, and guards the files alone.
    repo.fault = lambda r: (
        Fault(status=403, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "Ask."}) if HEAD in r.path else None
    )
    message = refusal()
    assert message == (
        text_of("hub: files that need access").replace(
            "'org/name/model-00003-of-00003.safetensors'", f"'org/name/{HEAD}'"
        )
    )


def test_a_token_that_the_hub_refuses(repo: Hub):
    assert refusal(token="hf_bad") == (text_of("hub: a token that it refuses"))


def test_a_token_that_may_not(repo: Hub):
    repo.fault = lambda r: Fault(status=403)
    assert refusal(token="hf_good") == (text_of("hub: a token that may not"))


def test_a_token_that_is_not_there(repo: Hub):
    assert refusal(token=True) == (text_of("hub: a token that is not there"))


def test_no_such_revision(repo: Hub):
    assert refusal(revision="v1") == text_of("hub: no such revision")
    assert refusal(revision="../../x") == text_of("hub: no such revision").replace("'v1'", "'../../x'")


@pytest.mark.parametrize("revision", [None, "v1"])
def test_offline_and_not_cached(revision: str | None, repo: Hub, monkeypatch: pytest.MonkeyPatch):
    expected = text_of("hub: no such revision in the cache" if revision else "hub: nothing in the cache")
    assert refusal(revision=revision, local_files_only=True) == expected
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal(revision=revision) == expected
    assert repo.requests == []


def test_a_name_that_no_repo_can_have(hub: Hub):
    with pytest.raises(
        bridge.CheckpointError, match=r"the Hub repo of that name has an invalid name: Cannot have -- or \.\. in"
    ):
        bridge.open("org/na--me")
    assert hub.requests == []


# ---- a Hub that is busy, or gone


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_tried_again(status: int, repo: Hub):
    busy = Fault(status=status, headers={"Retry-After": "1"})
    for where in ("/api/", "index.json", HEAD, "/blob/"):
        repo.fault = once(busy, lambda r, where=where: where in r.path, times=2)
        assert same(bridge.load("org/name", like("")))
        assert sum(r.status == status for r in repo.requests) == 2
        repo.requests.clear()
        shutil.rmtree(constants.HF_HUB_CACHE)


def test_a_limit_that_lasts(repo: Hub):
    repo.fault = lambda r: Fault(status=429)
    assert refusal() == text_of("hub: asked too often")
    assert len(repo.requests) == 5


@pytest.mark.parametrize("headers", [{"Retry-After": "300"}, {"RateLimit": '"api";r=0;t=300'}])
def test_a_limit_that_is_too_long_to_wait_for(headers: dict[str, str], repo: Hub):
    repo.fault = lambda r: Fault(status=429, headers=headers)
    assert refusal() == (text_of("hub: asked much too often"))
    assert len(repo.requests) == 1


def test_a_limit_on_files(repo: Hub):
    repo.fault = lambda r: Fault(status=429, headers={"Retry-After": "3600"}) if HEAD in r.path else None
    assert refusal() == (
        text_of("hub: files asked for too often")
        .replace("'org/name/model-00003-of-00003.safetensors'", f"'org/name/{HEAD}'")
        .replace("300 s", "3600 s")
    )


def test_a_hub_that_stays_busy(repo: Hub):
    repo.fault = lambda r: Fault(status=503)
    assert refusal() == text_of("hub: busy")


def test_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    message = refusal()
    assert message.startswith(text_of("hub: no network"))
    assert message.endswith("Check the network and try again.")


def test_a_hub_that_says_nothing(repo: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    repo.fault = lambda r: Fault(stall=20)
    assert refusal() == text_of("hub: no page of it") + "ReadTimeout: timed out. Check the network and try again."


def test_no_hub_at_all(repo: Hub):
    repo.fault = lambda r: Fault(body=b"<html>Log in to the hotel</html>", patch={"Content-Length": "32"})
    message = refusal()
    assert message.startswith(text_of("hub: no page of it"))
    assert message.endswith("Check the network and try again.")


def test_a_connection_lost_under_a_header(repo: Hub):
    repo.fault = once(Fault(after=100), lambda r: r.server == "cdn", times=2)
    with bridge.open("org/name") as ckpt:
        assert len(ckpt) > 3
    repo.fault = lambda r: Fault(after=0) if r.server == "cdn" else None
    with bridge.open("org/name"):  # headers were kept
        pass
    assert set(WEIGHTS) == set(ckpt.files)


def test_a_pipeline(hub: Hub):
    weights = next(iter(WEIGHTS.values()))
    hub.add("org/name", {"model_index.json": b"{}", "unet/x.safetensors": weights, "vae/x.safetensors": weights})
    assert refusal() == (text_of("folder: a pipeline's").replace("'./'", "'org/name/'"))
    assert refusal(subfolder="unett") == (
        "'org/name/' has no folder 'unett'; folders with weights: 'unet', 'vae'. Check the spelling of `subfolder`."
    )
    assert len(bridge.open("org/name", subfolder="unet")) > 0
