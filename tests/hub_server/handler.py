"""The sockets: read a request, find who answers it, and send or cut the answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.hub_server import access, cards, commits, files, info, repositories, spaces
from tests.hub_server.messages import Answer, Refusal, Request, refuse
from tests.hub_server.objects import Objects
from tests.hub_server.routes import find_answerer
from tests.hub_server.state import LocalHub

ROUTES = [
    route
    for module in (access, cards, commits, files, info, repositories, spaces)
    for route in module.ROUTES
]


@contextmanager
def serve(folder: Path) -> Iterator[LocalHub]:
    """Answer until the context ends; what is pushed is kept in this folder."""
    hub = LocalHub(Objects(folder))

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"
    is_silenced = False

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        if self._is_cut():
            return
        try:
            body = self._read_body() if self.command in ("POST", "PUT") else b""
        except ConnectionAbortedError:
            self.close_connection = True
            self.connection.close()
            return
        self._send(self._answer(Request(self.hub, self.command, self.path, self.headers, body)))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _answer(self, request: Request) -> Answer:
        try:
            if self.hub.failing:
                raise refuse(self.hub.failing)
            answerer = find_answerer(ROUTES, request)
            return answerer() if answerer else Answer(404, {})
        except Refusal as refusal:
            return refusal.answer

    def _is_cut(self) -> bool:
        """Count a request; end its connection where no more are let through."""
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
        """Raises ConnectionAbortedError where the connection is to be cut within these bytes."""
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
        self.wfile.write(body[:upto])
        if upto is not None and upto < len(body):
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
