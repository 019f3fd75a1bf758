"""What stands before the page: headers that browsers heed, and bounds on what may be sent."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

MAX_FILE_SIZE = "64mb"
MAX_UPLOAD_BYTES = 3 * 64 * 2**20 + 2**16  # a ChatEarthNet scene's three files and their wrapping
MAX_REQUEST_BYTES = 2**20  # anything else: a question has 2,000 characters
# Gradio's own page has scripts and styles in it and compiles templates, hence the two "unsafe".
# Nothing is loaded from, or sent to, anybody else; a Space shows the page in the Hub's frame.
CONTENT_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self' https://huggingface.co https://*.hf.space",
    )
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin-when-cross-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin-allow-popups",
}


class Guard:
    """Middleware that adds HEADERS to every answer and refuses bodies that are too large."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = MAX_UPLOAD_BYTES if scope["path"].endswith("/upload") else MAX_REQUEST_BYTES
        headers = dict(scope["headers"])
        received, started = 0, False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                names = {name for name, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [
                    *message["headers"],
                    *(pair for pair in more if pair[0] not in names),
                ]
            await send(message)

        async def refuse() -> None:
            text = f"The request is larger than the {limit:,} bytes that are taken here.".encode()
            kind = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
            start = {"type": "http.response.start", "status": 413, "headers": kind}
            await send_with_headers(start)
            await send({"type": "http.response.body", "body": text})

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _TooLarge
            return message

        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            await refuse()
            return
        try:
            await self._app(scope, receive_bounded, send_with_headers)
        except _TooLarge:
            if not started:
                await refuse()


class _TooLarge(Exception):
    """More came than was declared, or nothing was declared and too much came."""


def find_address(host: str, headers: Any) -> str:
    """Where a request comes from: on a Space its proxy tells, elsewhere the connection does."""
    if os.environ.get("SPACE_ID"):
        return headers.get("x-forwarded-for", host).split(",")[0].strip()
    return host
