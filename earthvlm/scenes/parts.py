"""The part of an image that is read, and at which size: a window, a bounding box, an overview."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from earthvlm.scenes.grid import Grid
from earthvlm.scenes.places.formatting import describe_bbox
from earthvlm.scenes.reflectance import MAX_PIXELS, MAX_SIDE, MIN_SIDE

# The long side of what is read of a larger image, in pixels: of a whole Sentinel-2 tile, pixels of
# 107 m, which is the coarsest that answers make sense about.
OVERVIEW_SIDE = 1024
# Four Sentinel-2 tiles. Larger images would take minutes to look through.
MAX_RASTER_PIXELS = 2**29
_EDGE_POINTS = 21  # along each side of a bounding box, whose edges are curved in a projection


@dataclass(frozen=True)
class Part:
    """A rectangle of an image's pixels, and the size at which it is read.

    Attributes:
        row, column, height, width: in pixels of the image's finest bands.
        rows, columns: what is read of it; fewer than height and width for an overview.
    """

    row: int
    column: int
    height: int
    width: int
    rows: int
    columns: int

    @property
    def is_reduced(self) -> bool:
        """Whether it is read at less than the full resolution."""
        return (self.rows, self.columns) != (self.height, self.width)

    def covers(self, height: int, width: int) -> bool:
        """Whether it is the whole of an image of this size."""
        return (self.row, self.column, self.height, self.width) == (0, 0, height, width)

    def shrunk(self, side: int) -> Part:
        """Return it as read to `side` pixels along its long side, if it is longer."""
        factor = max(1.0, max(self.height, self.width) / side)
        rows, columns = (max(1, round(length / factor)) for length in (self.height, self.width))
        return replace(self, rows=rows, columns=columns)

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid of what is read, of an image with this grid."""
        moved = grid.shift(self.row, self.column)
        if not self.is_reduced:
            return moved
        return moved.scale(self.height / self.rows, self.width / self.columns)


def full_size(row: int, column: int, height: int, width: int) -> Part:
    """Return a part that is read at full resolution."""
    return Part(row, column, height, width, height, width)


def choose_part(
    shape: tuple[int, int],
    grid: Grid | None,
    source: str,
    bbox: Sequence[float] | None = None,
    window: Sequence[int] | None = None,
    largest: int = MAX_PIXELS,
) -> Part:
    """Return what is read of an image: all of it, or a bounding box or a window of it.

    Args:
        shape: the image's height and width.
        grid: where it lies; a bounding box needs it.
        source: names the image in errors.
        bbox: west, south, east, north in degrees; west is greater than east where it crosses the
            antimeridian.
        window: first column, first row, width, height, in pixels.
        largest: the number of pixels above which an overview is read.

    Raises:
        ValueError: the part is not in the image, or too small, or both are given.
    """
    if bbox is not None and window is not None:
        raise ValueError("A bounding box and a window were given; give one of them")
    if bbox is not None:
        row, column, height, width = _find_bbox(shape, grid, source, check_bbox(bbox))
    elif window is not None:
        row, column, height, width = _check_window(shape, source, window)
    else:
        row, column, height, width = 0, 0, *shape
    if min(height, width) < MIN_SIDE:
        asked = " in the part that was asked for" if bbox or window else ""
        raise ValueError(
            f"{source} is {width} x {height} pixels{asked}; a scene needs at least "
            f"{MIN_SIDE} x {MIN_SIDE}"
        )
    part = full_size(row, column, height, width)
    if height * width <= largest and max(height, width) <= MAX_SIDE:
        return part
    if height * width > MAX_RASTER_PIXELS:
        raise ValueError(
            f"{source} is {width:,} x {height:,} pixels, too many to look through; "
            "give a window or a bounding box in it"
        )
    overview = part.shrunk(OVERVIEW_SIDE)
    if min(overview.rows, overview.columns) < MIN_SIDE:
        raise ValueError(
            f"{source} is {width:,} x {height:,} pixels, too narrow for an overview; "
            "give a window or a bounding box in it"
        )
    return overview


