"""`verify=True`: files against the sha256 that is known of them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from bridge import _errors
from bridge.source import open_checkpoint
from tests.craft import checkpoint
from tests.errors.promised import text_of

CONTENT = checkpoint({"a": np.arange(3_000_000, dtype=np.float32)})  # more than one piece
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def refusal(path: Path) -> str:
    with pytest.raises(_errors.CheckpointError) as caught:
        open_checkpoint(path, verify=True)
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "x.safetensors").write_bytes(CONTENT)
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize(
    "text", [f"{DIGEST}  x.safetensors\n", DIGEST.upper(), f"{DIGEST} *x.safetensors", f"\\{DIGEST}  a\\nb"]
)
@pytest.mark.parametrize("by", ["file", "folder", "list"])
def test_a_sidecar(text: str, by: str, path: Path):
    path.with_name("x.safetensors.sha256").write_text(text)
    source = {"file": path, "folder": path.parent, "list": [path]}[by]
    with open_checkpoint(source, verify=True) as ckpt:
        assert "a" in ckpt


def test_a_sidecar_of_another_file(path: Path):
    path.with_name("x.safetensors.sha256").write_text("0" * 64)
    assert refusal(path) == (
        re.sub(r"sha256 \w+", f"sha256 {DIGEST}", text_of("verify: another file")).replace("x.safetensors", str(path))
    )


@pytest.mark.parametrize("text", ["", "no digest", DIGEST[:63], DIGEST + "0"])
def test_a_sidecar_that_is_none(text: str, path: Path):
    path.with_name("x.safetensors.sha256").write_text(text)
    assert refusal(path) == text_of("verify: a sidecar without a digest").replace(
        "'x.safetensors.sha256'", f"'{path}.sha256'"
    )


def test_nothing_to_check_against(path: Path):
    assert refusal(path) == (text_of("verify: nothing to check against").replace("'x.safetensors'", f"'{path}'"))


@pytest.mark.parametrize("good", [True, False])
def test_a_blob_of_the_hub_s_cache(good: bool, tmp_path: Path):
    blob = tmp_path / "blobs" / (DIGEST if good else "f" * 64)
    link = tmp_path / "snapshots" / "0123abcd" / "model.safetensors"
    for file in (blob, link):
        file.parent.mkdir(parents=True)
    blob.write_bytes(CONTENT)
    link.symlink_to(Path("..") / ".." / "blobs" / blob.name)
    for source in (link, link.parent):
        if good:
            open_checkpoint(source, verify=True).close()
        else:
            assert refusal(source).endswith(
                f"' is not the file it should be: sha256 {DIGEST}, expected {'f' * 64}. Fetch it again."
            )


def test_a_link_to_anything_else_says_nothing(path: Path):
    (path.parent / "link.safetensors").symlink_to(path.name)
    assert "has nothing to be checked against" in refusal(path.parent / "link.safetensors")


def test_without_verify_nothing_is_hashed(path: Path):
    path.with_name("x.safetensors.sha256").write_text("0" * 64)
    open_checkpoint(path).close()
