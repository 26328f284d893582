"""The real clients, made to talk to servers of our own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.file_download
import huggingface_hub.utils._http
import pytest
from fsspec.implementations.http import HTTPFileSystem
from huggingface_hub import constants

from bridge.source import retry
from tests.hub.server import Hub, serving


@contextmanager
def talking(patch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """A Hub that huggingface_hub takes for the real one, with a cache of its own; what waits, waits less."""
    quick = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: time.sleep(min(seconds, 0.01))})
    with serving() as hub:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 2)
        patch.setattr(huggingface_hub.file_download, "time", quick)
        patch.setattr(huggingface_hub.utils._http, "time", quick)
        patch.setattr(retry, "time", quick)
        try:
            yield hub
        finally:
            hub.close()
            for thread in threading.enumerate():  # one that was given up ends once nobody answers any more
                if thread.name.startswith("bridge-fetch"):
                    thread.join()
            huggingface_hub.utils.close_session()
            HTTPFileSystem.clear_instance_cache()
