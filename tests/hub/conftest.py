"""The real clients, talking to servers of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hub.clients import talking
from tests.hub.repo import REPO
from tests.hub.server import Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A Hub that huggingface_hub takes for the real one, with a cache of its own; what waits, waits less."""
    with talking(monkeypatch, tmp_path / "cache") as hub:
        yield hub


@pytest.fixture
def repo(hub: Hub) -> Hub:
    """The same, with `org/name` in it."""
    hub.add("org/name", REPO)
    return hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where the Hub's cache is."""
    return tmp_path / "cache"
