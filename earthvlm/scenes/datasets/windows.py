"""Read parts of a dataset's layers, at their size or another, block by block as they are stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthvlm.scenes.grid import Grid

if TYPE_CHECKING:
    import xarray as xr

_BLOCK_PIXELS = 2**20  # of what is read at once where nothing tells how a layer is stored
_READING_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError)
# Rows and columns of the corners of a part, which may lie between pixels: top, left, bottom, right.
Corners = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Layer:
    """A band or a mask on a grid of its own, which is read from its file when it is asked for.

    Attributes:
        array: `[H, W]`, north and west first.
        grid: where its pixels lie, or None.
        source: names the dataset in errors.
        fills: the values that stand for no data.
        block: rows and columns that are stored as one, or None.
    """

    array: xr.DataArray
    grid: Grid | None
    source: str
    fills: tuple[float, ...] = ()
    block: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Its height and width in pixels."""
        return self.array.shape[0], self.array.shape[1]

    def read(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """Read a window as stored, float32 `[H, W]`, NaN where there is no data.

        Raises ValueError where it is damaged.
        """
        try:
            values = self.array[top:bottom, left:right].values.astype(np.float32)
        except _READING_ERRORS as error:
            raise ValueError(
                f"{self.source} is damaged (cut short or corrupt): {str(error)[:200]}"
            ) from error
        for fill in self.fills:
            values[values == np.float32(fill)] = np.nan
        return values

    def read_resampled(
        self, corners: Corners, rows: int, columns: int, *, nearest: bool = False
    ) -> np.ndarray:
        """Read a part at a size, float32 `[rows, columns]`.

        Pixels that become smaller are interpolated (bilinear), those that become larger averaged;
        nearest: the pixel at the centre is taken instead, as of classes.
        """
        top, left, bottom, right = corners
        if (bottom - top, right - left) == (rows, columns) and top % 1 == left % 1 == 0:
            return self.read(int(top), int(left), int(bottom), int(right))
        if bottom - top <= rows and right - left <= columns:
            return self._read_enlarged(corners, rows, columns, nearest)
        return self._read_reduced(corners, rows, columns, nearest)

    def _read_enlarged(
        self, corners: Corners, rows: int, columns: int, nearest: bool
    ) -> np.ndarray:
        """Interpolate between pixel centres; beyond the outermost ones they are continued."""
        top, left, bottom, right = corners
        y = np.clip(_centres(top, bottom, rows) - 0.5, 0, self.shape[0] - 1)
        x = np.clip(_centres(left, right, columns) - 0.5, 0, self.shape[1] - 1)
        first_row, first_column = int(y[0]), int(x[0])
        last_row, last_column = (
            min(int(at[-1]) + 2, side) for at, side in zip((y, x), self.shape, strict=True)
        )
        values = self.read(first_row, first_column, last_row, last_column)
        y, x = y - first_row, x - first_column
        if nearest:
            return values[np.ix_(np.floor(y + 0.5).astype(int), np.floor(x + 0.5).astype(int))]
        return _interpolate(_interpolate(values, y).T, x).T

    def _read_reduced(self, corners: Corners, rows: int, columns: int, nearest: bool) -> np.ndarray:
        """Average, or take the pixel at the centre of, all that falls into each new pixel."""
        top, left, bottom, right = corners
        result = np.full((rows, columns), np.nan, np.float32)
        if nearest:
            y, x = (
                _centres(start, end, count).astype(int)
                for start, end, count in ((top, bottom, rows), (left, right, columns))
            )
            for window in self._blocks(corners):
                at_row, at_column = (
                    np.flatnonzero((at >= first) & (at < last))
                    for at, first, last in ((y, window[0], window[2]), (x, window[1], window[3]))
                )
                if len(at_row) and len(at_column):
                    values = self.read(*window)
                    where = np.ix_(y[at_row] - window[0], x[at_column] - window[1])
                    result[np.ix_(at_row, at_column)] = values[where]
            return result
        sums, counts = np.zeros((rows, columns)), np.zeros((rows, columns))
        for window in self._blocks(corners):
            values = self.read(*window)
            seen = np.isfinite(values)
            y = _bins(window[0], window[2], top, bottom, rows)
            x = _bins(window[1], window[3], left, right, columns)
            where = np.ix_(np.unique(y), np.unique(x))
            sums[where] += _add_up(np.where(seen, values, 0), y, x)
            counts[where] += _add_up(seen, y, x)
        return np.divide(sums, counts, out=result, where=counts > 0, casting="same_kind")

    def _blocks(self, corners: Corners) -> Iterator[tuple[int, int, int, int]]:
        """Yield windows that cover a part, each within one block as the layer is stored."""
        height, width = self.block or (max(1, _BLOCK_PIXELS // self.shape[1]), self.shape[1])
        top, left = max(0, int(corners[0])), max(0, int(corners[1]))
        bottom, right = (
            min(int(np.ceil(corner)), side)
            for corner, side in zip(corners[2:], self.shape, strict=True)
        )
        for row in range(top // height * height, bottom, height):
            for column in range(left // width * width, right, width):
                yield (
                    max(row, top),
                    max(column, left),
                    min(row + height, bottom),
                    min(column + width, right),
                )


def _centres(start: float, end: float, count: int) -> np.ndarray:
    return start + (np.arange(count) + 0.5) * ((end - start) / count)


def _interpolate(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolate rows at places between them."""
    before = np.minimum(at.astype(int), len(values) - 1)
    after = np.minimum(before + 1, len(values) - 1)
    weight = (at - before).astype(np.float32)[:, None]
    return np.where(
        weight == 0, values[before], values[before] * (1 - weight) + values[after] * weight
    )


def _bins(first: int, last: int, start: float, end: float, count: int) -> np.ndarray:
    """Return into which new pixel each old one falls, by its centre."""
    at = (np.arange(first, last) + 0.5 - start) * (count / (end - start))
    return np.clip(at.astype(int), 0, count - 1)


def _add_up(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Add up the values of each row's and column's bin; bins are sorted."""
    tops, lefts = (np.flatnonzero(np.diff(bins, prepend=-1)) for bins in (rows, columns))
    down = np.add.reduceat(values, tops, axis=0, dtype=np.float64)
    return np.add.reduceat(down, lefts, axis=1)
