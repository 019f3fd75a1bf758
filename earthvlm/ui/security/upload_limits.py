"""Limits on uploads: their types, how much from one address, and how much in all.

An upload is refused while it arrives. It is deleted once it was opened, or after some minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.formparsers import MultiPartException

from earthvlm.scenes.pictures.image_reader import ACCEPTED
from earthvlm.serving.owner_limits import read_address_factor, read_upload_factor
from earthvlm.ui.security.asgi import App, Message, Receive, Send, client_address, send_answer

SCENE_FILES = [".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg", ".webp", ".zip"]
MAX_FILES = 16  # thirteen bands of a scene and its masks
# The first bytes of TIFF, JPEG 2000, PNG, JPEG, WebP and zip archives.
_STARTS = (
    *(b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
    *(b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF"),
    b"PK\x03\x04",
)
_START_BYTES = 12
UPLOADS_AT_ONCE, UPLOADS_AT_ONCE_PER_ADDRESS = 16, 2
BYTES_KEPT, BYTES_KEPT_PER_ADDRESS = 1_000_000_000, 250_000_000
BYTES_PER_WINDOW, WINDOW_SECONDS = 500_000_000, 600.0  # of one address
UNOPENED_SECONDS = 300.0
SILENT_SECONDS, LONGEST_SECONDS = 20.0, 180.0  # between two pieces of an upload, and for all


class UploadRefusedError(MultiPartException):
    """Refuses an upload while it arrives. Gradio's parser deletes the upload's files on it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass
class _Kept:
    """A file on disk: its bytes, its time of arrival, and its addresses, once for each upload."""

    size: int
    since: float
    addresses: Counter[str]


class Uploads:
    """The uploads that are on disk or arriving, by address."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._under_way: Counter[str] = Counter()
        self._expected = 0
        self._arrived: defaultdict[str, deque[tuple[float, int]]] = defaultdict(deque)
        self._lock = threading.Lock()

    def begin(self, address: str, expected: int) -> None:
        """Reserve room for an upload. Raises UploadRefusedError where there is none."""
        room = read_upload_factor()
        factor = read_address_factor()
        with self._lock:
            self._delete_unopened()
            arrived = self._arrived[address]
            while arrived and arrived[0][0] < time.monotonic() - WINDOW_SECONDS:
                arrived.popleft()
            mine = sum(k.size for k in self._kept.values() if address in k.addresses)
            if self._under_way[address] >= UPLOADS_AT_ONCE_PER_ADDRESS * factor:
                raise UploadRefusedError(
                    429, "Busy: other uploads from your address are still arriving; wait for them."
                )
            if (
                mine + expected > BYTES_KEPT_PER_ADDRESS * factor * room
                or sum(size for _, size in arrived) + expected > BYTES_PER_WINDOW * factor * room
            ):
                raise UploadRefusedError(
                    429,
                    "Busy: your address may upload no more for now; try again in some minutes.",
                )
            kept = sum(each.size for each in self._kept.values())
            if (
                self._under_way.total() >= UPLOADS_AT_ONCE
                or kept + self._expected + expected > BYTES_KEPT * room
            ):
                raise UploadRefusedError(
                    503, "Busy: too many uploads at once; try again in a minute."
                )
            self._under_way[address] += 1
            self._expected += expected
            arrived.append((time.monotonic(), expected))

    def end(self, address: str, expected: int, paths: Iterable[str]) -> None:
        """Release the room of an upload that ended, and note the files it left."""
        with self._lock:
            self._under_way[address] -= 1
            self._expected -= expected
            for path in paths:
                with contextlib.suppress(OSError):
                    kept = self._kept.setdefault(
                        path, _Kept(Path(path).stat().st_size, time.monotonic(), Counter())
                    )
                    kept.since = time.monotonic()
                    kept.addresses[address] += 1
            self._under_way += Counter()  # drops the addresses at 0

    def find(self, upload_id: str, address: str) -> Path | None:
        """Return an upload of this address by its id, the name of its folder; None without one."""
        with self._lock:
            for path, kept in self._kept.items():
                if Path(path).parent.name == upload_id and address in kept.addresses:
                    return Path(path)
        return None

    def discard(self, paths: Iterable[str]) -> None:
        """Delete uploads that were opened, unless another upload of the same file is waiting."""
        with self._lock:
            for path in map(str, paths):
                kept = self._kept.get(path)
                if kept is not None:
                    kept.addresses[next(iter(kept.addresses))] -= 1
                    kept.addresses += Counter()
                    if not kept.addresses:
                        self._delete(path)

    def keep(self, paths: Iterable[str]) -> bool:
        """Keep opened uploads for as long as unopened ones; False where one is gone."""
        with self._lock:
            for path in map(str, paths):
                if path in self._kept:
                    self._kept[path].since = time.monotonic()
            return all(Path(path).is_file() for path in paths)

    def _delete_unopened(self) -> None:
        now = time.monotonic()
        for path in [p for p, k in self._kept.items() if now - k.since > UNOPENED_SECONDS]:
            self._delete(path)
        for address in [a for a, times in self._arrived.items() if not times]:
            del self._arrived[address]

    def _delete(self, path: str) -> None:
        del self._kept[path]
        with contextlib.suppress(OSError):
            Path(path).unlink(missing_ok=True)
            Path(path).parent.rmdir()


# One for the process, because Gradio's upload folder is.
UPLOADS = Uploads()


class UploadLimits:
    """Middleware that refuses uploads by type, number, size and speed, and counts them."""

    def __init__(self, app: App, uploads: Uploads = UPLOADS) -> None:
        self._app = app
        self._uploads = uploads

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse an upload that is too large or one too many."""
        is_upload = scope["type"] == "http" and scope["path"].rstrip("/").endswith("/upload")
        if not is_upload or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        address = client_address(scope)
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"")
        if not declared.isdigit():
            await _refuse(send, UploadRefusedError(411, "An upload needs a Content-Length header."))
            return
        try:
            self._uploads.begin(address, int(declared))
        except UploadRefusedError as error:
            await _refuse(send, error)
            return
        answer = _Answer(send)
        try:
            reading = _UploadBody(headers.get(b"content-type", b""), receive, int(declared), answer)
            await self._app(scope, reading.receive, answer.send)
        finally:
            self._uploads.end(address, int(declared), answer.paths())


