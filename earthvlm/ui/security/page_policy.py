"""The policy of the page: its own inline scripts run, by their hashes, and no others.

A script that gets into the page, in an answer or a caption that somebody failed to escape, has
another hash, and an attribute such as `onerror` has none: the browser runs neither.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from typing import Any

from earthvlm.ui.security.asgi import App, Message, Receive, Send

# Scripts with a `src` have no content of their own.
INLINE_SCRIPT = re.compile(rb"<script\b([^>]*)>(.*?)</script>", re.DOTALL | re.IGNORECASE)
# Gradio compiles templates, hence 'unsafe-eval'; its components set styles. The page loads nothing
# from others and sends them nothing, but for the pictures of an online map that the owner wants. A
# Space shows it in the Hub's frame.
POLICY = (
    "default-src 'self'; "
    "script-src 'self' 'unsafe-eval'{hashes}; "
    "style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:{pictures}; "
    "font-src 'self' data:; "
    "worker-src 'self' blob:; "
    "object-src 'none'; "
    "base-uri 'self'; "
    "form-action 'self'; "
    "frame-ancestors 'self' https://huggingface.co https://*.hf.space"
)


def make_policy(scripts: Iterable[bytes] = (), pictures: str = "") -> str:
    """The `Content-Security-Policy` of an answer with these inline scripts.

    pictures: an origin from which the page may load pictures, such as "https://example.org".
    """
    digests = {base64.b64encode(hashlib.sha256(script).digest()).decode() for script in scripts}
    hashes = "".join(f" 'sha256-{digest}'" for digest in sorted(digests))
    return POLICY.format(hashes=hashes, pictures=f" {pictures}" if pictures else "")


def find_scripts(page: bytes) -> list[bytes]:
    """The inline scripts of a page, as a browser hashes them."""
    return [
        content.replace(b"\r\n", b"\n")
        for attributes, content in INLINE_SCRIPT.findall(page)
        if not re.search(rb"\bsrc\s*=", attributes, re.IGNORECASE)
    ]


class PagePolicy:
    """Innermost middleware, before pages are compressed: adds the policy of each page's scripts.

    inserted: scripts that the page's own scripts insert, of the app's and its components' heads.
    pictures: see `make_policy`.
    """

    def __init__(self, app: App, inserted: Iterable[bytes] = (), pictures: str = "") -> None:
        self._app = app
        self._inserted = list(inserted)
        self._pictures = pictures

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request; hold a page's headers until its scripts are known."""
        if scope["type"] != "http" or scope["path"] != "/":
            await self._app(scope, receive, send)
            return
        start: Message = {}
        body = bytearray()

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            scripts = [*find_scripts(bytes(body)), *self._inserted]
            policy = make_policy(scripts, self._pictures)
            name = b"content-security-policy"
            start["headers"] = [*start["headers"], (name, policy.encode())]
            await send(start)
            await send({"type": "http.response.body", "body": bytes(body)})

        await self._app(scope, receive, hold)
