"""The outermost middleware: checks hosts, origins, paths and sizes, and adds security headers."""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from math import inf
from typing import Any

from gradio.route_utils import FnIndexInferError
from starlette.exceptions import HTTPException

from earthvlm.serving.owner_limits import read_upload_mb
from earthvlm.ui.errors import UNEXPECTED
from earthvlm.ui.security.asgi import App, Message, Receive, Send, send_answer
from earthvlm.ui.security.origins import CALLER_HEADER, STATE_CHANGING, Access
from earthvlm.ui.security.page_policy import make_policy

FILES_OF_AN_UPLOAD, HEADER_BYTES = 3, 2**16  # as large as a file may be, and what they add
BODY_SECONDS = 30.0  # until a body is complete; upload_limits.py limits uploads
MAX_REQUEST_BYTES = 2**20  # of any other request: a question has at most 2,000 characters
HEADERS = {
    "content-security-policy": make_policy(),
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin-when-cross-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin-allow-popups",
}
# The paths that the page, gradio_client and MCP clients use. Gradio serves more (deep links, run
# history, recordings, a proxy, component servers, web addresses as files), which nobody needs here.
API = "/gradio_api/"
PATHS_READ = re.compile(
    r"/|/(static|assets|svelte)/.*|/(config|favicon\.ico|manifest\.json|robots\.txt|theme\.css)/?"
    r"|/pwa_icon(/\d+)?|/gradio_api/(info|openapi\.json|app_id|startup-events|theme\.css)/?"
    r"|/gradio_api/(queue/(data|status)|upload_progress)|/gradio_api/heartbeat/[^/]+"
    r"|/gradio_api/call/(v2/)?\w+/\w+|/gradio_api/file=(?!\w+:).*|/gradio_api/mcp(/.*)?"
    r"|/parts/[a-z0-9._-]+"
)
PATHS_SENT = re.compile(
    r"/gradio_api/(queue/join|upload|cancel|reset|run/\w+|call/(v2/)?\w+|mcp(/.*)?)/?"
)
NO_ENDPOINT = "There is no such endpoint; /gradio_api/info lists the endpoints."


