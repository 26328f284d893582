"""Hub repos without a network, on a cache laid out as huggingface_hub lays it out. With one: tests/hub."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge import _errors
from bridge.source import open_checkpoint
from bridge.source.resolve import HubOptions
from tests.craft import checkpoint
from tests.errors.promised import text_of
from tests.torchfile.craft import GOOD, archive, dict_of

A = np.arange(3, dtype=np.float32)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(cache: Path, repo: str, files: dict[str, bytes], revision: str = "main", commit: str = COMMIT) -> None:
    """Put files of one commit into a Hub cache, with a ref to it."""
    folder = cache / ("models--" + repo.replace("/", "--"))
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text(commit)
    for name, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        link = folder / "snapshots" / commit / name
        blob.parent.mkdir(exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(blob)


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(_errors.CheckpointError) as caught:
        open_checkpoint(*args, **options)
    return str(caught.value)


def test_a_cached_repo(tmp_path: Path):
    cached(tmp_path, "org/name", {"model.safetensors": checkpoint({"a": A})})
    for options in ({}, {"local_files_only": True}, {"revision": "main"}, {"revision": COMMIT}, {"verify": True}):
        with open_checkpoint("org/name", cache_dir=tmp_path, **options) as ckpt:
            assert ckpt.commit == COMMIT
            assert ckpt.source == "org/name/"
            assert ckpt.files == ("model.safetensors",)
            assert ckpt["a"].tobytes() == A.tobytes()


def test_a_revision_and_a_subfolder(tmp_path: Path):
    other = "f" * 40
    cached(tmp_path, "org/name", {"model.safetensors": checkpoint({"main": A})})
    cached(tmp_path, "org/name", {"sub/model.safetensors": checkpoint({"v1": A})}, "v1", other)
    with open_checkpoint("org/name", cache_dir=tmp_path, revision="v1", subfolder="sub") as ckpt:
        assert list(ckpt) == ["v1"]
        assert ckpt.commit == other
        assert ckpt.source == "org/name/sub/"


def test_a_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cached(tmp_path / "hub", "org/name", {"model.safetensors": checkpoint({"hub": A})})
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "org" / "name" / "model.safetensors").write_bytes(checkpoint({"here": A}))
    monkeypatch.chdir(tmp_path)
    with open_checkpoint("org/name", cache_dir=tmp_path / "hub") as ckpt:
        assert list(ckpt) == ["here"]


def test_an_index_whose_file_is_not_cached(tmp_path: Path):
    index = json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}).encode()
    cached(tmp_path, "org/name", {"model.safetensors.index.json": index})
    text = text_of("hub: weights offline").replace("00003", "00001")
    assert text in refusal("org/name", cache_dir=tmp_path)


def test_a_repo_that_has_no_safetensors(tmp_path: Path):
    cached(tmp_path, "org/name", {"pytorch_model.bin": archive(dict_of(GOOD)), "config.json": b"{}"})
    with open_checkpoint("org/name", cache_dir=tmp_path) as ckpt:
        assert list(ckpt) == ["w"]


@pytest.mark.parametrize("revision", [None, "v1"])
def test_not_cached_and_offline(revision: str | None, tmp_path: Path):
    for local_files_only in (True, False):  # tests run with HF_HUB_OFFLINE=1
        message = refusal("org/name", revision=revision, cache_dir=tmp_path, local_files_only=local_files_only)
        assert message == text_of("hub: no such revision in the cache" if revision else "hub: nothing in the cache")


def test_a_name_that_no_repo_can_have():
    assert refusal("org/na--me").startswith(text_of("hub: a name that no repo can have"))


def test_the_token_is_not_shown():
    assert "hf_secret" not in repr(HubOptions(token="hf_secret"))
