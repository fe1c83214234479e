"""A server of files on the loopback interface, which can break off, refuse, delay, and send parts of files."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import re
import threading
import time


@dataclasses.dataclass
class Behavior:
    """What a server does.

    Attributes:
        files: contents by path.
        ranges: whether it sends parts of files.
        tagged: whether it sends the ``ETag``.
        cuts: for each of the next requests, after how many bytes the connection ends; None for never.
        refusals: status codes that answer the next requests.
        pause: pause between two pieces of 1000 bytes, seconds.
        headers: further headers of all answers.
        reasons: what the hub says in ``X-Error-Code`` about an absent path, by its beginning.
        asked: method, path, and number of bytes sent, of each request that was answered.
    """

    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    ranges: bool = True
    tagged: bool = True
    cuts: list[int | None] = dataclasses.field(default_factory=list)
    refusals: list[int] = dataclasses.field(default_factory=list)
    pause: float = 0.0
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)
    asked: list[tuple[str, str, int]] = dataclasses.field(default_factory=list)
    address: str = ""

    @property
    def sent(self) -> list[int]:
        """The bytes of each answer to GET that had a content."""
        return [size for _, _, size in self.asked if size]


class _Handler(http.server.BaseHTTPRequestHandler):
    behavior: Behavior

    def do_HEAD(self):  # noqa: N802
        self._answer()

    def do_GET(self):  # noqa: N802
        self._answer()

    def _answer(self):
        own = self.behavior
        content = own.files.get(self.path.partition("?")[0])
        status = own.refusals.pop(0) if own.refusals else 200 if content is not None else 404
        if status != 200:
            own.asked.append((self.command, self.path, 0))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            for start, reason in own.reasons.items():
                if status == 404 and self.path.startswith(start):
                    self.send_header("X-Error-Code", reason)
            self.end_headers()
            return
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if own.ranges else None
        if asked and self.headers.get("If-Range", tag) != tag:
            asked = None
        start = int(asked[1]) if asked else 0
        if asked and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if own.tagged:
            self.send_header("ETag", tag)
        for name, value in own.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self._send(content[start:] if self.command == "GET" else b"")

    def _send(self, content):
        own = self.behavior
        content = content[: own.cuts.pop(0) if own.cuts and self.command == "GET" else None]
        own.asked.append((self.command, self.path, len(content)))
        with contextlib.suppress(ConnectionError):  # a client may have given up
            for first in range(0, len(content), 1000):
                self.wfile.write(content[first : first + 1000])
                time.sleep(own.pause)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(**settings):
    """Runs a server inside a ``with`` block and yields its ``Behavior``."""
    behavior = Behavior(**settings)
    handler = type("Handler", (_Handler,), {"behavior": behavior})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        behavior.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield behavior
        finally:
            server.shutdown()
            thread.join()
