"""Where the pixels of an image come from: what open rasters and open datasets have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from earthvlm.scenes.grid import Grid
from earthvlm.scenes.parts import Part, full_size
from earthvlm.scenes.rasters.value_rules import ValueTags, classify_clouds, keep_known_classes

# Samples that decide something for a whole image: windows a side, pixels a side of one.
SAMPLE_WINDOWS, SAMPLE_SIDE = 4, 128
# An overview is read from pixels that are at most 1.6 times as large.
LARGEST_ENLARGEMENT = 1 / 1.6


@dataclass(frozen=True, eq=False)
class StoredPixels:
    """Pixels as they are stored.

    Attributes:
        values: float32 `[H, W, C]`, NaN where a mask or a nodata value says that there is no data.
        scl: ESA's scene classification, uint8 `[H, W]`, or None.
        masked: whether a mask left out any of them.
    """

    values: np.ndarray
    scl: np.ndarray | None = None
    masked: bool = False

    def cut(self, row: int, column: int, height: int, width: int) -> StoredPixels:
        """Return a copy of a part."""
        where = (slice(row, row + height), slice(column, column + width))
        scl = None if self.scl is None else self.scl[where]
        return StoredPixels(self.values[where].copy(), scl, self.masked)


class PixelSource(ABC):
    """Bands that show one place, and the masks that belong to them, read part by part.

    Iterating over it yields the names of its bands.

    Attributes:
        source: names the image in errors.
        shape: height and width in pixels of its finest bands.
        grid: where these lie, None where that is not known.
        dtypes: the types of values that its bands hold.
        tags: scale and offset of its bands as files or datasets give them.
        block_width: columns of the blocks that are decoded as one.
        mirrored_axes: the axes of `[H, W]` to reverse for north and west to come first.
        pixel_metres: the side of a pixel on the ground, None where it is not known.
        place: longitude and latitude of the centre that tags tell, or None.
    """

    source: str
    shape: tuple[int, int]
    grid: Grid | None
    dtypes: set[str]
    tags: ValueTags
    block_width: int
    mirrored_axes: tuple[int, ...] = ()
    pixel_metres: float | None = None
    place: tuple[float, float] | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[str]: ...

    @abstractmethod
    def refuse_other_sensors(self, name: str) -> None:
        """Raise ValueError where tags, pixel size or the scene's name tell that it is of others."""

    @abstractmethod
    def sample_parts(self) -> list[Part]:
        """Return the parts that stand for the whole: an overview, or evenly spaced windows."""

    @abstractmethod
    def _read_values(self, part: Part, masks: bool) -> np.ndarray:
        """Read the bands of a part, float32 `[H, W, C]`, NaN at nodata values where masks count."""

    @abstractmethod
    def _read_mask(self, kind: str, part: Part) -> np.ndarray | None:
        """Read the band that is a "mask", "scl" or "clouds", `[H, W]`; None without one."""

    def read(self, part: Part, *, masks: bool = True) -> StoredPixels:
        """Read a part at its size.

        masks: whether masks and nodata values are applied.
        """
        if not masks:
            return StoredPixels(self._read_values(part, masks), self._read_classification(part))
        values, masked = self._read_masked(part)
        return StoredPixels(values, self._read_classification(part), masked)

    def read_valid(self, part: Part) -> np.ndarray | None:
        """Return where masks say that there is data, bool `[H, W]`.

        None where there is no mask, or it leaves out nothing.
        """
        mask = self._read_mask("mask", part)
        return None if mask is None or mask.all() else mask != 0

    def sample(self) -> np.ndarray:
        """Read pixels that stand for the whole image, masks applied, float32 `[N, C]`."""
        values = [self._read_masked(part)[0] for part in self.sample_parts()]
        return np.concatenate([each.reshape(-1, each.shape[2]) for each in values])

    def _read_masked(self, part: Part) -> tuple[np.ndarray, bool]:
        """Read values with masks applied, and whether a mask left out any of them."""
        values = self._read_values(part, masks=True)
        valid = self.read_valid(part)
        if valid is not None:
            values[~valid] = np.nan
        return values, valid is not None

    def _read_classification(self, part: Part) -> np.ndarray | None:
        """Read ESA's scene classification, uint8 `[H, W]`, or make one of a cloud mask; else None.

        Of a cloud mask, clouds get the class of clouds of high probability and all else 0.
        """
        classes = self._read_mask("scl", part)
        if classes is not None:
            return keep_known_classes(classes)
        clouds = self._read_mask("clouds", part)
        return None if clouds is None else classify_clouds(clouds)

    def _locate_in(
        self, grid: Grid | None, shape: tuple[int, int], row: float, column: float
    ) -> tuple[float, float]:
        """Return where a pixel corner of the finest bands lies in a band of another size.

        grid, shape: of that band, at whose edges the corner lies at most.
        """
        if self.grid is None or grid is None:
            places = row * shape[0] / self.shape[0], column * shape[1] / self.shape[1]
        else:
            places = grid.to_pixels(*self.grid.to_map(float(row), float(column)))
        return min(max(places[0], 0.0), shape[0]), min(max(places[1], 0.0), shape[1])


def plan_samples(height: int, width: int, windows: int = SAMPLE_WINDOWS) -> list[Part]:
    """Return evenly spaced windows in an image of this size."""
    rows, columns = min(height, SAMPLE_SIDE), min(width, SAMPLE_SIDE)
    tops = np.unique(np.linspace(0, height - rows, windows).astype(int))
    lefts = np.unique(np.linspace(0, width - columns, windows).astype(int))
    return [full_size(int(top), int(left), rows, columns) for top in tops for left in lefts]
