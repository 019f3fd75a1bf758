"""Cut large rasters into tiles, each a Scene with its own place, and mark cloudy and empty ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthvlm.scenes.acquisition import read_acquisition_date
from earthvlm.scenes.band_identification import BandOrder
from earthvlm.scenes.bands import REFLECTANCE_SCALE, find_baseline
from earthvlm.scenes.geotiff import CLEAN_TAG, open_raster, raster_driver, read_scene
from earthvlm.scenes.raster_values import find_bands, plan_samples, read_values
from earthvlm.scenes.reflectance import (
    LARGEST_FRACTION,
    BlankSceneError,
    decide_offset,
)
from earthvlm.scenes.scene import Scene
from earthvlm.scenes.spectral_indices import find_cloud

if TYPE_CHECKING:
    import rasterio
    from rasterio.windows import Window

TILE_SIZE = 256  # pixels, as ChatEarthNet's tiles
CLEAR, CLOUDY = "clear", "cloudy"
MIN_CLOUDY_SHARE = 0.6  # of a tile's pixels


class TiledRaster:
    """A raster that is read tile by tile; `empty` counts tiles left out for lack of data.

    Args:
        path: A GeoTIFF or JPEG 2000 file.
        name: The tiles' name; where there are several, _rROW_cCOLUMN is added.
        tile_size: Pixels a side.
        boa_offset: Whether the values carry the +1000 offset of newer products; None decides from
            pixels of the whole raster, for all tiles alike.

    Raises:
        ValueError: The file is no raster, or its bands are not Sentinel-2's.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        tile_size: int = TILE_SIZE,
        boa_offset: bool | None = None,
    ) -> None:
        self.path, self.name, self.tile_size, self.empty = path, name, tile_size, 0
        if raster_driver(path) is None:
            raise ValueError(f"'{path.name}' is neither a GeoTIFF nor JPEG 2000")
        with open_raster(path) as file:
            self._order = find_bands(file, path)
            self.windows = _plan_windows(file.height, file.width, tile_size)
            self._boa_offset = boa_offset
            if boa_offset is None:
                self._boa_offset = _find_offset(file, path, self._order)

    def tiles(self) -> Iterator[tuple[Scene, str]]:
        """Yield each tile that holds data, with "clear" or "cloudy".

        Raises ValueError as `Scene.open` does for what is no Sentinel-2 reflectance.
        """
        with open_raster(self.path) as file:
            for (row, column), window in self.windows.items():
                scene = self._read_tile(file, row, column, window)
                if scene is None:
                    self.empty += 1
                else:
                    cloud = find_cloud(scene)
                    seen = cloud if scene.valid is None else cloud[scene.valid]
                    cloudy = seen.mean() >= MIN_CLOUDY_SHARE
                    yield scene, CLOUDY if cloudy else CLEAR

    def _read_tile(
        self, file: rasterio.DatasetReader, row: int, column: int, window: Window
    ) -> Scene | None:
        """Read a tile; None where it has data in less than half of its pixels."""
        several = len(self.windows) > 1
        try:
            image = read_scene(
                file,
                self.path,
                order=self._order,
                window=window if several else None,
                boa_offset=self._boa_offset,
            )
        except BlankSceneError:
            return None
        name = f"{self.name}_r{row:03d}_c{column:03d}" if several else self.name
        return Scene(**vars(image) | {"name": name})


def _plan_windows(height: int, width: int, size: int) -> dict[tuple[int, int], Window]:
    """Return windows that cover the raster; those at the far edges overlap their neighbours."""
    from rasterio.windows import Window

    def starts(length: int) -> list[int]:
        count = -(-length // size)
        return [min(number * size, max(length - size, 0)) for number in range(count)]

    return {
        (row, column): Window(left, top, min(size, width), min(size, height))
        for row, top in enumerate(starts(height))
        for column, left in enumerate(starts(width))
    }


def _find_offset(file: rasterio.DatasetReader, path: Path, order: BandOrder) -> bool | None:
    """Decide from a sample whether a raster carries the +1000 offset; None leaves it to its tags.

    Decided tile by tile, dark tiles would lose an offset that bright ones keep.
    """
    if CLEAN_TAG in file.tags():
        return None
    samples = []
    for window in plan_samples(file.height, file.width):
        values, has_offset_tag, _ = read_values(file, order, window)
        if has_offset_tag:
            return None
        samples.append(values.reshape(-1, values.shape[2]))
    values = np.concatenate(samples)
    values = values[:, ~(np.isnan(values) | (values == 0)).all(axis=0)]
    if not values.size:
        return None
    if np.nanpercentile(values, 99) <= LARGEST_FRACTION:
        values *= REFLECTANCE_SCALE
    darkest = float(np.nanpercentile(values, 1, axis=0).min())
    date, _ = read_acquisition_date(file, path.stem)
    baseline = find_baseline(file.tags().get("PROCESSING_BASELINE", ""), path.stem)
    return decide_offset(darkest, date=date, baseline=baseline)[0]
