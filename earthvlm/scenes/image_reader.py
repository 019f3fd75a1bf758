"""8-bit pictures to reflectance: ChatEarthNet PNG triplets and RGB photos, by Pillow.

Sizes are checked from the header before any pixel is decoded; every error a user can cause is a
ValueError or FileNotFoundError of one sentence.
"""

from __future__ import annotations

import math
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from earthvlm.scenes.bands import (
    CHATEARTHNET_FOLDERS,
    EIGHT_BIT_SCALE,
    TRUE_COLOUR_WHITE,
    VISIBLE_BANDS,
    find_date,
)
from earthvlm.scenes.decoded_image import DecodedImage
from earthvlm.scenes.reflectance import (
    MIN_SIDE,
    check_size,
    fill_missing_pixels,
    mark_empty_pixels,
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
# COL_ROW_patchRC: a quarter of Web-Mercator tile COL, ROW at zoom 13. That R counts rows and C
# columns is unverified.
_CHATEARTHNET_NAME = re.compile(r"(\d{1,4})_(\d{1,4})_patch_?([01])_?([01])")
_TILES_PER_SIDE = 2**13


def read_photo(path: Path) -> DecodedImage:
    """Read an 8-bit picture as the three visible bands, at most 1024 pixels a side."""
    with open_picture(path) as picture:
        check_photo_size(picture.height, picture.width, path)
        if picture.mode.startswith(("I", "F")):
            raise ValueError(
                f"'{path.name}' is a grey picture of more than 8 bits, which is neither a photo "
                f"nor a scene with bands; give {ACCEPTED}"
            )
        size = picture.size
        grey = picture.mode in ("1", "L", "LA")
        rgba = decode_picture(picture, path, max_side=MAX_PHOTO_SIDE)
    return photo_content(rgba, path, size=size, grey=grey)


def photo_content(
    rgba: Image.Image, path: Path, *, size: tuple[int, int], grey: bool = False
) -> DecodedImage:
    """Make a picture's content of its RGBA pixels; `size` is what it had (width, height)."""
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
    notes += fill_missing_pixels(values, source)
    return DecodedImage(
        place_bands(values, VISIBLE_BANDS),
        name=path.stem,
        date=find_date(path.stem),
        notes=tuple(notes),
    )


def find_triplet_root(path: Path) -> Path | None:
    """Return the data folder of a PNG that lies in one of ChatEarthNet's folders, else None."""
    folder = path.absolute().parent
    if folder.name == "s2_images":
        folder = folder.parent
    is_part = path.suffix.lower() == ".png" and folder.name in CHATEARTHNET_FOLDERS
    return folder.parent if is_part else None


def read_triplet(root: Path, image_name: str) -> DecodedImage:
    """Read the three 8-bit PNGs of a ChatEarthNet image below its data folder: nine bands."""
    if not root.is_dir():
        raise FileNotFoundError(f"There is no ChatEarthNet folder '{root}'; check its path")
    if not image_name or Path(image_name).name != image_name:
        raise ValueError(f"'{image_name[:80]}' is not a plain image name such as NAME.png")
    name = image_name if image_name.lower().endswith(".png") else f"{image_name}.png"
    pixels: list[np.ndarray] = []
    bands: list[str] = []
    for folder, folder_bands in CHATEARTHNET_FOLDERS.items():
        pixels.append(_read_triplet_part(root / folder, name))
        bands += folder_bands
        if pixels[-1].shape != pixels[0].shape:
            sizes = [f"{part.shape[1]} x {part.shape[0]}" for part in (pixels[-1], pixels[0])]
            raise ValueError(
                f"'{name}' is {sizes[0]} pixels in {folder} and {sizes[1]} in its first partner; "
                "the three PNGs of an image must have one size"
            )
    scale = np.array([EIGHT_BIT_SCALE[band] for band in bands], dtype=np.float32)
    values = np.concatenate(pixels, axis=2) * scale
    mark_empty_pixels(values)
    refuse_flat_values(values, f"'{name}'")
    notes = fill_missing_pixels(values, f"'{name}'")
    longitude, latitude = locate_chatearthnet(Path(name).stem) or (None, None)
    return DecodedImage(
        place_bands(values, tuple(bands)),
        name=Path(name).stem,
        longitude=longitude,
        latitude=latitude,
        notes=tuple(notes),
    )


def _read_triplet_part(folder: Path, name: str) -> np.ndarray:
    candidates = [folder / "s2_images" / name, folder / name]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        missing = candidates[0] if candidates[0].parent.is_dir() else candidates[1]
        raise FileNotFoundError(
            f"A partner of '{name}' is missing: '{missing}'; a ChatEarthNet image needs its PNG in "
            f"each of {', '.join(CHATEARTHNET_FOLDERS)}"
        )
    with open_picture(path, formats=("PNG",)) as picture:
        check_size(picture.height, picture.width, f"'{path}'")
        if picture.mode not in ("RGB", "RGBA"):
            raise ValueError(f"'{path}' is not an 8-bit RGB PNG, as the three of an image must be")
        return np.asarray(decode_picture(picture, path))[:, :, :3]


def locate_chatearthnet(name: str) -> tuple[float, float] | None:
    """Return longitude and latitude (degrees) of the centre of the ChatEarthNet image so named.

    `COL_ROW_patchRC` is quarter R, C of Web-Mercator tile COL, ROW at zoom 13 (8192 x 8192 tiles).
    Which digit counts rows is unverified: at worst the centre is off by half a tile (2.4 km).
    """
    match = _CHATEARTHNET_NAME.fullmatch(name)
    if match is None:
        return None
    column, row, patch_row, patch_column = (int(group) for group in match.groups())
    if max(column, row) >= _TILES_PER_SIDE:
        return None
    x = (column + 0.25 + 0.5 * patch_column) / _TILES_PER_SIDE
    y = (row + 0.25 + 0.5 * patch_row) / _TILES_PER_SIDE
    return x * 360 - 180, math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y))))


def open_picture(path: Path, formats: tuple[str, ...] = _FORMATS) -> Image.Image:
    """Open a picture's header by its content; ValueError for what is none of the formats."""
    _check_webp_size(path)
    try:
        with warnings.catch_warnings():
            # Sizes are checked by our own limits right after, in a sentence.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path, formats=formats)
    except Image.DecompressionBombError as error:
        raise ValueError(_too_large(path, "more than 178 million")) from error
    except _DECODING_ERRORS as error:
        raise ValueError(
            f"'{path.name}' is not an image that can be read; give {ACCEPTED}"
        ) from error


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
