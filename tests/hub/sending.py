"""How the servers of these tests answer: files by ranges, and the ways in which that can fail."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any


@dataclass
class Request:
    """One request as it came, and what was answered."""

    server: str  # "hub", "cdn" or "web"
    method: str
    path: str
    range: tuple[int, int] | None  # the bytes asked for, half open
    headers: Mapping[str, str]
    status: int = 0
    nbytes: int = 0  # of the body, as far as it was to be sent

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization")


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    `status`, with `headers`: answered instead. `after`: the connection ends after that many bytes of the body, with
    `reset` by a reset. `stall`: seconds of silence before the body. `whole`: Range is ignored. `body`: sent instead,
    under the headers of the true one. `patch`: headers that replace the true ones, None takes one away.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int | None = None
    reset: bool = False
    stall: float = 0.0
    whole: bool = False
    body: bytes | None = None
    patch: Mapping[str, str | None] = field(default_factory=dict)


class Sender(BaseHTTPRequestHandler):
    """Sends what it is told to, or what the fault says. `server.hub` counts."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits for the client to acknowledge the headers
    server: Any
    asked: Request
    failing: Fault

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def file(self, content: bytes, headers: Mapping[str, str]) -> None:
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
        wanted = self.asked.range
        if wanted is None or self.failing.whole:
            self.send(200, content, headers)
        elif wanted[0] >= len(content):
            self.error(416, Content_Range=f"bytes */{len(content)}")
        else:
            part = memoryview(content)[wanted[0] : wanted[1]]
            stop = wanted[0] + len(part)
            self.send(206, part, {**headers, "Content-Range": f"bytes {wanted[0]}-{stop - 1}/{len(content)}"})

    def error(self, status: int, **headers: str) -> None:
        self.send(status, b"", {name.replace("_", "-"): value for name, value in headers.items()})

    def send(self, status: int, body: bytes | memoryview, headers: Mapping[str, str]) -> None:
        fault, hub = self.failing, self.server.hub
        self.asked.status = status
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers, **fault.patch}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = body if fault.body is None else fault.body
        with hub.lock:
            hub.open += 1
            hub.most_open = max(hub.most_open, hub.open)
        try:
            if fault.stall and hub.closing.wait(fault.stall):
                return
            self.body(body if fault.after is None else body[: fault.after])
        finally:
            with hub.lock:
                hub.open -= 1
        if fault.after is not None:
            self.close_connection = True
            if fault.reset:
                time.sleep(0.05)  # what was sent is to arrive first
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.connection.close()

    def body(self, body: bytes | memoryview) -> None:
        view = memoryview(body)
        for start in range(0, len(view), 1 << 20):
            part = view[start : start + (1 << 20)]
            # Counted first: the client may be through before this thread goes on.
            self.asked.nbytes += len(part)
            self.wfile.write(part)