class Guard:
    """Middleware that refuses all but the allowed requests, and adds HEADERS to every answer."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._access = Access.from_environment()
        self._upload_bytes = FILES_OF_AN_UPLOAD * read_upload_mb() * 2**20 + HEADER_BYTES

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with one sentence."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, list[bytes]] = defaultdict(list)
        for name, value in scope["headers"]:
            headers[name.lower()].append(value)
        answer = _Answer(scope["path"], send, is_foreign=self._is_foreign(headers))
        refusal = self._refuse(scope, headers, answer.is_foreign)
        if refusal is not None:
            await answer.refuse(*refusal)
            return
        is_upload = scope["path"].endswith("/upload")
        limit = self._upload_bytes if is_upload else MAX_REQUEST_BYTES
        declared = headers.get(b"content-length", [b"0"])[0]
        if not declared.isdigit() or int(declared) > limit:
            await answer.refuse_size(limit)
            return
        scope = self._set_address(scope, headers)
        # upload_limits.py limits the time of uploads.
        read: Receive = _Body(receive, limit, inf if is_upload else BODY_SECONDS).receive
        try:
            await self._app(scope, read, answer.send)
        except _TooLargeError:
            await answer.refuse_size(limit)
        except _TooSlowError:
            await answer.refuse(
                408, f"The request was not complete after {BODY_SECONDS:.0f} seconds."
            )
        except RuntimeError as error:
            # Gradio breaks off a stream whose session or event does not exist.
            if not (answer.started and isinstance(error.__cause__, HTTPException)):
                raise
            await answer.end()
        except (FnIndexInferError, LookupError, TypeError, ValueError) as error:
            # Gradio looks up the endpoint and its arguments before it runs the handler.
            if answer.started or not PATHS_SENT.fullmatch(scope["path"]):
                raise
            is_fit = isinstance(error, TypeError | ValueError)
            sentence = f"The arguments do not fit: {error}" if is_fit else NO_ENDPOINT
            await answer.refuse(422 if is_fit else 404, sentence)

    def _is_foreign(self, headers: dict[bytes, list[bytes]]) -> bool:
        origins = headers.get(b"origin", [])
        host = b"".join(headers.get(b"host", [])).decode("latin-1")
        return any(not self._access.allows_origin(o.decode("latin-1"), host) for o in origins)

    def _refuse(
        self, scope: Any, headers: dict[bytes, list[bytes]], is_foreign: bool
    ) -> tuple[int, str] | None:
        """Return the status and sentence of a refusal, or None."""
        if reason := self._access.refuse_host(headers.get(b"host", [])):
            return 403, reason
        if is_foreign and scope["method"] in STATE_CHANGING:
            return 403, (
                "A page of another origin may not call this app. If it should, start the app with "
                "EARTHVLM_ALLOWED_ORIGINS set to that origin, such as https://example.org."
            )
        is_read = scope["method"] in ("GET", "HEAD")
        paths = PATHS_READ if is_read else PATHS_SENT
        if scope["method"] != "OPTIONS" and not paths.fullmatch(scope["path"]):
            is_other = (PATHS_SENT if is_read else PATHS_READ).fullmatch(scope["path"])
            return (
                (405, "This path does not take this method.")
                if is_other
                else (404, "There is nothing here; the app is at /.")
            )
        return None

    def _set_address(self, scope: Any, headers: dict[bytes, list[bytes]]) -> Any:
        """Return the request with its true address, without headers that claim another."""
        client = scope.get("client") or ("", 0)
        address = self._access.find_address(client[0], headers)
        dropped = {b"x-forwarded-for", CALLER_HEADER}
        for told in headers.get(b"x-forwarded-host", []):
            if self._access.refuse_host([told]):
                dropped.add(b"x-forwarded-host")
        kept = [pair for pair in scope["headers"] if pair[0].lower() not in dropped]
        return {**scope, "client": (address, client[1]), "headers": kept}


class _Body:
    """A request's body, limited in bytes and in the seconds until it is complete."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive, self._left = receive, limit
        self._until = time.monotonic() + seconds
        self._is_complete = False

    async def receive(self) -> Message:
        """Return the next piece. Raises _TooLargeError and _TooSlowError."""
        if self._is_complete or self._until == inf:
            message = await self._receive()
        else:
            try:
                async with asyncio.timeout(self._until - time.monotonic()):
                    message = await self._receive()
            except TimeoutError:
                raise _TooSlowError from None
        self._is_complete = not message.get("more_body")
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _TooLargeError
        return message


class _Answer:
    """The answer, with HEADERS. Pages of other origins do not get the headers to read it."""

    def __init__(self, path: str, send: Send, is_foreign: bool) -> None:
        self.started = False
        self.is_foreign = is_foreign
        self._send = send
        self._is_direct = path.startswith(f"{API}run/")
        self._held: Message | None = None

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.started = True
            names = {name for name, _ in message["headers"]}
            added = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
            kept = [
                pair
                for pair in message["headers"]
                if not (self.is_foreign and pair[0].startswith(b"access-control-"))
            ]
            message["headers"] = [*kept, *(pair for pair in added if pair[0] not in names)]
            if self._is_direct and message["status"] == 500:
                self._held = message
                return
        elif self._held is not None:
            # Where a call passes the queue, Gradio answers every error with 500, also a client's.
            if UNEXPECTED.encode() not in message.get("body", b""):
                self._held["status"] = 400
            held, self._held = self._held, None
            await self._send(held)
        await self._send(message)

    async def refuse(self, status: int, sentence: str) -> None:
        """Answer with a status and a sentence, where no answer has started."""
        if not self.started:
            await send_answer(self.send, status, sentence, headers=((b"connection", b"close"),))

    async def refuse_size(self, limit: int) -> None:
        """Answer that the request is too large."""
        await self.refuse(413, f"The request is larger than the limit of {limit:,} bytes.")

    async def end(self) -> None:
        """End an answer that has started."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class _TooSlowError(Exception):
    """A body was not complete in time."""


class _TooLargeError(Exception):
    """A body is larger than the limit."""
