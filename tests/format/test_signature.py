"""A file that is called `.safetensors` and is something else says what it is."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest

from bridge import _errors
from tests.craft import ours


def saved() -> bytes:
    target = io.BytesIO()
    np.save(target, np.zeros(3))
    return target.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 90868376\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "a Git LFS pointer, not the file. Run `git lfs pull` in its repository."),
        (b"GGUF\3" + bytes(20), "a GGUF file, not safetensors. Use the safetensors files of the same model."),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file, not safetensors. Use the safetensors files of the same model."),
        (gzip.compress(b"x", mtime=0), "compressed by gzip, not safetensors. Unpack it first."),
        (b"\x28\xb5\x2f\xfd" + bytes(9), "compressed by zstd, not safetensors. Unpack it first."),
        (saved(), "a numpy .npy file, not safetensors. Save it with safetensors.numpy.save_file."),
        (
            b"\n <!DOCTYPE html><html>",
            "a web page, not safetensors: a login or an error was saved in its place. Fetch the file itself.",
        ),
        (
            b'{"error": "Not found"}',
            "JSON text, not safetensors: an index or an error was saved in its place. Fetch the file itself.",
        ),
        (b"{}", "JSON text, not safetensors: an index or an error was saved in its place. Fetch the file itself."),
    ],
    ids=lambda value: ascii(value[:12]),
)
def test_it_says_what_it_is(content: bytes, message: str, tmp_path: Path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(_errors.CheckpointError) as caught:
        ours(path)
    assert str(caught.value) == f"'x.safetensors' is {message}"
