"""`bridge.load("org/name")`: through the Hub's cache, only what the plan needs, of one commit."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

import bridge
from bridge.cli.main import main
from tests.errors.promised import text_of
from tests.hub.repo import HEAD, HEAD_NBYTES, REPO, TENSORS, TEXT, VISION, WEIGHTS, like, same, whole
from tests.hub.server import COMMIT, Fault, Hub


def test_only_the_files_that_the_plan_needs(repo: Hub):
    model = bridge.load("org/name", like("vision"), allow_unexpected=["text.**", "head.**"])
    assert same(model)
    assert whole(repo) == [WEIGHTS[VISION]]
    assert repo.nbytes() <= len(WEIGHTS[VISION]) + 3 * HEAD_NBYTES
    # One to ask what there is, two for the index, two for each header; to fetch a file, one to ask where it is.
    assert len(repo.requests) == 1 + 2 + 2 * 3 + 2
    repo.requests.clear()
    assert same(bridge.load("org/name", like("vision"), allow_unexpected=["text.**", "head.**"]))
    assert [r.path.partition("?")[0] for r in repo.requests] == ["/api/models/org/name"]


def test_several_files_are_fetched_at_once(repo: Hub):
    repo.fault = lambda r: Fault(stall=0.3) if r.server == "cdn" and r.range is None else None
    assert same(bridge.load("org/name", like("")))
    assert sorted(whole(repo)) == sorted(WEIGHTS.values())
    assert repo.most_open == 3


def test_inspect_and_plan_fetch_no_weights(repo: Hub, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", "org/name", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["files"] == [{"name": name, "nbytes": len(WEIGHTS[name])} for name in (VISION, TEXT, HEAD)]
    assert document["tensors"].keys() == TENSORS.keys()
    assert main(["plan", "org/name", "--like", "tests.hub.repo:whole_like", "--json"]) == 0
    assert bridge.plan("org/name", like("vision"), allow_unexpected=["**"]).ok
    assert whole(repo) == []
    assert repo.nbytes() == 3 * HEAD_NBYTES  # headers are asked for once, and kept


def test_a_header_of_any_length(hub: Hub):
    tensors = {f"a.tensor.with.a.long.name.{n}": np.full(3, n, np.int32) for n in range(1000)}
    hub.add("org/name", {"model.safetensors": save(tensors)})
    for _ in range(2):
        with bridge.open("org/name") as ckpt:
            assert set(ckpt) == set(tensors)
    assert whole(hub) == []
    assert len(hub.weights()) == 2
    with bridge.open("org/name") as ckpt:
        assert ckpt["a.tensor.with.a.long.name.7"].tolist() == [7, 7, 7]


def test_a_small_file(hub: Hub):
    hub.add("org/name", {"model.safetensors": save({"a": np.arange(3)})})
    with bridge.open("org/name") as ckpt:
        assert ckpt["a"].tolist() == [0, 1, 2]


def test_a_listing_without_lengths(hub: Hub):
    hub.add("org/name", REPO).sizes = False
    assert same(bridge.load("org/name", like("")))


def test_one_key_fetches_one_file(repo: Hub):
    with bridge.open("org/name") as ckpt:
        assert whole(repo) == []
        assert ckpt["head.weight"].tobytes() == TENSORS["head.weight"].tobytes()
        assert whole(repo) == [WEIGHTS[HEAD]]
        assert json.loads(ckpt.beside("config.json")) == {"model_type": "made_up"}


# ---- the cache


def test_offline_after_a_load_of_some_files(repo: Hub, monkeypatch: pytest.MonkeyPatch):
    assert same(bridge.load("org/name", like("vision"), allow_unexpected=["**"]))
    repo.requests.clear()
    for patched, option in ((False, True), (True, False)):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", patched)
        model = bridge.load("org/name", like("vision"), allow_unexpected=["**"], local_files_only=option)
        assert same(model)
        with bridge.open("org/name", local_files_only=option) as ckpt:
            assert set(ckpt) == set(TENSORS)  # the headers of the others were kept
            assert ckpt.commit == COMMIT
            with pytest.raises(bridge.CheckpointError) as caught:
                ckpt["head.weight"]
        assert str(caught.value) == (text_of("hub: a tensor offline").replace("model-00003-of-00003.safetensors", HEAD))
    assert repo.requests == []


def test_what_huggingface_hub_fetched_is_found(repo: Hub):
    huggingface_hub.hf_hub_download("org/name", VISION)
    repo.requests.clear()
    assert same(bridge.load("org/name", like("vision"), allow_unexpected=["**"]))
    assert whole(repo) == []
    assert repo.nbytes() == 2 * HEAD_NBYTES  # of the other two


def test_what_we_fetched_is_found_by_huggingface_hub(repo: Hub, cache: Path):
    assert same(bridge.load("org/name", like("vision"), allow_unexpected=["**"]))
    path = huggingface_hub.hf_hub_download("org/name", VISION, local_files_only=True)
    assert Path(path).read_bytes() == WEIGHTS[VISION]
    found = huggingface_hub.scan_cache_dir(cache)
    assert found.warnings == []
    assert {file.file_name for r in found.repos for v in r.revisions for file in v.files} == {
        VISION,
        "model.safetensors.index.json",
    }


@pytest.mark.torch
def test_what_we_fetched_is_found_by_transformers(repo: Hub, cache: Path):
    from transformers.utils import cached_file

    bridge.load("org/name", like("vision"), allow_unexpected=["**"])
    repo.requests.clear()
    path = cached_file("org/name", VISION, cache_dir=cache, local_files_only=True)
    assert path is not None
    assert Path(path).read_bytes() == WEIGHTS[VISION]
    assert repo.requests == []


def test_another_cache(repo: Hub, cache: Path, tmp_path: Path):
    assert same(bridge.load("org/name", like(""), cache_dir=tmp_path / "other"))
    assert not cache.exists()
    assert same(bridge.load("org/name", like(""), cache_dir=tmp_path / "other", local_files_only=True))


def test_a_hub_that_cannot_be_reached_leaves_the_cache(repo: Hub):
    bridge.load("org/name", like(""))
    repo.fault = lambda request: Fault(status=503)
    with pytest.warns(UserWarning, match="^the Hub cannot be asked about 'org/name': the server is busy") as caught:
        assert same(bridge.load("org/name", like("")))
    assert str(caught[0].message) == (
        "the Hub cannot be asked about 'org/name': the server is busy (HTTP status 503). "
        f"Commit {COMMIT} is taken from the cache; it may no longer be the newest."
    )


def test_a_file_of_the_cache_that_is_too_short(repo: Hub, cache: Path):
    """Online it is fetched again, offline the error says where it lies; so for weights and for files beside them."""
    assert same(bridge.load("org/name", like("")))
    blobs = {path.name: path.resolve() for path in cache.glob("models--org--name/snapshots/*/*")}
    for name in (VISION, "model.safetensors.index.json"):
        blob = blobs[name]
        whole, short = blob.read_bytes(), blob.read_bytes()[:40]
        blob.write_bytes(short)
        with pytest.raises(bridge.CheckpointError) as caught:
            bridge.load("org/name", like(""), local_files_only=True)
        if name == VISION:
            assert str(caught.value).endswith(f" Remove it from the Hub's cache, '{blob}', and it is fetched again.")
        assert same(bridge.load("org/name", like("")))
        assert blob.read_bytes() == whole
        assert same(bridge.load("org/name", like(""), local_files_only=True))
