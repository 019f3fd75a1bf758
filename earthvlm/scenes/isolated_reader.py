"""Decode untrusted files in child processes of bounded memory and time.

A file that breaks a decoder, or makes it take too much, ends a child and not the server. The
children are started in advance, open one file at a time, and are replaced after a failure. They
return JSON and raw pixels, so that nothing from a child is unpickled.

    python -m earthvlm.scenes.isolated_reader     # a child: requests on stdin, scenes on stdout
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.memory import trim_memory
from earthvlm.scenes.product import Product
from earthvlm.scenes.rasters.band_identification import BandOrderError
from earthvlm.scenes.reading import ReadOptions, read_triplet_part, read_upload
from earthvlm.scenes.reflectance import check_size
from earthvlm.scenes.scene import Scene

logger = logging.getLogger(__name__)

READERS = 2
# Beyond what a child takes before it opens a file. A scene of 2048 x 2048 pixels and 13 bands,
# and a PNG of 100 million pixels, take up to about 0.65 GB for a moment.
MEMORY_BYTES = 720 * 2**20
DEADLINE_SECONDS = 20.0
NICENESS = 5  # a third of the processor time of what answers, where both want it
PIPE_BYTES = 2**20  # the most that Linux gives; arrays come in a quarter of the time
MAX_REPLY_BYTES = 2**20  # of the JSON, which holds a name and notes
# Two children share the machine with the model, so one thread computes; two decode, because who
# sent a file waits for its picture. Names that hold secrets (HF_TOKEN and the like) are not passed
# on.
_CHILD_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "GDAL_NUM_THREADS": "2",
    "MALLOC_ARENA_MAX": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
}
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT", "TEMP", "TMP", "LD_LIBRARY_PATH")
# A scene's arrays in the order in which they follow a reply: what comes after height and width, and
# the type of a value.
_ARRAYS: dict[str, tuple[tuple[int, ...], type]] = {
    "reflectance": ((len(BANDS),), np.float32),
    "valid": ((), np.bool_),
    "scl": ((), np.uint8),
}
_ERRORS = {error.__name__: error for error in (ValueError, FileNotFoundError)}


class IsolatedReader:
    """Opens scenes in child processes, as many at once as there are children.

    readers: how many children. memory_bytes: what one may take for a file. deadline: seconds for
    one file, after which its child is killed.
    """

    def __init__(
        self,
        readers: int = READERS,
        memory_bytes: int = MEMORY_BYTES,
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        self.readers, self.memory_bytes, self.deadline = readers, memory_bytes, deadline
        self._idle: list[subprocess.Popen[bytes]] = []
        self._free = threading.Semaphore(readers)
        self._lock = threading.Lock()
        weakref.finalize(self, _end_all, self._idle)

    def start(self) -> None:
        """Start the children in advance; they are ready after half a second."""
        with self._lock:
            while len(self._idle) < self.readers:
                self._idle.append(self._start_child())

    def close(self) -> None:
        """End the idle children; a busy one ends after its file."""
        with self._lock:
            _end_all(self._idle)

    def open(
        self,
        path: str | Path,
        image_name: str | None = None,
        *,
        boa_offset: bool | None = None,
        window: Sequence[int] | None = None,
        bands: Sequence[str] | None = None,
    ) -> Scene:
        """Open a scene as `Scene.open` does, in a child.

        path: a single file, the zip archive of a product, or a folder of band files, which must be
        one that the server made. Raises what `Scene.open` raises, BandOrderError where its bands
        may be in several orders, and ValueError where the file takes more memory or time than one
        file may.
        """
        path = Path(path)
        request = {
            "path": str(path.absolute()),
            "image_name": image_name,
            "boa_offset": boa_offset,
            "window": window,
            "bands": bands,
        }
        with self._child() as child:
            late = threading.Event()

            def kill() -> None:
                late.set()
                child.kill()

            timer = threading.Timer(self.deadline, kill)
            timer.start()
            try:
                requests, replies = _pipes(child)
                requests.write(json.dumps(request).encode() + b"\n")
                requests.flush()
                reply, arrays = read_reply(replies)
            except (OSError, EOFError, ValueError, struct.error) as error:
                child.kill()
                raise ValueError(self._explain(path.name, late.is_set(), child.wait())) from error
            finally:
                timer.cancel()
        return _rebuild(reply, arrays)

    @contextmanager
    def _child(self) -> Iterator[subprocess.Popen[bytes]]:
        """Yield an idle child; one that fails or runs out of memory is replaced."""
        with self._free:
            with self._lock:
                child = self._idle.pop() if self._idle else self._start_child()
            if child.poll() is not None:  # it ended while idle
                child = self._start_child()
            try:
                yield child
            finally:
                with self._lock:
                    if child.poll() is None and len(self._idle) < self.readers:
                        self._idle.append(child)
                    else:
                        _end(child)
                        self._idle.append(self._start_child())

    def _start_child(self) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return subprocess.Popen(
            [sys.executable, "-m", "earthvlm.scenes.isolated_reader", str(self.memory_bytes)],
            env=environment | _CHILD_ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=PIPE_BYTES,
        )

    def _explain(self, name: str, late: bool, status: int) -> str:
        if late:
            return (
                f"'{name}' took more than {self.deadline:.0f} seconds to read; "
                "save it in a simpler form, or cut out a part"
            )
        logger.warning("A child that read an uploaded file ended with status %d", status)
        return f"'{name}' could not be decoded safely; save it in another format, or cut out a part"


def _pipes(child: subprocess.Popen[bytes]) -> tuple[BinaryIO, BufferedReader]:
    """Return the pipes to a child's stdin and from its stdout."""
    return cast("BinaryIO", child.stdin), cast("BufferedReader", child.stdout)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in _pipes(child):
        pipe.close()


