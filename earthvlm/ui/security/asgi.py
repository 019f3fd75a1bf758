"""ASGI's types, and short answers, for the middleware in this package."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

PLAIN_TEXT = b"text/plain; charset=utf-8"


async def send_answer(
    send: Send,
    status: int,
    body: str | bytes,
    kind: bytes = PLAIN_TEXT,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    """Send a whole answer."""
    body = body if isinstance(body, bytes) else body.encode("utf-8", "replace")
    all_headers: Headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


def client_address(scope: Any) -> str:
    """Return the address that a request came from, "" where it is not known."""
    return (scope.get("client") or ("",))[0]
