"""Large rasters cut into tiles, each a Scene with its own place, cloudy and empty ones marked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthvlm.scenes.acquisition import PLACE_TAGS, read_acquisition_date
from earthvlm.scenes.band_identification import BandOrder
from earthvlm.scenes.bands import BANDS, REFLECTANCE_SCALE, VISIBLE_BANDS, find_baseline
from earthvlm.scenes.geotiff import (
    CLEAN_TAG,
    find_bands,
    quiet_gdal,
    raster_driver,
    read_valid,
    sample_raster,
)
from earthvlm.scenes.raster_limits import check_blocks, check_directories
from earthvlm.scenes.reflectance import (
    LARGEST_FILLED_SHARE,
    LARGEST_FRACTION,
    BlankSceneError,
    decide_offset,
    mark_empty_pixels,
)
from earthvlm.scenes.scene import Scene

if TYPE_CHECKING:
    import rasterio
    from rasterio.windows import Window

TILE_SIZE = 256  # pixels, as ChatEarthNet's tiles
CLEAR, CLOUDY = "clear", "cloudy"
# A pixel counts as cloud where it is bright in all that is visible, nearly white, and, where that
# is known, too bright in the short-wave infrared to be snow; found by eye, a plain rule.
BRIGHT = 1800  # reflectance x 10000
WHITENESS = 0.25  # the largest departure of a visible band from their mean, as a share of it
SNOW_BELOW = 1000  # of B11, reflectance x 10000
CLOUDY_FROM = 0.6  # share of a tile's pixels


class TiledRaster:
    """An image that is read tile by tile; `empty` counts the tiles without data that were passed.

    Raises ValueError where it is no raster, and where its bands are not Sentinel-2's.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        tile_size: int = TILE_SIZE,
        boa_offset: bool | None = None,
    ) -> None:
        """name: of the tiles, which get _rROW_cCOLUMN where there are several.

        boa_offset: whether its values carry the +1000 offset of newer products; None finds out,
        once for all tiles.
        """
        self.path, self.name, self.tile_size, self.empty = path, name, tile_size, 0
        if raster_driver(path) is None:
            raise ValueError(f"'{path.name}' is neither a GeoTIFF nor JPEG 2000")
        with self._open() as file:
            self.windows = _plan_windows(file.height, file.width, tile_size)
            self._order = find_bands(file, path)
            self._boa_offset = (
                _find_offset(file, path, self._order) if boa_offset is None else boa_offset
            )

    def tiles(self) -> Iterator[tuple[Scene, str]]:
        """Each tile that holds data, with "clear" or "cloudy".

        Raises ValueError as `Scene.open` does for what is no Sentinel-2 reflectance.
        """
        with self._open() as file, tempfile.TemporaryDirectory(prefix="earthvlm-") as folder:
            for (row, column), window in self.windows.items():
                several = len(self.windows) > 1
                name = f"{self.name}_r{row:03d}_c{column:03d}" if several else self.name
                tile = Path(folder) / f"{name}.tif"
                if not _write_tile(file, self._order, window, tile):
                    self.empty += 1
                    continue
                try:
                    scene = Scene.open(tile, boa_offset=self._boa_offset)
                except BlankSceneError:
                    self.empty += 1
                    continue
                finally:
                    tile.unlink()
                yield scene, CLOUDY if measure_cloud(scene) >= CLOUDY_FROM else CLEAR

    @contextmanager
    def _open(self) -> Iterator[rasterio.DatasetReader]:
        import rasterio
        from rasterio.errors import RasterioError

        check_directories(self.path)
        driver = raster_driver(self.path)
        try:
            with quiet_gdal(), rasterio.open(self.path.absolute(), driver=driver) as file:
                check_blocks(file, self.path)
                yield file
        except RasterioError as error:
            raise ValueError(
                f"'{self.path.name}' is damaged (cut short or corrupt); save or download it again"
            ) from error


def measure_cloud(scene: Scene) -> float:
    """The share of a scene's pixels that thick cloud covers, by brightness and whiteness alone.

    It takes bright sand and roofs for cloud, and does not see cirrus and haze.
    """
    visible = scene.reflectance[:, :, [BANDS.index(band) for band in VISIBLE_BANDS]]
    mean = visible.mean(axis=2)
    departure = np.abs(visible - mean[:, :, None]).max(axis=2)
    cloud = (visible.min(axis=2) > BRIGHT) & (departure < WHITENESS * np.maximum(mean, 1))
    if "B11" in scene.bands:
        cloud &= scene.reflectance[:, :, BANDS.index("B11")] > SNOW_BELOW
    return float(cloud.mean())


def _plan_windows(height: int, width: int, size: int) -> dict[tuple[int, int], Window]:
    """Windows that cover it all, each of the tile's size: those at the far edges reach back."""
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
    """Whether an image carries the +1000 offset; None where its metadata says more than this can.

    Decided tile by tile, dark tiles would lose an offset that bright ones keep.
    """
    tags = file.tags()
    if CLEAN_TAG in tags or any(file.offsets):
        return None
    samples = sample_raster(file, list(order.numbers.values()))
    nodata = file.nodatavals[0]
    if nodata:
        samples[samples == nodata] = np.nan
    scales = [file.scales[number - 1] for number in order.numbers.values()]
    values = (samples * np.float32(scales)[:, None]).T[None]
    mark_empty_pixels(values)
    values = values[0][:, ~np.isnan(values[0]).all(axis=0)]
    if not values.size:
        return None
    if np.nanmax(values) <= LARGEST_FRACTION:
        values *= REFLECTANCE_SCALE
    darkest = float(np.nanpercentile(values, 1, axis=0).min())
    date, _ = read_acquisition_date(file, path.stem)
    baseline = find_baseline(tags.get("PROCESSING_BASELINE", ""), path.stem)
    return decide_offset(darkest, date=date, baseline=baseline)[0]


def _write_tile(file: rasterio.DatasetReader, order: BandOrder, window: Window, path: Path) -> bool:
    """Write a window as a file of its own, with all that is known of it; False for an empty one."""
    import rasterio

    numbers = list(order.numbers.values())
    pixels = file.read(numbers, window=window)
    pixels[:, ~read_valid(file, order, window)] = 0
    holes = pixels == 0
    if file.nodatavals[0] is not None and not np.isnan(file.nodatavals[0]):
        holes |= pixels == file.nodatavals[0]
    if pixels.dtype.kind == "f":
        holes |= np.isnan(pixels)
    if holes.all(axis=0).mean() > LARGEST_FILLED_SHARE:
        return False
    profile = {
        "driver": "GTiff",
        "dtype": pixels.dtype,
        "count": len(numbers),
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "crs": file.crs,
        "transform": file.window_transform(window),
        "nodata": file.nodata,
    }
    with rasterio.open(path, "w", **profile) as tile:
        # The place of the whole is not that of a tile.
        tile.update_tags(**{k: v for k, v in file.tags().items() if k not in PLACE_TAGS})
        tile.descriptions = tuple(order.numbers)
        tile.scales = tuple(file.scales[number - 1] for number in numbers)
        tile.offsets = tuple(file.offsets[number - 1] for number in numbers)
        tile.write(pixels)
    return True
