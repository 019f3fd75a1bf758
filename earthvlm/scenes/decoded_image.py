"""What every reader of files returns; `Scene.open` makes a Scene of it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np

from earthvlm.scenes.grid import Grid
from earthvlm.scenes.product import Product


@dataclass(frozen=True)
class DecodedImage:
    """A file's reflectance x 10000, `[H, W, 12]` in the order of `BANDS`, and its metadata.

    longitude, latitude: of the centre, in degrees. notes: sentences for the user on assumptions.
    pixel_metres: the side of a pixel on the ground; None where it is not known.
    valid: bool `[H, W]`, False where pixels were filled for lack of data; None where none was.
    scl: uint8 `[H, W]`, ESA's scene classification, 0 where there is none; None without one.
    grid: of its pixels. product: that it was cut from.
    overview_of: of an overview, the part that it shows in pixels of the file: row, column, height
    and width; None where it has the file's own pixels.
    """

    reflectance: np.ndarray
    name: str
    date: datetime.date | None = None
    longitude: float | None = None
    latitude: float | None = None
    notes: tuple[str, ...] = ()
    pixel_metres: float | None = None
    valid: np.ndarray | None = None
    scl: np.ndarray | None = None
    grid: Grid | None = None
    product: Product | None = None
    overview_of: tuple[int, int, int, int] | None = None


def crop_fields(image: Any, row: int, column: int, height: int, width: int) -> dict[str, Any]:
    """Return the fields that change where a part is cut out.

    image: a DecodedImage or a Scene. row, column: of the part's first pixel.
    """
    part = slice(row, row + height), slice(column, column + width)
    grid = image.grid.shift(row, column) if image.grid else None
    centre = grid.locate(height / 2, width / 2) if grid else None
    longitude, latitude = centre or (None, None)
    return {
        "reflectance": image.reflectance[part],
        "valid": None if image.valid is None else image.valid[part],
        "scl": None if image.scl is None else image.scl[part],
        "grid": grid,
        "overview_of": None,
        "longitude": longitude,
        "latitude": latitude,
    }