def _end_all(children: list[subprocess.Popen[bytes]]) -> None:
    while children:
        _end(children.pop())


def read_reply(stream: BufferedReader) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read one reply of a child: JSON, and the arrays that it lists where a scene was opened.

    Raises ValueError for a reply longer, or of a scene larger, than a child may send, and EOFError
    or struct.error where it ends too early.
    """
    (length,) = struct.unpack("<I", _read_exactly(stream, 4))
    if length > MAX_REPLY_BYTES:
        raise ValueError(f"a reply of {length} bytes")
    reply = json.loads(_read_exactly(stream, length))
    if "error" in reply:
        return reply, {}
    height, width = (int(side) for side in reply["size"])
    check_size(height, width, "a reply")
    arrays: dict[str, np.ndarray] = {}
    for name in reply["arrays"]:
        depth, dtype = _ARRAYS[name]
        arrays[name] = np.empty((height, width, *depth), dtype)
        view, done = memoryview(arrays[name].data).cast("B"), 0
        while done < len(view):
            count = stream.readinto(view[done:])
            if not count:
                raise EOFError
            done += count
    return reply, arrays


def _read_exactly(stream: BufferedReader, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _rebuild(reply: dict[str, Any], arrays: dict[str, np.ndarray]) -> Scene:
    if "orders" in reply:
        raise BandOrderError(reply["error"], reply["orders"])
    if "error" in reply:
        raise _ERRORS.get(reply["kind"], ValueError)(reply["error"])
    date, grid, product = reply["date"], reply["grid"], reply["product"]
    overview_of = reply["overview_of"]
    return Scene(
        **arrays,
        date=datetime.date.fromisoformat(date) if date else None,
        longitude=reply["longitude"],
        latitude=reply["latitude"],
        name=reply["name"],
        notes=tuple(reply["notes"]),
        pixel_metres=reply["pixel_metres"],
        grid=grid and Grid(grid["crs"], tuple(grid["transform"])),
        product=product and Product(**product | {"sensing_time": _parse_time(product)}),
        overview_of=overview_of and tuple(overview_of),
    )


def _parse_time(product: dict[str, Any]) -> datetime.datetime | None:
    time = product["sensing_time"]
    return datetime.datetime.fromisoformat(time) if time else None


def main() -> int:
    """Open the files requested on stdin, one after another, until it is closed."""
    memory_bytes = int(sys.argv[1])
    import rasterio._env
    import rasterio.warp  # noqa: F401

    # Libraries that print must not disturb the replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _bound_process(memory_bytes)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        path, out_of_memory = request.pop("path"), False
        scene: Scene | None = None
        reply: dict[str, Any]
        try:
            scene = _open(Path(path), **request)
        except (ValueError, FileNotFoundError) as error:
            kind = "ValueError" if isinstance(error, ValueError) else "FileNotFoundError"
            reply = {"error": str(error)[:2000], "kind": kind}
            if isinstance(error, BandOrderError):
                reply["orders"] = error.orders
        except MemoryError:
            out_of_memory = True
            limit = f"{memory_bytes // 2**20} MiB"
            reply = {
                "error": f"'{Path(path).name}' takes more than the {limit} of memory that one file "
                "gets here; shrink it or cut out a part",
                "kind": "ValueError",
            }
        if scene is not None:
            reply = _describe(scene)
        data = json.dumps(reply, default=str).encode()  # times
        replies.write(struct.pack("<I", len(data)) + data)
        if scene is not None:
            for name in reply["arrays"]:
                array = np.ascontiguousarray(getattr(scene, name))
                replies.write(memoryview(array.data).cast("B"))
        replies.flush()
        if out_of_memory:
            return 1
        scene = None
        trim_memory()
    return 0


def _open(
    path: Path,
    image_name: str | None,
    boa_offset: bool | None,
    window: list[int] | None,
    bands: list[str] | None,
) -> Scene:
    """Open what a visitor may send, which refers to no other files."""
    options = ReadOptions(boa_offset, window=window, bands=bands)
    if image_name is not None:
        return Scene(**vars(read_triplet_part(path, image_name, options)))
    return Scene(**vars(read_upload(path, options)))


def _describe(scene: Scene) -> dict[str, Any]:
    return {
        "size": [scene.height, scene.width],
        "arrays": [name for name in _ARRAYS if getattr(scene, name) is not None],
        "date": scene.date.isoformat() if scene.date else None,
        "longitude": scene.longitude,
        "latitude": scene.latitude,
        "name": scene.name,
        "notes": list(scene.notes),
        "pixel_metres": scene.pixel_metres,
        "grid": asdict(scene.grid) if scene.grid else None,
        "product": asdict(scene.product) if scene.product else None,
        "overview_of": scene.overview_of,
    }


def _bound_process(memory_bytes: int) -> None:
    """Bound this process's memory and its share of the processors, and let it write no file."""
    try:
        import resource
    except ImportError:  # Windows: the deadline and the checks of sizes remain
        return
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0}
    with contextlib.suppress(OSError, IndexError, ValueError):
        pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory_bytes
    for limit, value in limits.items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))


if __name__ == "__main__":
    sys.exit(main())
