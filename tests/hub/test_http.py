"""`https://`: fsspec's own session against web servers of every kind."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save

import bridge
from bridge.source import http as ours
from tests.errors.promised import text_of
from tests.hub.repo import HEAD, HEAD_NBYTES, REPO, VISION, WEIGHTS, like, once, same
from tests.hub.server import Fault, Hub

LATE = {"first": np.zeros(10_000, np.float32), "last": np.arange(5, dtype=np.float32)}


@pytest.fixture
def web(hub: Hub) -> Hub:
    """A server with a folder of several files with an index, and one file beside it."""
    hub.web = {f"/repo/{name}": content for name, content in REPO.items()} | {"/late.safetensors": save(LATE)}
    return hub


def refusal(url: str, **options: Any) -> str:
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.load(url, None, ["last -> last"], allow_unexpected=["**"], **options)
    return str(caught.value)


def last(url: str) -> bool:
    return bridge.load(url, None, ["last -> last"], allow_unexpected=["**"])["last"].tolist() == [0, 1, 2, 3, 4]


def test_a_folder_that_lists_nothing(web: Hub):
    model = bridge.load(f"{web.web_url}/repo", like("vision"), allow_unexpected=["**"])
    assert same(model)
    sent = {name: sum(r.nbytes for r in web.requests if r.path == f"/repo/{name}") for name in REPO}
    assert sent[VISION] == len(WEIGHTS[VISION])
    assert sent[HEAD] == HEAD_NBYTES
    assert {r.method for r in web.requests} == {"GET"}
    assert all(r.range is not None for r in web.requests if r.path.endswith((".safetensors", ".json")))


def test_a_folder_with_a_page(web: Hub):
    web.pages = True
    for url in (f"{web.web_url}/repo", f"{web.web_url}/repo/"):
        with bridge.open(url) as ckpt:
            assert ckpt.source == f"{web.web_url}/repo/"
            assert ckpt.files == tuple(WEIGHTS)
    web.web["/other/one.safetensors"] = save({"a": np.zeros(1)})
    assert list(bridge.open(f"{web.web_url}/other")) == ["a"]
    web.web["/other/two.safetensors"] = save({"a": np.zeros(1)})
    with pytest.raises(
        bridge.CheckpointError, match=r"holds 2 safetensors files and no index: 'one\.safetensors', 'two"
    ):
        bridge.open(f"{web.web_url}/other")


def test_a_subfolder_and_a_variant(web: Hub):
    web.web["/x/sub/model.fp16.safetensors"] = save(LATE)
    with bridge.open(f"{web.web_url}/x", subfolder="sub", variant="fp16") as ckpt:
        assert ckpt.files == ("model.fp16.safetensors",)


def test_a_signed_url_is_used_and_not_shown(web: Hub):
    url = f"{web.web_url}/late.safetensors?X-Signature=s3cret%2F1&x=a+b"
    assert last(url)
    assert {r.path for r in web.requests} == {"/late.safetensors?X-Signature=s3cret/1&x=a+b"}
    with bridge.open(url) as ckpt:
        assert ckpt.source == f"{web.web_url}/late.safetensors"
    web.fault = lambda r: Fault(status=403)
    message = refusal(url.replace("//", "//user:passw0rd@", 1))
    assert message == text_of("https: without credentials").replace(
        "'http://127.0.0.1:8000/x.safetensors'", f"'{web.web_url}/late.safetensors'"
    )


def test_what_is_not_there(web: Hub):
    assert refusal(f"{web.web_url}/z.safetensors") == text_of("https: an answer that says nothing is there").replace(
        "'https://example.com/x.safetensors'", f"'{web.web_url}/z.safetensors'"
    )
    assert refusal(f"{web.web_url}/nowhere") == (text_of("folder: empty").replace("'./'", f"'{web.web_url}/nowhere/'"))


def test_what_is_no_url(web: Hub):
    assert refusal("http:///x.safetensors") == text_of("https: no URL")


def test_a_server_that_leads_in_circles(web: Hub):
    url = f"{web.web_url}/late.safetensors"
    web.fault = lambda r: Fault(status=302, headers={"Location": url})
    assert refusal(url) == text_of("https: in circles").replace("'http://127.0.0.1:8000/x.safetensors'", f"'{url}'")


def test_nobody_answers():
    url = "http://127.0.0.1:9/x.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bridge.source.retry.WAITS", (0.0,))
        message = refusal(url)
    assert message.startswith(f"'{url}' cannot be opened: ClientConnectorError: Cannot connect to host 127.0.0.1:9")


def test_a_real_server_that_ignores_ranges(tmp_path: Path):
    (tmp_path / "late.safetensors").write_bytes(save(LATE))
    (tmp_path / "small.safetensors").write_bytes(save({"last": LATE["last"]}))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        assert refusal(f"{url}/late.safetensors") == (
            text_of("https: an answer that is whole").replace(
                "'https://example.com/x.safetensors'", f"'{url}/late.safetensors'"
            )
        )
        assert last(f"{url}/small.safetensors")  # what is asked for first is all of it
        with pytest.raises(bridge.CheckpointError, match="holds 2 safetensors files and no index"):
            bridge.open(url)  # by its page
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_begins_to_ignore_ranges(web: Hub):
    web.fault = lambda r: Fault(whole=True) if r.range and r.range[0] else None
    assert refusal(f"{web.web_url}/late.safetensors").endswith(
        text_of("https: an answer that is whole").replace(
            "'https://example.com/x.safetensors'", f"'{web.web_url}/late.safetensors'"
        )
    )


def test_a_compressed_answer(web: Hub):
    web.fault = lambda r: Fault(whole=True, patch={"Content-Encoding": "gzip"})
    url = f"{web.web_url}/late.safetensors"
    assert refusal(url) == (
        text_of("https: an answer that is compressed").replace("'https://example.com/x.safetensors'", f"'{url}'")
    )
    assert {r.headers["accept-encoding"] for r in web.requests} == {"identity"}


def test_a_file_that_is_replaced_under_a_load(web: Hub):
    url = f"{web.web_url}/late.safetensors"
    with bridge.open(url) as ckpt:
        web.web["/late.safetensors"] = save({**LATE, "last": LATE["last"] + 1})
        with pytest.raises(bridge.CheckpointError) as caught:
            ckpt["last"]
        assert str(caught.value) == (
            f"key 'last' in '{url}' cannot be read: '{url}' has changed since it was opened: its server has another one "
            "of the same length. Open the checkpoint again."
        )
        web.web["/late.safetensors"] = save(LATE)[:-4]
        with pytest.raises(bridge.CheckpointError, match="has changed since it was opened: it held"):
            ckpt["last"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(status: int, web: Hub):
    for where in (lambda r: True, lambda r: r.range and r.range[0]):
        web.fault = once(Fault(status=status, headers={"Retry-After": "2"}), where, times=2)
        assert last(f"{web.web_url}/late.safetensors")


def test_a_limit_that_is_too_long_to_wait_for(web: Hub):
    web.fault = lambda r: Fault(status=429, headers={"Retry-After": "86400"})
    url = f"{web.web_url}/late.safetensors"
    assert refusal(url) == (
        text_of("https: asked much too often")
        .replace("'http://127.0.0.1:8000/x.safetensors'", f"'{url}'")
        .replace("300 s", "86400 s")
    )
    assert len(web.requests) == 1


def test_a_lost_connection(web: Hub):
    for reset in (False, True):
        web.fault = once(Fault(after=7, reset=reset), lambda r: bool(r.range and r.range[0]), times=2)
        assert last(f"{web.web_url}/late.safetensors")
    web.fault = lambda r: Fault(after=7)
    message = refusal(f"{web.web_url}/late.safetensors")
    assert message.startswith(
        text_of("https: a lost connection").replace(
            "'http://127.0.0.1:8000/x.safetensors'", f"'{web.web_url}/late.safetensors'"
        )
    )


def test_a_server_that_falls_silent(web: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ours, "READ_SECONDS", 0.1)
    web.fault = lambda r: Fault(stall=20) if r.range and r.range[0] else None
    url = f"{web.web_url}/late.safetensors"
    message = refusal(url)
    assert f"'{url}' cannot be read at byte " in message
    assert message.endswith(": the server was silent for too long. Check the network and try again.")


def test_a_page_instead_of_a_file(web: Hub):
    web.web["/page.safetensors"] = b"<!doctype html><html>Log in first</html>"
    assert "is a web page, not safetensors" in refusal(f"{web.web_url}/page.safetensors")


def test_an_empty_file(web: Hub):
    web.web["/none.safetensors"] = b""
    assert "holds 0 bytes, a safetensors file at least 8" in refusal(f"{web.web_url}/none.safetensors")


def test_a_sidecar(web: Hub):
    import hashlib

    url = f"{web.web_url}/late.safetensors"
    with pytest.raises(bridge.CheckpointError, match="has nothing to be checked against"):
        bridge.open(url, verify=True)
    web.web["/late.safetensors.sha256"] = hashlib.sha256(save(LATE)).hexdigest().encode()
    bridge.open(url, verify=True).close()
    web.web["/late.safetensors.sha256"] = b"0" * 64
    with pytest.raises(bridge.CheckpointError, match="is not the file it should be"):
        bridge.open(url, verify=True)


def test_an_index_over_http_is_read_whole(web: Hub):
    many = {f"a.key.with.a.long.name.{n}": np.zeros(1, np.float32) for n in range(2000)}
    index = {"weight_map": dict.fromkeys(many, "x.safetensors")}
    web.web |= {"/m/x.safetensors": save(many), "/m/model.safetensors.index.json": json.dumps(index).encode()}
    assert jax.tree.leaves(bridge.load(f"{web.web_url}/m", None, dtype="checkpoint", rules=["** -> **"]))