def describe_overview(part: Part, pixel_metres: float | None) -> str:
    """Return a sentence on what an overview is, and how to see more."""
    size = ""
    if pixel_metres:
        size = f", of {pixel_metres * part.height / part.rows:.0f} m each"
    return (
        f"This is an overview: {part.columns} x {part.rows} pixels{size}, for the "
        f"{part.width:,} x {part.height:,} in the file; give a window or a bounding box for a part "
        "at full resolution."
    )


def check_bbox(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    """Return west, south, east, north. Raises ValueError where they are no bounding box."""
    if len(bbox) != 4 or not all(math.isfinite(value) for value in bbox):
        raise ValueError("A bounding box has four numbers: west, south, east and north in degrees")
    west, south, east, north = (float(value) for value in bbox)
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90):
        raise ValueError(
            f"{west:g} {south:g} {east:g} {north:g} is no bounding box: give west, south, east and "
            "north in degrees, west and east from -180 to 180, south below north, both from -90 to "
            "90"
        )
    if west == east:
        raise ValueError(f"The bounding box has no width: west and east are both {west:g}")
    return west, south, east, north


def _check_window(
    shape: tuple[int, int], source: str, window: Sequence[int]
) -> tuple[int, int, int, int]:
    if len(window) != 4:
        raise ValueError("A window has four numbers: first column, first row, width and height")
    column, row, width, height = (int(value) for value in window)
    if min(column, row) < 0 or column + width > shape[1] or row + height > shape[0]:
        raise ValueError(
            f"The window of {width} x {height} pixels from column {column} and row {row} is not "
            f"inside {source}, which is {shape[1]:,} x {shape[0]:,} pixels"
        )
    return row, column, height, width


def _find_bbox(
    shape: tuple[int, int],
    grid: Grid | None,
    source: str,
    bbox: tuple[float, float, float, float],
) -> tuple[int, int, int, int]:
    """Return the pixels that a bounding box touches: row, column, height, width."""
    if grid is None:
        raise ValueError(
            f"{source} does not say where it lies, so no bounding box can be cut out; give a window"
        )
    rows, columns = _to_pixels(grid, shape, bbox)
    top, left = max(0, math.floor(rows.min() + 1e-6)), max(0, math.floor(columns.min() + 1e-6))
    bottom = min(shape[0], math.ceil(rows.max() - 1e-6))
    right = min(shape[1], math.ceil(columns.max() - 1e-6))
    if bottom <= top or right <= left:
        extent = _describe_extent(grid, shape)
        raise ValueError(
            f"The bounding box {describe_bbox(bbox)} is not in {source}{extent}; the order is "
            "west, south, east, north"
        )
    return top, left, bottom - top, right - left


def _to_pixels(
    grid: Grid, shape: tuple[int, int], bbox: tuple[float, float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of points along the edges of a bounding box."""
    from rasterio.crs import CRS
    from rasterio.warp import transform

    west, south, east, north = bbox
    if west > east:
        east += 360
    along = np.linspace(0, 1, _EDGE_POINTS)
    longitudes = west + (east - west) * along
    latitudes = south + (north - south) * along
    x = np.concatenate(
        [longitudes, longitudes, np.full(_EDGE_POINTS, west), np.full(_EDGE_POINTS, east)]
    )
    y = np.concatenate(
        [np.full(_EDGE_POINTS, south), np.full(_EDGE_POINTS, north), latitudes, latitudes]
    )
    crs = CRS.from_user_input(grid.crs)
    if crs.is_geographic:
        centre, _ = grid.to_map(shape[0] / 2, shape[1] / 2)
        x = x + 360 * round((centre - (west + east) / 2) / 360)
    else:
        found = transform("EPSG:4326", crs, x, y)
        x, y = (np.asarray(values) for values in found)
        known = np.isfinite(x) & np.isfinite(y)
        x, y = x[known], y[known]
        if not len(x):
            return np.full(1, -1.0), np.full(1, -1.0)
    return grid.to_pixels(x, y)


def _describe_extent(grid: Grid, shape: tuple[int, int]) -> str:
    footprint = grid.footprint(*shape)
    if footprint is None:
        return ""
    numbers = " ".join(f"{value:.4f}" for value in footprint.bounds)
    return f", which covers {describe_bbox(footprint.bounds)} ({numbers})"
