"""Connections that hold the server, tried with plain sockets under both of uvicorn's protocols."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from gradio.http_server import Server

import earthvlm.ui.security.connections as connections
from earthvlm.ui.security.checked_page import CheckedPage
from earthvlm.ui.security.connections import BoundedConnection, bound_connections
from tests.support.ports import free_port

PATIENCE_SECONDS = 30.0
HEAD = b"Host: localhost\r\n"


class Endless:
    """An application whose replies never end; `left` is set once one was left."""

    def __init__(self) -> None:
        self.left = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        leaving = asyncio.create_task(receive())
        while not leaving.done():
            await send({"type": "http.response.body", "body": bytes(2**16), "more_body": True})
            await asyncio.sleep(0)
        self.left.set()


@pytest.fixture(params=["h11", "httptools"])
def endless(request: pytest.FixtureRequest) -> Iterator[tuple[Endless, int]]:
    """The application and the port it is served at."""
    if request.param == "httptools":
        pytest.importorskip("httptools")
    app = Endless()
    port = free_port()
    server = Server(uvicorn.Config(app, port=port, http=request.param, log_level="critical"))
    server.run_in_thread()
    bound_connections(server)
    yield app, port
    server.force_exit = True
    server.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


def is_broken_off(connection: socket.socket, data: bytes = b"") -> bool:
    """Send a byte of `data` now and then, until the server breaks the connection off."""
    connection.settimeout(0.05)
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        try:
            connection.sendall(data[:1])
            if not connection.recv(2**16):
                return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


@pytest.mark.parametrize("data", [b"", b"x"], ids=["silent", "a byte at a time"])
def test_unfinished_heads_are_closed(endless, monkeypatch, data: bytes):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    with connect(endless[1]) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + HEAD + b"X: ")
        assert is_broken_off(connection, data)


def test_idle_connections_are_closed(endless, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    with connect(endless[1]) as connection:
        assert is_broken_off(connection)


def test_idle_connections_outlast_those_that_clients_keep():
    config = uvicorn.Config(Endless(), log_level="critical")
    config.load()
    bound_connections(uvicorn.Server(config))
    assert config.timeout_keep_alive > httpx.Limits().keepalive_expiry


@pytest.mark.parametrize("line", [b"x" * 100, b"X: y\r\n" * 20], ids=["one line", "many lines"])
def test_endless_heads_are_broken_off(endless, line: bytes):
    with connect(endless[1]) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + HEAD)
        with contextlib.suppress(ConnectionError):
            for _ in range(2 * 10**6):  # 200 MB
                connection.sendall(line)
            pytest.fail("the server took it all")


def test_many_requests_at_once_are_broken_off(endless):
    app, port = endless
    with connect(port) as connection, contextlib.suppress(ConnectionError):
        for _ in range(200):  # of 100 at once
            connection.sendall((b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n") * 100)
        connection.close()
    assert app.left.wait(PATIENCE_SECONDS)


def test_unread_replies_are_broken_off(endless, monkeypatch):
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.3)
    app, port = endless
    with connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
        assert app.left.wait(PATIENCE_SECONDS)


@pytest.mark.slow
def test_slow_readers_are_served(endless, monkeypatch):
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 2.0)
    app, port = endless
    with connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
        for _ in range(25):
            assert connection.recv(2**18)
            time.sleep(0.1)
        assert not app.left.is_set()


def test_connections_are_counted_by_address(endless, monkeypatch):
    monkeypatch.setattr(connections, "CONNECTIONS_PER_ADDRESS", 3)
    with contextlib.ExitStack() as stack:
        first = [stack.enter_context(connect(endless[1])) for _ in range(3)]
        assert is_broken_off(stack.enter_context(connect(endless[1])))
        first[0].close()
        with stack.enter_context(connect(endless[1])) as next_one:
            next_one.sendall(b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
            assert next_one.recv(12) == b"HTTP/1.1 200"


def test_the_app_bounds_its_connections():
    with CheckedPage() as page:
        pass
    _, url, _ = page.launch(server_port=free_port(), prevent_thread_lock=True, quiet=True)
    try:
        assert issubclass(page.server.config.http_protocol_class, BoundedConnection)
        assert page.server.config.ws_protocol_class is None
        assert httpx.get(f"{url}config", timeout=PATIENCE_SECONDS).status_code == 200
    finally:
        page.close(verbose=False)
