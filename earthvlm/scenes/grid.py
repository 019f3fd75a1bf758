"""Where a scene's pixels lie: a coordinate reference system, an affine transform, a footprint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import rasterio
    from rasterio.windows import Window
    from shapely import MultiPolygon, Polygon

# Pixels between the vertices of a footprint. Its edges are curved in degrees; over 5 km of 10 m
# pixels they leave a straight line by 3 m at 80 degrees of latitude.
_VERTEX_PIXELS = 512
_MAX_VERTICES = 64  # an edge
# A number, or an array of them.
Numbers = TypeVar("Numbers", float, np.ndarray)
METRES_A_DEGREE = 111_320.0  # of latitude
WORLD = (-180.0, -90.0, 180.0, 90.0)


@dataclass(frozen=True)
class Grid:
    """The grid of a north-up or rotated raster.

    Attributes:
        crs: the coordinate reference system, as "EPSG:32633" or as WKT.
        transform: a, b, c, d, e, f of x = a column + b row + c and y = d column + e row + f, of
            pixel corners, in units of the CRS.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]

    @classmethod
    def of_raster(cls, file: rasterio.DatasetReader, window: Window | None = None) -> Grid | None:
        """Return the grid of a raster or a window, None where it has no CRS or no transform."""
        if file.crs is None or file.transform.is_identity:
            return None
        grid = cls(file.crs.to_string(), tuple(file.transform)[:6])
        return grid if window is None else grid.shift(window.row_off, window.col_off)

    def shift(self, row: float, column: float) -> Grid:
        """Return the grid of a crop whose first pixel is at this row and column."""
        a, b, c, d, e, f = self.transform
        return Grid(self.crs, (a, b, c + a * column + b * row, d, e, f + d * column + e * row))

    def scale(self, rows: float, columns: float) -> Grid:
        """Return the grid of larger pixels, each of `rows` by `columns` of these."""
        a, b, c, d, e, f = self.transform
        return Grid(self.crs, (a * columns, b * rows, c, d * columns, e * rows, f))

    def flip(self, axes: tuple[int, ...], height: int, width: int) -> Grid:
        """Return the grid after `[H, W]` was reversed along these axes."""
        a, b, c, d, e, f = self.transform
        if 0 in axes:
            b, c, e, f = -b, c + b * height, -e, f + e * height
        if 1 in axes:
            a, c, d, f = -a, c + a * width, -d, f + d * width
        return Grid(self.crs, (a, b, c, d, e, f))

    def to_map(self, row: Numbers, column: Numbers) -> tuple[Numbers, Numbers]:
        """Return x and y, in the CRS, of pixel corners or of places between them."""
        a, b, c, d, e, f = self.transform
        return a * column + b * row + c, d * column + e * row + f

    def to_pixels(self, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        """Return row and column of places in the CRS; pixel corners are whole numbers."""
        a, b, c, d, e, f = self.transform
        size = a * e - b * d
        x, y = x - c, y - f
        return (a * y - d * x) / size, (e * x - b * y) / size

    def pixel_metres(self, height: int, width: int) -> float | None:
        """Return the side of the pixels of `[H, W]` on the ground, None outside of the projection.

        It is measured along the middle column, because maps such as Web Mercator stretch distances
        away from the equator.
        """
        ends = [self.locate(row, width / 2) for row in (0, height)]
        if None in ends:
            return None
        (west, north), (east, south) = (end for end in ends if end)
        across = ((east - west + 180) % 360 - 180) * math.cos(math.radians(north))
        return math.hypot(across, south - north) * METRES_A_DEGREE / height

    def locate(self, row: float, column: float) -> tuple[float, float] | None:
        """Return longitude and latitude in degrees, None outside of the projection."""
        degrees = self._to_degrees(np.array([row], float), np.array([column], float))
        return None if degrees is None else (float(degrees[0][0]), float(degrees[1][0]))

    def footprint(self, height: int, width: int) -> Polygon | MultiPolygon | None:
        """Return the outline of `[H, W]` pixels in degrees, None outside of the projection.

        It is counter-clockwise, and split in two where it crosses the antimeridian.
        """
        degrees = self._to_degrees(*_ring(height, width))
        if degrees is None:
            return None
        longitude, latitude = _unwrap(degrees[0]), degrees[1]
        turn = longitude[-1] - longitude[0]
        if abs(turn) > 180:  # it goes round a pole, which closes it
            pole = math.copysign(90.0, latitude.mean())
            longitude = np.append(longitude, [longitude[-1], longitude[0]])
            latitude = np.append(latitude, [pole, pole])
        return _split_at_antimeridian(longitude, latitude)

    def _to_degrees(
        self, rows: np.ndarray, columns: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        from rasterio._err import CPLE_BaseError
        from rasterio.errors import RasterioError
        from rasterio.warp import transform

        x, y = self.to_map(rows, columns)
        try:
            found = transform(self.crs, "EPSG:4326", x, y)
        except (RasterioError, CPLE_BaseError, ValueError):
            return None
        longitude, latitude = (np.asarray(values, float) for values in found)
        if not (np.isfinite(longitude) & np.isfinite(latitude)).all():
            return None
        if np.abs(longitude).max() > 360 or np.abs(latitude).max() > 90:
            return None
        outside = np.abs(longitude) > 180
        return np.where(outside, (longitude + 180) % 360 - 180, longitude), latitude


def _ring(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns along the outline of `[H, W]`, closed."""
    down, across = (_steps(length) for length in (height, width))
    rows = [down, np.full(len(across), height), down[::-1], np.zeros(len(across))]
    columns = [np.zeros(len(down)), across, np.full(len(down), width), across[::-1]]
    return np.concatenate([*(side[:-1] for side in rows), [0.0]]), np.concatenate(
        [*(side[:-1] for side in columns), [0.0]]
    )


def _steps(length: int) -> np.ndarray:
    count = min(-(-length // _VERTEX_PIXELS), _MAX_VERTICES)
    return np.linspace(0, length, count + 1)


def _unwrap(longitude: np.ndarray) -> np.ndarray:
    """Remove jumps of 360 degrees between neighbours."""
    return np.rad2deg(np.unwrap(np.deg2rad(longitude)))


def _split_at_antimeridian(
    longitude: np.ndarray, latitude: np.ndarray
) -> Polygon | MultiPolygon | None:
    import shapely

    ring = np.stack([longitude, latitude], axis=1)
    parts = []
    for turn in (-360.0, 0.0, 360.0):
        shifted = shapely.make_valid(shapely.Polygon(np.add(ring, [turn, 0.0])))
        inside = shapely.intersection(shifted, shapely.box(*WORLD))
        parts += [part for part in shapely.get_parts(inside) if part.geom_type == "Polygon"]
    parts = [part for part in parts if part.area > 0]
    if not parts:
        return None
    return shapely.orient_polygons(shapely.union_all(parts))
