"""Bounds on connections below HTTP: unfinished request heads, unread replies, and their number.

Uvicorn waits without a time limit for the end of a request's head, and for a client that does not
read. With httptools it also accepts heads of any length, and any number of requests at once on one
connection.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

from earthvlm.serving.owner_limits import read_address_factor
from earthvlm.ui.security.origins import Access

if TYPE_CHECKING:
    import uvicorn

HEAD_SECONDS = 20.0  # from a connection, or a request's first byte, to the end of its head
HEAD_BYTES = 2**16  # as h11 and most servers bound it
# Longer than clients keep a connection that nothing uses (httpx: 5 s), so that they close it. Where
# the server does, and by default after 5 s too, a request can be on its way, and its client gets an
# error in place of an answer.
KEEP_ALIVE_SECONDS = 65
UNREAD_SECONDS = 60.0  # in which a client reads nothing of a reply that waits for it
# A browser opens six to one host: a class of 20 behind one address opens 120.
CONNECTIONS_PER_ADDRESS = 200


class BoundedConnection(asyncio.Protocol):
    """Mixin for one of uvicorn's HTTP protocols that closes connections over the limits."""

    cycle: Any  # of uvicorn: the request and its reply
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    connected: ClassVar[Counter[str]] = Counter()
    counts_addresses = True
    factor = 1.0
    _address: str | None = None
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Count the connection, or close it where its address has too many."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        if self.counts_addresses and isinstance(peer, tuple):
            if self.connected[peer[0]] >= CONNECTIONS_PER_ADDRESS * self.factor:
                transport.abort()
                return
            self._address = peer[0]
            self.connected[self._address] += 1
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting the connection."""
        if self._address is not None:
            self.connected[self._address] -= 1
            if not self.connected[self._address]:
                del self.connected[self._address]
        self._end_head()
        self._cancel_unread()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data on; close the connection where a head is too long."""
        previous = self.cycle
        if previous is None or not previous.more_body:  # not within a body
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._await_head()
        super().data_received(data)
        if self.cycle is not previous:
            self._end_head()
        if self._head_bytes > HEAD_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Begin a request (called by httptools), unless the previous one is not answered yet.

        No browser sends requests like that. Uvicorn would queue any number of them, and would not
        notify the current request when the connection is lost.
        """
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()
        else:
            super().on_headers_complete()  # type: ignore[misc]  # of httptools' protocol

    def pause_writing(self) -> None:
        """Close the connection where the client reads nothing for UNREAD_SECONDS."""
        super().pause_writing()
        self._cancel_unread()
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Resume when the client reads again."""
        self._cancel_unread()
        super().resume_writing()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _end_head(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cancel_unread(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None


def bound_connections(server: uvicorn.Server) -> None:
    """Limit the connections that a running server accepts from now on; it takes no WebSockets.

    Behind a trusted proxy, the proxy has to limit the number of connections of one address.
    """
    bounds = {
        "connected": Counter(),
        "counts_addresses": not Access.from_environment().trusts_proxy,
        "factor": read_address_factor(),
    }
    server.config.http_protocol_class = type(
        "BoundedProtocol", (BoundedConnection, server.config.http_protocol_class), bounds
    )
    server.config.timeout_keep_alive = KEEP_ALIVE_SECONDS
    server.config.ws_protocol_class = None
