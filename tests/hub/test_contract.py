"""Files behind the Hub and behind web servers do what every file does."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from bridge.source import ByteSource
from bridge.source.http import HttpFile
from bridge.source.hub import find_repo
from bridge.source.hubfolder import HubFile, StreamedHubFile
from bridge.source.resolve import HubOptions
from tests.hub.server import Hub
from tests.source.contract import ByteSourceContract


class Served(ByteSourceContract):
    hub: Hub

    @pytest.fixture(autouse=True)
    def served(self, hub: Hub):
        self.hub = hub


class TestStreamedHubFile(Served):
    def make(self, content: bytes, folder: Path) -> ByteSource:
        self.hub.add("org/name", {"x.safetensors": content})
        return StreamedHubFile(find_repo("org/name", HubOptions(), subject="it"), "x.safetensors", name="it")


class TestHubFile(Served):
    def make(self, content: bytes, folder: Path) -> ByteSource:
        self.hub.add("org/name", {"x.safetensors": content})
        return HubFile(find_repo("org/name", HubOptions(), subject="it"), "x.safetensors", name="it")


class TestHttpFile(Served):
    def make(self, content: bytes, folder: Path) -> ByteSource:
        self.hub.web["/x.safetensors"] = content
        return HttpFile(fsspec.filesystem("http"), f"{self.hub.web_url}/x.safetensors", name="it")
