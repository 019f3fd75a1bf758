"""The HTTP server: read a request, route it, and send or cut off the answer."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.hub_server import (
    access,
    cards,
    collections,
    commits,
    files,
    info,
    repositories,
    spaces,
    storage,
    xet,
)
from tests.support.hub_server.messages import Answer, Refusal, Request, refuse
from tests.support.hub_server.objects import Objects
from tests.support.hub_server.routes import Route, find_answerer
from tests.support.hub_server.state import LocalHub
from tests.support.hub_server.xet_store import XetStore

HUB_ROUTES = [
    route
    for module in (access, cards, collections, commits, files, info, repositories, spaces, xet)
    for route in module.ROUTES
]
# What no client depends on, and when it comes depends on threads; and what this server asks itself.
UNCOUNTED = ("/v1/telemetry", "/api/agent-harnesses", "/own/")
PIECES_A_SECOND = 20  # of a slow answer


@contextmanager
def serve(folder: Path) -> Iterator[LocalHub]:
    """Serve a Hub until the context ends; pushed files are stored in this folder."""
    for name in ("objects", "xet"):
        (folder / name).mkdir()
    objects = Objects(folder / "objects")
    hub = LocalHub(objects, XetStore(objects, folder / "xet"))
    with ExitStack() as stack:
        hub.url = f"http://127.0.0.1:{stack.enter_context(_listen(_HubHandler, hub))}"
        hub.storage_url = f"http://localhost:{stack.enter_context(_listen(_StorageHandler, hub))}"
        stack.callback(hub.ended.set)
        yield hub


@contextmanager
def _listen(handler: type[_Handler], hub: LocalHub) -> Iterator[int]:
    """Serve at a port of this machine until the context ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    routes: list[Route]
    protocol_version = "HTTP/1.1"
    is_silenced = False

    @property
    def is_hanging(self) -> bool:
        paths = self.hub.hanging_paths
        return self.hub.hanging or bool(paths and re.fullmatch(paths, self.path))

    @property
    def failing(self) -> int | None:
        return self.hub.failing

    @property
    def bytes_a_second(self) -> float:
        return math.inf

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        if self._is_cut():
            return
        while self.is_hanging:
            if self.hub.ended.wait(0.05):
                self.close_connection = True
                return
        try:
            body = self._read_body() if self.command in ("POST", "PUT") else b""
        except ConnectionAbortedError:
            self.close_connection = True
            self.connection.close()
            return
        request = Request(self.hub, self.command, self.path, self.headers, body)
        try:
            self._send(self._answer(request))
        except (BrokenPipeError, ConnectionResetError):  # the client went away
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _answer(self, request: Request) -> Answer:
        try:
            if self.failing:
                raise refuse(self.failing)
            answerer = find_answerer(self.routes, request)
            return answerer() if answerer else Answer(404, {})
        except Refusal as refusal:
            return refusal.answer

    def _is_cut(self) -> bool:
        """Count a request; close its connection if the limit of requests is reached."""
        if self.path.startswith(UNCOUNTED):
            return False
        with self.hub.counting:
            self.hub.requests += 1
            if self.hub.requests_left is None:
                return False
            self.hub.requests_left -= 1
            if self.hub.requests_left >= 0:
                return False
        self.close_connection = True
        if self.hub.cut == "after":
            self.is_silenced = True
            return False
        self.connection.close()
        return True

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self._receive(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self._receive(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _receive(self, size: int) -> bytes:
        """Write bytes. Raises ConnectionAbortedError if the connection is to be cut within them."""
        with self.hub.counting:  # files arrive at the same time
            left = self.hub.upload_left
            read = size if left is None else min(size, left)
            self.hub.upload_left = left if left is None else left - read
            self.hub.received += read
        body = self.rfile.read(read)
        if left is not None and read == left:
            raise ConnectionAbortedError
        return body

    def _send(self, answer: Answer) -> None:
        if self.is_silenced:
            self.connection.close()
            return
        body, upto = answer.body, answer.upto
        self.send_response(answer.status)
        for name, value in ({"Content-Type": "application/json"} | answer.headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self._write(body[:upto])
        if upto is not None and upto < len(body):
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    def _write(self, body: bytes) -> None:
        if math.isinf(self.bytes_a_second):
            self.wfile.write(body)
            return
        size = math.ceil(self.bytes_a_second / PIECES_A_SECOND)
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            self.wfile.flush()
            time.sleep(1 / PIECES_A_SECOND)


class _HubHandler(_Handler):
    routes = HUB_ROUTES


class _StorageHandler(_Handler):
    routes = storage.ROUTES

    @property
    def is_hanging(self) -> bool:
        return self.hub.storage.hanging

    @property
    def failing(self) -> int | None:
        return self.hub.storage.status

    @property
    def bytes_a_second(self) -> float:
        return self.hub.storage.bytes_a_second
