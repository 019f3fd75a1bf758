"""Scenes that programs send with a call: in base64, or as the id of a file that they uploaded.

They are decoded in a child process, held while the call lasts, and kept nowhere.
"""

from __future__ import annotations

import base64
import binascii
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from earthvlm.scenes.pictures.image_reader import ACCEPTED
from earthvlm.scenes.scene import Scene
from earthvlm.serving.request_queue import QueueFull
from earthvlm.ui.security.upload_limits import UPLOADS, Uploads
from earthvlm.ui.uploads import parse_window

# Of base64. A request without an upload has at most 1 MiB.
MAX_CHARACTERS = 1_000_000
# A scene of this size takes 50 MB, and up to 21 calls wait for the model.
MAX_PIXELS = 1024 * 1024
MAX_BYTES_HELD = 300_000_000
UPLOAD_ID = re.compile(r"[0-9a-f]{64}")
NO_UPLOAD = (
    "There is no such upload from your address: it may be older than five minutes, so upload the "
    "file again"
)
_DATA_URI = re.compile(r"data:[\w.+/-]{0,80};base64,", re.ASCII)


class CallerScenes:
    """Opens the scenes of calls, and bounds how much memory they hold together."""

    def __init__(self, uploads: Uploads = UPLOADS, max_bytes: int = MAX_BYTES_HELD) -> None:
        self._uploads = uploads
        self._left = max_bytes
        self._lock = threading.Lock()

    def open(self, image: str, window: str, read: Callable[..., Scene], address: str) -> Scene:
        """Open a scene for a call; `hold` it while it is used.

        Args:
            image: a picture file in base64, or the id of an upload from the same address.
            window: first column, first row, width and height in pixels; "" reads the whole.
            read: takes the arguments of `Scene.open`; see `SceneService.opening`.
            address: of the caller.

        Raises:
            ValueError: the image or the window is not one that is accepted.
        """
        part = parse_window(window)
        if UPLOAD_ID.fullmatch(image):
            path = self._uploads.find(image, address)
            if path is None:
                raise ValueError(NO_UPLOAD)
            try:
                scene = read(path, window=part)
            except FileNotFoundError:  # deleted in this moment, after five minutes
                raise ValueError(NO_UPLOAD) from None
        else:
            content = _decode(image)
            with tempfile.TemporaryDirectory(prefix="earthvlm-call-") as folder:
                file = Path(folder) / "scene"
                file.write_bytes(content)
                scene = read(file, window=part)
        if scene.width * scene.height > MAX_PIXELS:
            raise ValueError(
                f"The scene has {scene.width} x {scene.height} pixels, and a call takes at most "
                f"{MAX_PIXELS:,}: give a window, or cut out a part"
            )
        return scene

    @contextmanager
    def hold(self, scene: Scene) -> Iterator[None]:
        """Count a scene while it is used. Raises QueueFull where others hold too much already."""
        size = scene.nbytes
        with self._lock:
            if size > self._left:
                raise QueueFull("Busy: other calls hold many large scenes; try again in a moment")
            self._left -= size
        try:
            yield
        finally:
            with self._lock:
                self._left += size


def _decode(image: str) -> bytes:
    """Return the file that a call holds in base64. Raises ValueError."""
    if len(image) > MAX_CHARACTERS:
        raise ValueError(
            f"The image has more than {MAX_CHARACTERS:,} characters of base64: upload the file to "
            "/gradio_api/upload, and give the id of the upload"
        )
    match = _DATA_URI.match(image)
    text = image[match.end() :] if match else image
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if not content:
        raise ValueError(f"The image is not the base64 of a file: give {ACCEPTED}")
    return content
