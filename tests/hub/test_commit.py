"""One commit of a repo, and the right files of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

import bridge
from tests.hub.repo import HEAD, REPO, TENSORS, VISION, WEIGHTS, like, same, whole
from tests.hub.server import COMMIT, Fault, Hub

NEWER = "f" * 40


# ---- one commit


def test_a_repo_that_changes_under_a_load(repo: Hub):
    with bridge.open("org/name") as ckpt:
        newer = {key: tensor + 1 for key, tensor in TENSORS.items()}
        repo.add("org/name", {"model.safetensors": save(newer)}, commit=NEWER)
        assert ckpt.commit == COMMIT
        assert same(bridge.load(ckpt, like("")))
    resolved = [r.path for r in repo.requests if "/resolve/" in r.path]
    assert resolved
    assert all(COMMIT in path for path in resolved)
    with bridge.open("org/name") as ckpt:
        assert ckpt.commit == NEWER
        assert ckpt["vision.bias"].tobytes() == newer["vision.bias"].tobytes()
    with bridge.open("org/name", revision=COMMIT) as ckpt:
        assert ckpt["vision.bias"].tobytes() == TENSORS["vision.bias"].tobytes()


def test_a_tag_and_a_branch(repo: Hub):
    repo.add("org/name", {"model.safetensors": save({"a": np.zeros(1)})}, commit=NEWER, revision="v1")
    with bridge.open("org/name", revision="v1") as ckpt:
        assert list(ckpt) == ["a"]
        assert ckpt.commit == NEWER
    with bridge.open("org/name", revision="v1", local_files_only=True) as ckpt:
        assert ckpt.commit == NEWER
    with bridge.open("org/name") as ckpt:
        assert ckpt.commit == COMMIT


def test_a_server_that_serves_another_commit(repo: Hub):
    repo.fault = lambda r: Fault(patch={"X-Repo-Commit": NEWER}) if VISION in r.path else None
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.open("org/name")
    assert str(caught.value).endswith(f"'org/name/{VISION}' comes from commit '{NEWER}', expected {COMMIT}. Try again.")


def test_the_commit_stands_in_the_converted_form(repo: Hub, tmp_path: Path):
    bridge.convert("org/name", tmp_path / "converted", like(""))
    with bridge.open(tmp_path / "converted") as ckpt:
        assert ckpt.metadata["eqx-bridge.commit"] == COMMIT
    assert json.loads((tmp_path / "converted" / "bridge.json").read_text())["commit"] == COMMIT
    bridge.revert(tmp_path / "converted", tmp_path / "back")
    assert {name: (tmp_path / "back" / name).read_bytes() for name in WEIGHTS} == WEIGHTS


def test_a_converted_form_on_the_hub(repo: Hub, tmp_path: Path):
    bridge.convert("org/name", tmp_path / "converted", like(""))
    repo.add("org/converted", {path.name: path.read_bytes() for path in (tmp_path / "converted").iterdir()})
    plan = bridge.plan("org/converted", like(""))
    assert plan.ok
    assert sorted(whole(repo)) == sorted(WEIGHTS.values())  # those that were converted, and no more
    assert same(bridge.load("org/converted", like("")))
    assert bridge.plan("org/converted", like("")).peak_nbytes < plan.peak_nbytes  # it lies here now, and is mapped
    bridge.revert("org/converted", tmp_path / "back")
    assert {name: (tmp_path / "back" / name).read_bytes() for name in WEIGHTS} == WEIGHTS


def test_two_repos_compared(repo: Hub):
    changed = {**TENSORS, "vision.bias": TENSORS["vision.bias"] + 1}
    repo.add("org/tuned", {"model.safetensors": save(changed)})
    found = bridge.diff("org/name", "org/tuned")
    assert [d.key for d in found.differing] == ["vision.bias"]
    assert bridge.diff("org/name", "org/name").equal


# ---- which files


def test_a_subfolder_and_a_variant(hub: Hub):
    hub.add(
        "org/name",
        {
            "unet/model.safetensors": save({"plain": np.zeros(1)}),
            "unet/model.fp16.safetensors": save({"fp16": np.zeros(1)}),
            "original/model.safetensors": b"not asked for",
        },
    )
    with bridge.open("org/name", subfolder="unet") as ckpt:
        assert list(ckpt) == ["plain"]
        assert ckpt.source == "org/name/unet/"
    with bridge.open("org/name", subfolder="unet", variant="fp16") as ckpt:
        assert list(ckpt) == ["fp16"]


def test_an_index_that_lists_a_file_that_is_not_there(hub: Hub):
    hub.add("org/name", {name: content for name, content in REPO.items() if name != HEAD})
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.open("org/name")
    assert f"'org/name/{HEAD}' is not in the repo at commit {COMMIT}" in str(caught.value)
