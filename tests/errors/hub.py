"""The Hub: repos that may not be read, servers that fail, files that are not what the Hub says they are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

import bridge
from bridge.cli.beside import beside
from bridge.source import download
from tests.errors.situations import situation
from tests.hub.clients import talking
from tests.hub.repo import HEAD, HEAD_NBYTES, REPO, VISION, WEIGHTS, like, served
from tests.hub.server import Fault, Hub

Scene = Callable[[Hub, pytest.MonkeyPatch], Any]


def scene(name: str, *, until: str = "") -> Callable[[Scene], Scene]:
    """A situation with a Hub that has `org/name`."""

    def register(play: Scene) -> Scene:
        @situation(f"hub: {name}", until=until)
        def _(patch: pytest.MonkeyPatch) -> None:
            with talking(patch, Path("cache")) as hub:
                hub.add("org/name", REPO)
                play(hub, patch)

        return play

    return register


def _opening(name: str, fault: Fault | None = None, *, where: str = "", until: str = "", **options: Any) -> None:
    """A repo that cannot be opened: by `options`, or since requests fail whose path holds `where`."""

    @scene(name, until=until)
    def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
        hub.fault = lambda request: fault if where in request.path else None
        bridge.open("org/name", **options)


_opening("a token that it refuses", token="hf_bad")
_opening("a token that may not", Fault(status=403), token="hf_good")
_opening("a token that is not there", token=True)
_opening("no such revision", revision="v1")
_opening("nothing in the cache", local_files_only=True)
_opening("no such revision in the cache", local_files_only=True, revision="v1")
_opening("asked too often", Fault(status=429))
_opening("asked much too often", Fault(status=429, headers={"Retry-After": "300"}))
_opening("files asked for too often", Fault(status=429, headers={"Retry-After": "300"}), where=HEAD)
_opening("busy", Fault(status=503))
_opening("no page of it", Fault(status=418), until="cannot be read: ")
_opening("a file that leads in circles", Fault(status=302, headers={"Location": f"/org/name/{HEAD}"}), where=HEAD)
_opening("a file of another commit", Fault(patch={"X-Repo-Commit": "f" * 40}), where=HEAD)
_opening(
    "files that need access",
    Fault(status=403, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "Ask."}),
    where=HEAD,
)


@scene("no such repo")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    bridge.open("org/other")


@scene("a repo that needs access")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    hub.repos["org/name"].gated = True
    bridge.open("org/name")


@scene("a name that no repo can have", until="has an invalid name: ")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    bridge.open("org/na--me")


@scene("no network", until="cannot be read: ConnectError: ")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    bridge.open("org/name")


@scene("no commit")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(huggingface_hub.HfApi, "repo_info", lambda *_, **__: SimpleNamespace(sha=None, siblings=[]))
    bridge.open("org/name")


@scene("without its library", until="pip install huggingface_hub. (")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "huggingface_hub", None)
    bridge.open("org/name")


@scene("a URL with one revision, and another")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    bridge.open("hf://org/name@v1", revision="v2")


@scene("a file that it does not list")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    with bridge.open("org/name") as ckpt:
        ckpt.open_beside("vocab.txt")


@scene("a file beside the weights, by a URL")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    with bridge.open("hf://org/name") as ckpt:
        beside(ckpt, "config.json")


@scene("a small file offline")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    bridge.load("org/name", like("vision"), allow_unexpected=["**"])
    with bridge.open("org/name", local_files_only=True) as ckpt:
        ckpt.open_beside("config.json")


@scene("a small file that has left the cache")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    with bridge.open("org/name") as ckpt:
        ckpt.open_beside("config.json").close()
    with bridge.open("org/name", local_files_only=True) as ckpt:
        for path in Path("cache").rglob("config.json"):
            path.unlink()
        ckpt.open_beside("config.json")


@scene("a URL offline")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    bridge.open("org/name").close()
    bridge.open("hf://org/name", local_files_only=True)


@scene("weights offline")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    bridge.open("org/name").close()
    bridge.load("org/name", like(""), local_files_only=True)


@scene("a tensor offline")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    bridge.open("org/name").close()
    with bridge.open("org/name", local_files_only=True) as ckpt:
        ckpt["head.weight"]


@scene("a file of another length than it lists")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    at = hub.digest(WEIGHTS[HEAD])
    longer = f"bytes 0-{HEAD_NBYTES - 1}/{len(WEIGHTS[HEAD]) + 8}"
    hub.fault = lambda r: Fault(patch={"Content-Range": longer}) if at in r.path else None
    bridge.open("org/name")


@scene("another file than the one whose header was read")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    content = WEIGHTS[VISION]
    wrong = Fault(body=content[:20] + bytes([content[20] ^ 1]) + content[21:])
    hub.fault = lambda r: wrong if r.range is None and served(hub, r) == content else None
    bridge.load("org/name", like("vision"), allow_unexpected=["**"])


@scene("a file that does not come")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(download, "STALL_SECONDS", 0.3)
    patch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 60)
    hub.fault = lambda r: Fault(stall=20) if r.range is None and r.server == "cdn" else None
    bridge.load("org/name", like("vision"), allow_unexpected=["**"])


@scene("a file of the cache that is damaged, offline", until="It lies in the Hub's cache, ")
def _(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    bridge.load("org/name", like("vision"), allow_unexpected=["**"])
    blob = next(path.resolve() for path in Path("cache").rglob(VISION) if path.is_symlink())
    blob.write_bytes(blob.read_bytes()[:40])
    bridge.open("org/name", local_files_only=True)
