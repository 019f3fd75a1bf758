"""Read RGB, grey and palette pictures to reflectance, by Pillow.

Sizes are checked from the header before any pixel is decoded; every error a user can cause is a
ValueError or FileNotFoundError of one sentence.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from earthvlm.scenes.bands import (
    TRUE_COLOUR_WHITE,
    VISIBLE_BANDS,
    find_date,
)
from earthvlm.scenes.decoded_image import DecodedImage
from earthvlm.scenes.parts import choose_part
from earthvlm.scenes.pictures.unknown_files import explain_unknown_file
from earthvlm.scenes.reflectance import (
    MIN_SIDE,
    check_size,
    fill_missing_pixels,
    place_bands,
    refuse_flat_values,
)

MAX_PHOTO_SIDE = 1024  # larger photos are shrunk to this
MAX_PHOTO_PIXELS = 100_000_000
# WebP is decoded whole when it is opened, to 16 bytes a pixel in all; 34 bytes can ask for it.
MAX_WEBP_PIXELS = 40_000_000
ACCEPTED = (
    "a Sentinel-2 GeoTIFF with 12 or 13 bands, one PNG of a ChatEarthNet triplet, "
    "or an RGB picture (PNG, JPEG, WebP or TIFF)"
)
RGB_NOTE = "Only red, green and blue were given (3 of 12 bands), so it sees less than it could."
_FORMATS = ("PNG", "JPEG", "WEBP")
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def read_photo(path: Path, window: Sequence[int] | None = None) -> DecodedImage:
    """Read an 8-bit picture as the three visible bands, at most 1024 pixels a side.

    window: first column, first row, width and height of the part to read, as it is stored.
    """
    with open_picture(path) as picture:
        check_photo_size(picture.height, picture.width, path)
        if picture.mode.startswith(("I", "F")) or _is_deep_png(path):
            raise ValueError(
                f"'{path.name}' is a picture of more than 8 bits, which is neither a photo "
                f"nor a scene with bands; give {ACCEPTED}"
            )
        if window is not None:
            part = choose_part(
                (picture.height, picture.width), None, f"'{path.name}'", None, window
            )
            left, top = part.column, part.row
            picture = picture.crop((left, top, left + part.width, top + part.height))
        size = picture.size
        grey = picture.mode in ("1", "L", "LA")
        rgba = decode_picture(picture, path, max_side=MAX_PHOTO_SIDE)
    return make_photo_image(rgba, path, size=size, grey=grey)


def make_photo_image(
    rgba: Image.Image, path: Path, *, size: tuple[int, int], grey: bool = False
) -> DecodedImage:
    """Convert RGBA pixels to reflectance; `size` is the file's width and height."""
    notes = [RGB_NOTE]
    if rgba.width * rgba.height < size[0] * size[1]:
        notes.append(
            f"It was shrunk from {size[0]} x {size[1]} to {max(rgba.size)} pixels on its long side."
        )
    if min(rgba.size) < MIN_SIDE:
        raise ValueError(
            f"'{path.name}' is {size[0]} x {size[1]} pixels, too narrow; "
            f"give a picture of at least {MIN_SIDE} x {MIN_SIDE} whose sides are alike"
        )
    if grey:
        notes.append("It is grey, so its three bands are equal and its colours say nothing.")
    pixels = np.asarray(rgba, dtype=np.float32)
    values = pixels[:, :, :3] * np.float32(TRUE_COLOUR_WHITE / 255)
    values[pixels[:, :, 3] == 0] = np.nan
    source = f"'{path.name}'"
    refuse_flat_values(values, source)
    valid, filled = fill_missing_pixels(values, source)
    notes += filled
    return DecodedImage(
        place_bands(values, VISIBLE_BANDS),
        name=path.stem,
        date=find_date(path.stem),
        notes=tuple(notes),
        valid=valid,
    )


def open_picture(path: Path, formats: tuple[str, ...] = _FORMATS) -> Image.Image:
    """Read a picture's header; raises ValueError for other formats than these."""
    _check_webp_size(path)
    try:
        with warnings.catch_warnings():
            # Sizes are checked by our own limits right after, in a sentence.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path, formats=formats)
    except Image.DecompressionBombError as error:
        raise ValueError(_too_large(path, "more than 178 million")) from error
    except _DECODING_ERRORS as error:
        known = explain_unknown_file(path)
        raise ValueError(
            f"'{path.name}' is not an image that can be read{': it is ' if known else '; give '}"
            f"{known or ACCEPTED}"
        ) from error


def _is_deep_png(path: Path) -> bool:
    """Return whether a PNG has 16 bits a channel, of which Pillow would keep the upper eight."""
    with path.open("rb") as file:
        start = file.read(25)
    return start[:4] == b"\x89PNG" and start[24:] == b"\x10"


def check_photo_size(height: int, width: int, path: Path) -> None:
    """Raise ValueError for a photo of fewer than 8 pixels a side or over 100 million in all."""
    if height * width > MAX_PHOTO_PIXELS:
        raise ValueError(_too_large(path, f"{width} x {height}"))
    if min(height, width) < MIN_SIDE:
        check_size(height, width, f"'{path.name}'")


def _check_webp_size(path: Path) -> None:
    """Raise ValueError for a WebP file, still or animated, of over MAX_WEBP_PIXELS."""
    with path.open("rb") as file:
        start = file.read(30).ljust(30, b"\0")
    if start[:4] != b"RIFF" or start[8:12] != b"WEBP":
        return
    match start[12:16]:
        case b"VP8X":
            width, height = (int.from_bytes(start[at : at + 3], "little") + 1 for at in (24, 27))
        case b"VP8L":
            sides = int.from_bytes(start[21:25], "little")
            width, height = (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
        case _:
            width, height = (int.from_bytes(start[at : at + 2], "little") for at in (26, 28))
    if width * height > MAX_WEBP_PIXELS:
        raise ValueError(_too_large(path, f"{width} x {height}", MAX_WEBP_PIXELS))


def _too_large(path: Path, pixels: str, limit: int = MAX_PHOTO_PIXELS) -> str:
    return (
        f"'{path.name}' has {pixels} pixels; "
        f"shrink it or cut out a part of at most {limit // 10**6} million pixels"
    )


def decode_picture(picture: Image.Image, path: Path, max_side: int | None = None) -> Image.Image:
    """Decode a picture to RGBA, turned as its EXIF orientation says; ValueError if damaged.

    A larger one than `max_side` is shrunk to it, before anything is made of its full size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # odd EXIF, palettes with byte alpha
            if max_side is not None and max(picture.size) > max_side:
                if picture.mode in ("1", "P", "PA"):
                    picture = picture.convert("RGBA")
                picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=2.0)
            return ImageOps.exif_transpose(picture).convert("RGBA")
    except _DECODING_ERRORS as error:
        raise ValueError(
            f"'{path.name}' is a damaged picture (cut short or corrupt); save or download it again"
        ) from error
