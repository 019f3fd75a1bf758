"""Hand-written WebP files: a few bytes that decode to a picture of any size."""

from __future__ import annotations

import struct


def write_webp(width: int, height: int, frames: int = 0) -> bytes:
    """Return a picture of one colour, or an animation of `frames` equal frames."""
    picture = _write_chunk(b"VP8L", _write_lossless(width, height))
    if not frames:
        return _write_riff(picture)
    sides = _write_24_bits(width - 1) + _write_24_bits(height - 1)
    frame = _write_chunk(b"ANMF", bytes(6) + sides + _write_24_bits(10) + b"\0" + picture)
    header = _write_chunk(b"VP8X", b"\x12\0\0\0" + sides)
    return _write_riff(header, _write_chunk(b"ANIM", bytes(6)), *[frame] * frames)


def _write_lossless(width: int, height: int) -> bytes:
    """A VP8L bitstream whose five prefix codes have one symbol each, so pixels take no bits."""
    bits = [(0x2F, 8), (width - 1, 14), (height - 1, 14), (1, 1), (0, 3), (0, 3)]
    for symbol in (120, 90, 40, 255, 0):  # green, red, blue, alpha, distance
        bits += [(1, 1), (0, 1), (1, 1), (symbol, 8)]
    value, length = 0, 0
    for part, size in bits:
        value |= part << length
        length += size
    return value.to_bytes(length // 8 + 2, "little")


def _write_24_bits(value: int) -> bytes:
    return value.to_bytes(3, "little")


def _write_chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def _write_riff(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body
