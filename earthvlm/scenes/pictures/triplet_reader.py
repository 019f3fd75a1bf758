"""Read ChatEarthNet images, which are triplets of 8-bit PNGs, and locate them by their names."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from earthvlm.scenes.bands import CHATEARTHNET_FOLDERS, EIGHT_BIT_SCALE
from earthvlm.scenes.decoded_image import DecodedImage
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.pictures.image_reader import decode_picture, open_picture
from earthvlm.scenes.reflectance import (
    check_size,
    fill_missing_pixels,
    mark_empty_pixels,
    place_bands,
    refuse_flat_values,
)

# COL_ROW_patchRC: a quarter of Web-Mercator tile COL, ROW at zoom 13. That R counts rows and C
# columns is unverified.
_CHATEARTHNET_NAME = re.compile(r"(\d{1,4})_(\d{1,4})_patch_?([01])_?([01])")
_TILES_PER_SIDE = 2**13
_PIXELS_PER_TILE = 512
_EQUATOR_METRES = 40_075_017
_MERCATOR_METRES = 2 * math.pi * 6_378_137.0  # the side of the square map


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
    valid, notes = fill_missing_pixels(values, f"'{name}'")
    grid = place_chatearthnet(Path(name).stem, *values.shape[:2])
    longitude, latitude = locate_chatearthnet(Path(name).stem) or (None, None)
    return DecodedImage(
        place_bands(values, tuple(bands)),
        name=Path(name).stem,
        longitude=longitude,
        latitude=latitude,
        notes=tuple(notes),
        pixel_metres=None if latitude is None else _mercator_pixel_metres(latitude),
        valid=valid,
        grid=grid,
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


def _mercator_pixel_metres(latitude: float) -> float:
    pixels_per_side = _TILES_PER_SIDE * _PIXELS_PER_TILE
    return _EQUATOR_METRES / pixels_per_side * math.cos(math.radians(latitude))


def locate_chatearthnet(name: str) -> tuple[float, float] | None:
    """Return longitude and latitude (degrees) of the centre of the ChatEarthNet image so named.

    `COL_ROW_patchRC` is quarter R, C of Web-Mercator tile COL, ROW at zoom 13 (8192 x 8192 tiles).
    Which digit counts rows is unverified: at worst the centre is off by half a tile (2.4 km).
    """
    corner = _find_corner(name)
    if corner is None:
        return None
    x, y = (each + 0.25 / _TILES_PER_SIDE for each in corner)
    return x * 360 - 180, math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y))))


def place_chatearthnet(name: str, height: int, width: int) -> Grid | None:
    """Return the Web-Mercator grid of `[H, W]` pixels of the image so named.

    As unsure as `locate_chatearthnet` is.
    """
    corner = _find_corner(name)
    if corner is None:
        return None
    side = _MERCATOR_METRES / _TILES_PER_SIDE / 2
    left, top = (corner[0] - 0.5) * _MERCATOR_METRES, (0.5 - corner[1]) * _MERCATOR_METRES
    return Grid("EPSG:3857", (side / width, 0.0, left, 0.0, -side / height, top))


def _find_corner(name: str) -> tuple[float, float] | None:
    """Return the top-left corner as shares of the map, from its west and its north."""
    match = _CHATEARTHNET_NAME.fullmatch(name)
    if match is None:
        return None
    column, row, patch_row, patch_column = (int(group) for group in match.groups())
    if max(column, row) >= _TILES_PER_SIDE:
        return None
    return (column + 0.5 * patch_column) / _TILES_PER_SIDE, (
        row + 0.5 * patch_row
    ) / _TILES_PER_SIDE
