"""Texts that are nearly right among those that are nothing, and what may become of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from jax import ShapeDtypeStruct
from safetensors.numpy import save_file

import bridge

FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
LIKE = {"layers": {"w": ShapeDtypeStruct((2, 3), np.float32)}, "b": ShapeDtypeStruct((3,), np.float32)}
TENSORS = {"l.0.w": np.zeros(3, np.float32), "l.1.w": np.zeros(3, np.float32), "b": np.zeros(3, np.float32)}
RULE = "l.{l}.w [a] -> layers.w [l a]"

WORDS = [
    *(
        "http://",
        "https://",
        "s3://",
        "hf://",
        "file://",
        "memory://",
        "://",
        "::",
        "[",
        "]",
        "@",
        "#",
        "?",
        "%2e",
        "..",
    ),
    *("/", "\\", "\0", "\n", "\x1b[2J", "\ud800", "é", " ", "~", "$HOME", "*", "**", "{", "}", "{l}", "|", "->", "+"),
    *(";", "=", "_", "'", '"', ".", ",", "(", ")", "l", "w", "b", "0", "-1", "9" * 25, "1e999", "nan", "true", "null"),
    *(".safetensors", ".index.json", ".toml", ".pth", "model", "x.safetensors", "layers", "tie=true", "l=4", "scale="),
    *("127.0.0.1", ":99999", "[::1]", "org/name", "refs/pr/1", "bfloat16", "5GB", "GiB", "\u202e", "\r", "\t"),
]
texts = st.one_of(
    st.text(max_size=12),
    st.lists(st.sampled_from(WORDS), max_size=6).map("".join),
    st.text(st.characters(codec=None), max_size=4),
)


@pytest.fixture(scope="module", autouse=True)
def folder():
    """A folder to be in, with a checkpoint, and no network to wait for."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        os.chdir(folder)
        save_file(TENSORS, "x.safetensors")
        Path("repo").mkdir()
        save_file(TENSORS, "repo/model.safetensors")
        patch.setattr("bridge.source.retry.WAITS", ())
        patch.setattr("bridge.source.download._WAITS", ())
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")
        patch.setattr("socket.getaddrinfo", _nowhere)
        yield Path(folder)
        os.chdir(before)


def _nowhere(*_: Any, **__: Any) -> Any:
    raise OSError("no network in this test")


def ours(call: Callable[[], Any]) -> None:
    """What is raised is an error of ours, and can be printed."""
    try:
        call()
    except bridge.BridgeError as error:
        said = str(error)
        assert said.replace("\n", "").isprintable(), ascii(said)
        assert len(said) < 20_000


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
