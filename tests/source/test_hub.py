"""Hub repos without a network: the real huggingface_hub client on a cache laid out as it lays it out."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants, errors

from bridge import _errors
from bridge.source import open_checkpoint
from bridge.source.hub import HubOptions
from tests.craft import checkpoint

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
    assert refusal("org/name", cache_dir=tmp_path) == (
        "'model.safetensors.index.json' of 'org/name/' lists a file that fails: "
        "'org/name/model-00001-of-00001.safetensors' does not exist. "
        "Check its name; if it was being fetched, fetch it again."
    )


def test_a_repo_of_pickles(tmp_path: Path):
    cached(tmp_path, "org/name", {"pytorch_model.bin": b"\x80\x02}."})
    assert refusal("org/name", cache_dir=tmp_path).startswith(
        "'org/name/' holds PyTorch pickles ('pytorch_model.bin') and no .safetensors file."
    )


NOT_HERE = "'org/name' is no file or folder here, and the Hub repo of that name"


@pytest.mark.parametrize("revision", [None, "v1"])
def test_not_cached_and_offline(revision: str | None, tmp_path: Path):
    at = " at revision 'v1'" if revision else ""
    for local_files_only in (True, False):  # tests run with HF_HUB_OFFLINE=1
        message = refusal("org/name", revision=revision, cache_dir=tmp_path, local_files_only=local_files_only)
        assert message == (
            f"{NOT_HERE} is not in the cache{at} and cannot be fetched. Go online once, or check `cache_dir=`."
        )


def test_a_name_that_no_repo_can_have():
    assert refusal("org/na--me").startswith(
        "'org/na--me' is no file or folder here, and the Hub repo of that name cannot be: "
    )


# ---- with a network: what the client says is made up, how it says it is its own


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return monkeypatch


def test_a_revision_is_resolved_once(online: pytest.MonkeyPatch, tmp_path: Path):
    files = {
        "model.safetensors.index.json": json.dumps({"weight_map": {"a": "below/x.safetensors"}}).encode(),
        "below/x.safetensors": checkpoint({"a": A}),
        "below/y.safetensors": b"not needed",
        "sub/model.safetensors": checkpoint({"sub": A}),
    }
    asked: list[tuple[str, Any]] = []

    def model_info(api: Any, repo: str, *, revision: str | None) -> Any:
        asked.append((repo, revision))
        return SimpleNamespace(sha=COMMIT, siblings=[SimpleNamespace(rfilename=name) for name in files])

    def download(repo: str, name: str, *, revision: str, cache_dir: str | None, token: str) -> str:
        asked.append((name, revision))
        assert (cache_dir, token) == (str(tmp_path), "secret")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(files[name])
        return str(tmp_path / name)

    online.setattr(huggingface_hub.HfApi, "model_info", model_info)
    online.setattr(huggingface_hub, "hf_hub_download", download)
    with open_checkpoint("org/name", revision="v1", cache_dir=tmp_path, token="secret") as ckpt:
        assert ckpt.commit == COMMIT
        assert ckpt["a"].tobytes() == A.tobytes()
    assert asked == [("org/name", "v1"), ("model.safetensors.index.json", COMMIT), ("below/x.safetensors", COMMIT)]
    with open_checkpoint("org/name", subfolder="sub", cache_dir=tmp_path, token="secret") as ckpt:
        assert ckpt.source == "org/name/sub/"
        assert list(ckpt) == ["sub"]


def http_error(kind: type[errors.HfHubHTTPError], status: int) -> Exception:
    """With the response in it that the client puts there; which library it is of differs by the client's version."""
    http = importlib.import_module(errors.HfHubHTTPError.__bases__[0].__module__.split(".")[0])
    request = http.Request("GET", "https://huggingface.co/api/models/org/name")
    return kind(f"{status} said the Hub.\n\nand more", response=http.Response(status, request=request))


def transport_error() -> Exception:
    http = importlib.import_module(errors.HfHubHTTPError.__bases__[0].__module__.split(".")[0])
    return http.ConnectError("no route to \x1b[2Jhost")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            lambda: http_error(errors.GatedRepoError, 403),
            "is gated. Ask for access on its page, then log in: `hf auth login`, or `token=`.",
        ),
        (
            lambda: http_error(errors.RepositoryNotFoundError, 404),
            "does not exist, or is private. Check its name, or log in: `hf auth login`, or `token=`.",
        ),
        (
            lambda: http_error(errors.RevisionNotFoundError, 404),
            "has no revision 'v1'. Name a branch, a tag or a commit.",
        ),
        (
            lambda: http_error(errors.HfHubHTTPError, 429),
            "cannot be read at revision 'v1': 429 said the Hub. Check the network and try again.",
        ),
        (
            lambda: http_error(errors.RemoteEntryNotFoundError, 404),
            "lacks a file at revision 'v1' that it lists. Try again, or tell its owner.",
        ),
        (
            transport_error,
            "cannot be read at revision 'v1': no route to \\x1b[2Jhost. Check the network and try again.",
        ),
        (
            TimeoutError,
            "cannot be read at revision 'v1': TimeoutError. Check the network and try again.",
        ),
    ],
)
def test_what_can_go_wrong(error: Callable[[], Exception], said: str, online: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> Any:
        raise error()

    online.setattr(huggingface_hub.HfApi, "model_info", fail)
    message = refusal("org/name", revision="v1", token="hf_secret")
    assert message == f"{NOT_HERE} {said}"
    assert "hf_secret" not in message


def test_the_token_is_not_shown():
    assert "hf_secret" not in repr(HubOptions(token="hf_secret"))
