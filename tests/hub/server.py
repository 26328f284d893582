"""A server on 127.0.0.1 that speaks as the Hub does, a second one that stands for its CDN, and a plain web server.

They count what they serve, and fail as they are told: the clients that talk to them are the real ones.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.sending import Fault, Request, Sender

LARGE = (".bin", ".pth", ".safetensors")
"""Files that the Hub keeps elsewhere, and the CDN serves."""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """Files by commit, commits by revision. `gated`, `private`: who may read it needs the token `hf_good`."""

    commits: dict[str, Mapping[str, bytes]]
    revisions: dict[str, str]
    gated: bool = False
    private: bool = False
    sizes: bool = True  # whether the listing says how long files are


class Hub:
    """The servers. `fault` decides what goes wrong with a request; `web` are the files of the web server by path."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.web: dict[str, bytes] = {}
        self.pages = False  # whether the web server lists its folders
        self.requests: list[Request] = []
        self.fault: Callable[[Request], Fault | None] = lambda request: None
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.open = 0  # bodies that are being sent, and the most at once
        self.most_open = 0
        self._digests: dict[int, tuple[str, bytes]] = {}  # by id: the bytes are kept alive beside it
        self._servers = {name: _Server(self, name) for name in ("hub", "cdn", "web")}
        self.url = f"http://127.0.0.1:{self._servers['hub'].server_port}"
        self.web_url = f"http://127.0.0.1:{self._servers['web'].server_port}"
        self.cdn_url = f"http://localhost:{self._servers['cdn'].server_port}"

    def add(self, repo: str, files: Mapping[str, bytes], *, commit: str = COMMIT, revision: str = "main") -> Repo:
        """A repo, or another commit of it."""
        known = self.repos.setdefault(repo, Repo({}, {}))
        known.commits[commit] = files
        known.revisions[revision] = commit
        return known

    def blob(self, digest: str) -> bytes | None:
        """The file of that sha256, once its digest was asked for."""
        return next((content for found, content in self._digests.values() if found == digest), None)

    def digest(self, content: bytes) -> str:
        """The sha256 of a file, computed once."""
        if id(content) not in self._digests:
            self._digests[id(content)] = hashlib.sha256(content).hexdigest(), content
        return self._digests[id(content)][0]

    def weights(self) -> list[Request]:
        """The requests that were answered with bytes of a file of weights."""
        return [r for r in self.requests if r.nbytes and r.server == "cdn"]

    def nbytes(self) -> int:
        """Bytes of weights that were sent."""
        return sum(request.nbytes for request in self.weights())

    def close(self) -> None:
        self.closing.set()
        for server in self._servers.values():
            server.close()


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub as long as the block runs."""
    hub = Hub()
    try:
        yield hub
    finally:
        hub.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them
    request_queue_size = 64

    def __init__(self, hub: Hub, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub, self.name = hub, name
        self.connections: set[socket.socket] = set()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are no news."""

    def close(self) -> None:
        """Leave nobody and nothing behind."""
        if self.thread.is_alive():
            self.shutdown()
            self.thread.join()
            for connection in [*self.connections]:
                with suppress(OSError):  # the client has left already
                    connection.shutdown(socket.SHUT_RDWR)
            self.server_close()


class _Handler(Sender):
    server: _Server

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        wanted = None if found is None else (int(found[1]), int(found[2] or 1 << 60) + 1)
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.asked = Request(self.server.name, self.command, self.path, wanted, headers)
        self.server.hub.requests.append(self.asked)
        self.failing = self.server.hub.fault(self.asked) or Fault()
        if self.failing.status is not None:
            self.error(self.failing.status, **self.failing.headers)
        elif self.server.name == "cdn":
            self.cdn()
        elif self.server.name == "web":
            self.web()
        elif self.path.startswith("/api/models/"):
            self.api()
        else:
            self.resolve()

    # ---- what the Hub answers

    def api(self) -> None:
        path = unquote(urlsplit(self.path).path.removeprefix("/api/models/"))
        name, _, revision = path.partition("/revision/")
        repo = self.allowed(name)
        if repo is None:
            return
        commit = repo.revisions.get(revision or "main", revision)
        if commit not in repo.commits:
            self.error(404, X_Error_Code="RevisionNotFound")
            return
        blobs = repo.sizes and "blobs" in parse_qs(urlsplit(self.path).query)
        siblings = [self.sibling(n, c, blobs=blobs) for n, c in repo.commits[commit].items()]
        document = {"_id": "1", "id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []}
        self.send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def sibling(self, name: str, content: bytes, *, blobs: bool) -> dict[str, Any]:
        if not blobs:
            return {"rfilename": name}
        lfs = {"sha256": self.server.hub.digest(content), "size": len(content), "pointerSize": 134}
        return {"rfilename": name, "size": len(content)} | ({"lfs": lfs} if name.endswith(LARGE) else {})

    def allowed(self, name: str) -> Repo | None:
        """The repo, if there is one that this client may read; else the answer is sent."""
        repo = self.server.hub.repos.get(name)
        token = self.headers.get("Authorization")
        if token is not None and token != "Bearer hf_good":
            self.error(401, X_Error_Message="Invalid credentials in Authorization header")
        elif repo is None or (repo.private and token is None):
            self.error(401 if token is None else 404, X_Error_Code="RepoNotFound")
        elif repo.gated and token is None:
            self.error(401, X_Error_Code="GatedRepo", X_Error_Message=f"Access to model {name} is restricted.")
        else:
            return repo
        return None

    def resolve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        found = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path, re.DOTALL)
        if found is None:
            self.error(404)
            return
        repo = self.allowed(found[1])
        if repo is None:
            return
        commit = repo.revisions.get(found[2], found[2])
        if commit not in repo.commits:
            self.error(404, X_Error_Code="RevisionNotFound")
            return
        content = repo.commits[commit].get(found[3])
        if content is None:
            self.error(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        digest = self.server.hub.digest(content)
        if found[3].endswith(LARGE):
            headers = {
                "X-Repo-Commit": commit,
                "X-Linked-Size": str(len(content)),
                "X-Linked-Etag": f'"{digest}"',
                "ETag": '"pointer"',
                "Location": f"{self.server.hub.cdn_url}/blob/{digest}?signature=s3cret",
            }
            self.send(302, b"Found. Redirecting", headers)
        else:
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self.file(content, {"X-Repo-Commit": commit, "ETag": f'"{git}"'})

    def cdn(self) -> None:
        content = self.server.hub.blob(urlsplit(self.path).path.rpartition("/")[2])
        if content is None:
            self.error(403)
        else:
            self.file(content, {"ETag": '"cdn"'})

    def web(self) -> None:
        path, files = unquote(urlsplit(self.path).path), self.server.hub.web
        if path in files:
            self.file(files[path], {"ETag": f'"{self.server.hub.digest(files[path])[:8]}"'})
        elif path.endswith("/") and self.server.hub.pages:
            names = sorted({name[len(path) :].partition("/")[0] for name in files if name.startswith(path)})
            links = "".join(f'<li><a href="{name}">{name}</a></li>' for name in ("../", *names))
            self.send(200, f"<html><ul>{links}</ul></html>".encode(), {"Content-Type": "text/html; charset=utf-8"})
        else:
            self.error(404)
