"""The real clients, talking to servers of our own."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.file_download
import huggingface_hub.utils._http
import pytest
from fsspec.implementations.http import HTTPFileSystem
from huggingface_hub import constants

from bridge.source import retry
from tests.hub.repo import REPO
from tests.hub.server import Hub, serving


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A Hub that huggingface_hub takes for the real one, with a cache of its own; what waits, waits less."""
    quick = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: time.sleep(min(seconds, 0.01))})
    with serving() as hub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 2)
        monkeypatch.setattr(huggingface_hub.file_download, "time", quick)
        monkeypatch.setattr(huggingface_hub.utils._http, "time", quick)
        monkeypatch.setattr(retry, "time", quick)
        yield hub
        hub.close()
        for thread in threading.enumerate():  # one that was given up ends once nobody answers any more
            if thread.name.startswith("bridge-fetch"):
                thread.join()
        huggingface_hub.utils.close_session()
        HTTPFileSystem.clear_instance_cache()


@pytest.fixture
def repo(hub: Hub) -> Hub:
    """The same, with `org/name` in it."""
    hub.add("org/name", REPO)
    return hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where the Hub's cache is."""
    return tmp_path / "cache"
