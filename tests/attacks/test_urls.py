"""A name in an index is the name of a file below its folder, to the letter, whatever kind of store that is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import bridge
from tests.craft import checkpoint
from tests.hub.clients import talking
from tests.hub.server import Hub

GOOD, EVIL = np.arange(3, dtype=np.float32), np.full(3, 666, np.float32)
INDEX = "model.safetensors.index.json"
NAMES = [
    "%2e%2e/secret.safetensors",
    "%2e%2e%2fsecret.safetensors",
    "sub/%2E%2E/%2e./secret.safetensors",
    "a#b.safetensors",
    "a?b.safetensors",
    "a?x=.safetensors",
    "%41.safetensors",
    "%2541.safetensors",
    "a\rb.safetensors",
    "a\r\nHost: elsewhere\r\n\r\n.safetensors",
    "a\tb.safetensors",
    " a .safetensors",
    "a;b.safetensors",
    "@elsewhere.safetensors",
    "ab::c.safetensors",
    "~root.safetensors",
    "a+b&c=d.safetensors",
    "[a]{b}*.safetensors",
    "café-模型.safetensors",
    "a%00b.safetensors",
    "…/a.safetensors",
]
DECOYS = ["secret.safetensors", "a", "a.safetensors", "A.safetensors", "b.safetensors", "%41.safetensors"]


def files(name: str) -> dict[str, bytes]:
    """A folder whose index names one file; what a client that bends the name would read is poison."""
    poison = {f"{folder}{decoy}": checkpoint({"k": EVIL}) for folder in ("", "repo/") for decoy in DECOYS}
    index = json.dumps({"weight_map": {"k": name}}).encode()
    return poison | {f"repo/{INDEX}": index, f"repo/{name}": checkpoint({"k": GOOD})}


@contextmanager
def on_disk(content: dict[str, bytes], tmp_path: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, raw in content.items():
        path = tmp_path / "disk" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    yield str(tmp_path / "disk" / "repo")


@contextmanager
def as_file_url(content: dict[str, bytes], tmp_path: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    with on_disk(content, tmp_path, patch) as folder:
        yield f"file://{folder}"


@contextmanager
def in_memory(content: dict[str, bytes], tmp_path: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    for name, raw in content.items():
        fs.pipe_file(f"/attacks/{name}", raw)
    try:
        yield "memory://attacks/repo"
    finally:
        fs.rm("/attacks", recursive=True)


@contextmanager
def on_the_web(content: dict[str, bytes], tmp_path: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    with talking(patch, tmp_path / "cache") as hub:
        hub.web = {f"/{name}": raw for name, raw in content.items()}
        yield f"{hub.web_url}/repo"


@contextmanager
def on_the_hub(content: dict[str, bytes], tmp_path: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    with talking(patch, tmp_path / "cache") as hub:
        hub.add("org/name", {name.removeprefix("repo/"): raw for name, raw in content.items()})
        yield "hf://org/name"


Store = Callable[..., "contextmanager[str]"]
STORES: list[Store] = [on_disk, as_file_url, in_memory, on_the_web, on_the_hub]


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.__name__)
@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_name_is_taken_to_the_letter(name: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with store(files(name), tmp_path, monkeypatch) as source, bridge.open(source) as ckpt:
        assert ckpt.files == (name,)
        np.testing.assert_array_equal(ckpt["k"], GOOD)


@pytest.mark.parametrize("name", [name for name in NAMES if not set(name).isdisjoint("%?#:[\r\t…")], ids=repr)
def test_a_store_that_may_bend_a_name_is_not_asked(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nobody knows whether another store makes a URL of the name, as GitHub's does, or a cache hands it on to one."""
    monkeypatch.setattr(MemoryFileSystem, "protocol", "other")
    with in_memory(files(name), tmp_path, monkeypatch) as source, pytest.raises(bridge.CheckpointError) as caught:
        bridge.open(source)
    assert "in its name, which its store may decode. Fetch it to the disk" in str(caught.value)


def test_what_the_user_spells_is_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Escapes in a URL of one's own mean what they mean in URLs; an escaped slash does not divide."""
    with talking(monkeypatch, tmp_path / "cache") as hub:
        hub.web = {"/my model.safetensors": checkpoint({"k": GOOD}), "/o/sub/x.safetensors": checkpoint({"k": GOOD})}
        for url in ("my%20model.safetensors", "my model.safetensors", "o/sub%2Fx.safetensors?alt=media"):
            with bridge.open(f"{hub.web_url}/{url}") as ckpt:
                np.testing.assert_array_equal(ckpt["k"], GOOD)
        assert hub.requests[-1].path == "/o/sub%2Fx.safetensors?alt=media"


def test_a_subfolder_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with talking(monkeypatch, tmp_path / "cache") as hub:
        hub.web = {"/r/a#b?c/model.safetensors": checkpoint({"k": GOOD})}
        with bridge.open(f"{hub.web_url}/r", subfolder="a#b?c") as ckpt:
            np.testing.assert_array_equal(ckpt["k"], GOOD)
        assert {request.path for request in hub.requests} >= {f"/r/{quote('a#b?c')}/model.safetensors"}


LINKS = [
    b"".join([b'<a href="http:', b'//[">x</a>']),
    b'<a href="//[::1/x">x</a>',
    b"<a href='x.safetensors'>y",
    b"<![foo[<a href=x.safetensors",
    b"<!x <a\nhref = x.safetensors >",
    b"<a " * 300_000,
    b"<a href=" * 300_000,
    b"<a href='x" * 200_000,
    b"\xff<a href=%ff%00.safetensors>",
]


@pytest.mark.parametrize("page", LINKS, ids=lambda page: repr(page[:24]))
def test_a_page_of_links_that_are_none(page: bytes, hub_of_pages: Hub):
    hub_of_pages.web["/r/index"] = page
    with suppress(bridge.CheckpointError):  # any other error is a finding, and so is a page that takes long
        bridge.open(f"{hub_of_pages.web_url}/r").close()


@pytest.fixture
def hub_of_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A web server whose folder answers with the page `/r/index`."""
    from tests.hub.server import Fault

    with talking(monkeypatch, tmp_path / "cache") as hub:
        hub.pages = True
        hub.web = {"/r/x.safetensors": checkpoint({"k": GOOD})}
        plain = {"Content-Length": None, "Connection": "close"}
        hub.fault = lambda r: Fault(body=hub.web["/r/index"], patch=plain) if r.path == "/r/" else None
        yield hub


HTTP, HTTPS = ("http:" + "//", "https:" + "//")
BAD = [
    f"{HTTP}[::1/x.safetensors",
    f"{HTTP}[zz]/x.safetensors",
    f"{HTTP}h:99999/x.safetensors",
    f"{HTTP}h:ab/x.safetensors",
    f"{HTTP}user:passw0rd@[::1/x.safetensors?token=passw0rd",
    f"{HTTP}℀.example/x.safetensors",
    f"{HTTPS}/x.safetensors",
    f"{HTTPS}",
    f"{HTTPS}#",
    "s3://bucket]",
    "s3://[bucket",
    "s3://",
    "memory://[",
    "hf://[",
    "hf://a/b@[/x",
    "://",
    "a://[b]:c",
    "file://\0",
    "file://[",
    "gs://b:99999/x",
]


@pytest.mark.parametrize("url", BAD)
def test_what_is_no_url_is_said_so(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bridge.source.retry.WAITS", ())
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.open(url)
    assert "passw0rd" not in str(caught.value)
    assert str(caught.value).isprintable()
