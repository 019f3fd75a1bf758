"""TIFF files written tag by tag, in ways that no library would write them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

ASCII, SHORT, LONG = 2, 3, 4
ENTRY = struct.Struct("<HHII")


def write_directory(
    side: int,
    bands: int = 12,
    bits: int = 16,
    tile: int | None = None,
    *,
    overview: bool = False,
) -> dict[int, tuple[int, list[int]]]:
    """Return the tags of a square image without data: one strip, or one tile of `tile` pixels."""
    tags = {
        254: (LONG, [int(overview)]),
        256: (LONG, [side]),
        257: (LONG, [side]),
        258: (SHORT, [bits] * bands),
        259: (SHORT, [8]),  # deflate: strips that are not compressed are read in parts
        262: (SHORT, [2 if bands == 3 else 1]),
        277: (SHORT, [bands]),
        284: (SHORT, [1]),
    }
    if bands > 3:
        tags[338] = (SHORT, [0] * (bands - 1))
    if tile:
        return tags | {n: (LONG, [v]) for n, v in {322: tile, 323: tile, 324: 0, 325: 0}.items()}
    return tags | {273: (LONG, [0]), 278: (LONG, [side]), 279: (LONG, [0])}


def write_tiff(directories: Sequence[dict[int, tuple[int, list[int]]]]) -> bytes:
    """Write image file directories, one after another, as a little-endian TIFF."""
    out = bytearray(b"II*\x00" + struct.pack("<I", 8))
    for number, tags in enumerate(directories, start=1):
        data_at = len(out) + 2 + 12 * len(tags) + 4
        entries, data = struct.pack("<H", len(tags)), b""
        for tag, (kind, values) in sorted(tags.items()):
            raw = struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)
            entries += struct.pack("<HHI", tag, kind, len(values))
            if len(raw) <= 4:
                entries += raw.ljust(4, b"\x00")
            else:
                entries += struct.pack("<I", data_at + len(data))
                data += raw
        following = data_at + len(data) if number < len(directories) else 0
        out += entries + struct.pack("<I", following) + data
    return bytes(out)


def add_ascii_tag(path: Path, tag: int, text: str) -> None:
    """Add a tag that GDAL cannot write to a little-endian TIFF, in a new first directory."""
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    entries = [ENTRY.unpack_from(data, first + 2 + ENTRY.size * i) for i in range(count)]
    following = data[first + 2 + ENTRY.size * count :][:4]
    value = text.encode("ascii") + b"\0"
    data += b"\0" * (len(data) % 2)
    entries.append((tag, ASCII, len(value), len(data)))
    data += value + b"\0" * (len(value) % 2)
    struct.pack_into("<I", data, 4, len(data))
    data += struct.pack("<H", len(entries))
    data += b"".join(ENTRY.pack(*entry) for entry in sorted(entries)) + following
    path.write_bytes(data)