class _UploadBody:
    """The body of an upload, checked while it arrives."""

    def __init__(
        self, content_type: bytes, receive: Receive, declared: int, answer: _Answer
    ) -> None:
        self._receive, self._left, self._answer = receive, declared, answer
        self._until = time.monotonic() + LONGEST_SECONDS
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        self._parts = _MultipartCheck(boundary) if boundary else None

    async def receive(self) -> Message:
        """Return the next piece. Raises UploadRefusedError where it is not accepted."""
        try:
            return await self._receive_checked()
        except UploadRefusedError as error:
            self._answer.refusal = error
            raise

    async def _receive_checked(self) -> Message:
        patience = min(SILENT_SECONDS, self._until - time.monotonic())
        try:
            message = await asyncio.wait_for(self._receive(), max(patience, 0.01))
        except TimeoutError:
            raise UploadRefusedError(408, "The upload was too slow; try again.") from None
        if message["type"] == "http.disconnect":
            if self._left > 0:
                raise UploadRefusedError(400, "The upload was interrupted; try again.")
            return message
        body = message.get("body", b"")
        self._left -= len(body)
        if self._left < 0:
            raise UploadRefusedError(413, "The upload is longer than its Content-Length says.")
        if self._parts is not None and body:
            self._parts.feed(body)
        return message


class _MultipartCheck:
    """Checks the number, names and first bytes of the parts of a multipart body."""

    def __init__(self, boundary: bytes) -> None:
        self._header, self._value = b"", b""
        self._name, self._start, self._count = "", b"", 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, a, b: self._add_header(data[a:b]),
                "on_header_value": lambda data, a, b: self._add_value(data[a:b]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._check_name,
                "on_part_data": lambda data, a, b: self._add(data[a : min(b, a + _START_BYTES)]),
                "on_part_end": self._check_start,
            },
        )

    def feed(self, data: bytes) -> None:
        """Check the next piece. Raises UploadRefusedError."""
        try:
            self._parser.write(data)
        except ValueError as error:
            raise UploadRefusedError(400, "The upload is damaged; try again.") from error

    def _begin(self) -> None:
        self._name, self._start, self._count = "", b"", self._count + 1
        if self._count > MAX_FILES:
            raise UploadRefusedError(413, f"A scene has at most {MAX_FILES} files.")

    def _add_header(self, data: bytes) -> None:
        self._header += data

    def _add_value(self, data: bytes) -> None:
        self._value += data

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"filename", b"").decode("utf-8", "replace")
        self._header, self._value = b"", b""

    def _check_name(self) -> None:
        if Path(self._name).suffix.lower() not in SCENE_FILES:
            self._refuse()

    def _add(self, data: bytes) -> None:
        if len(self._start) < _START_BYTES:
            self._start = (self._start + data)[:_START_BYTES]
            if len(self._start) == _START_BYTES:
                self._check_start()

    def _check_start(self) -> None:
        if not self._start.startswith(_STARTS):
            self._refuse()

    def _refuse(self) -> None:
        name = Path(self._name).name[:80]
        raise UploadRefusedError(
            415, f"'{name}' is not an image that can be read; give {ACCEPTED}."
        )


class _Answer:
    """The app's answer, with the status of the refusal where there is one."""

    def __init__(self, send: Send) -> None:
        self.refusal: UploadRefusedError | None = None
        self._send = send
        self._body, self._status = b"", 0

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            if self.refusal is not None:
                message["status"] = self.refusal.status
            self._status = message["status"]
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
        await self._send(message)

    def paths(self) -> list[str]:
        """Return the files that were stored, which the app's answer lists."""
        if self._status != 200:
            return []
        try:
            return [path for path in json.loads(self._body) if isinstance(path, str)]
        except ValueError:
            return []


async def _refuse(send: Send, error: UploadRefusedError) -> None:
    await send_answer(send, error.status, error.message, headers=((b"connection", b"close"),))
