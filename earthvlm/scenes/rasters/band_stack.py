"""The bands of one image in open rasters, of one pixel size or of several, read to one grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from earthvlm.scenes.grid import Grid
from earthvlm.scenes.parts import Part, full_size
from earthvlm.scenes.rasters.acquisition import (
    find_mirrored_axes,
    read_pixel_metres,
    read_place_tags,
    refuse_other_sensors,
)
from earthvlm.scenes.rasters.parallel import LOCAL_THREADS, REMOTE_THREADS, map_in_threads
from earthvlm.scenes.rasters.pixel_source import (
    LARGEST_ENLARGEMENT,
    SAMPLE_SIDE,
    SAMPLE_WINDOWS,
    PixelSource,
    plan_samples,
)
from earthvlm.scenes.rasters.raster_file import REMOTE_PREFIX, explained, file_label
from earthvlm.scenes.rasters.value_rules import ValueTags

if TYPE_CHECKING:
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.windows import Window

# Bands of a file with at least this many pixels are decoded by threads with handles of their own.
LARGE_PIXELS = 512 * 512
# Behind an address two windows a side have to do as samples, for each is fetched.
_REMOTE_WINDOWS = 2
# A band's pixels may differ from the finest ones by this share of a pixel in where they lie.
_LARGEST_MISFIT = 0.01


class BandFile(NamedTuple):
    """A band in an open raster: the raster, and the band's number from 1."""

    file: rasterio.DatasetReader
    number: int = 1


class BandStack(PixelSource):
    """Bands that show one place, and the masks that belong to them.

    Args:
        bands: each band's name and where it is.
        source: names the image in errors.
        mask: a band that is 0 where there is no data.
        scl: ESA's scene classification.
        clouds: a band that is 1 where there is cloud.

    Raises:
        ValueError: the bands' rasters show different places.
    """

    def __init__(
        self,
        bands: Mapping[str, BandFile],
        source: str,
        *,
        mask: BandFile | None = None,
        scl: BandFile | None = None,
        clouds: BandFile | None = None,
    ) -> None:
        from rasterio.enums import Interleaving

        self.bands, self.source = dict(bands), source
        masks = {"mask": mask, "scl": scl, "clouds": clouds}
        self._masks = {kind: band for kind, band in masks.items() if band}
        self.finest = max(
            (band.file for band in self.bands.values()), key=lambda file: file.height * file.width
        )
        self.shape = (self.finest.height, self.finest.width)
        self.grid = Grid.of_raster(self.finest)
        self.dtypes = {band.file.dtypes[band.number - 1] for band in self.bands.values()}
        self.tags = ValueTags(
            tuple(file.scales[number - 1] for file, number in self.bands.values()),
            tuple(file.offsets[number - 1] for file, number in self.bands.values()),
        )
        self.block_width = self.finest.block_shapes[0][1]
        self._is_remote = self.finest.name.startswith(REMOTE_PREFIX)
        files = {id(band.file) for band in self.bands.values()}
        # Pixel by pixel, one request fetches all bands of a block.
        by_band = self.finest.interleaving != Interleaving.pixel
        self._threads = REMOTE_THREADS if self._is_remote else LOCAL_THREADS
        is_slow = self._is_remote or self.finest.height * self.finest.width >= LARGE_PIXELS
        self._needs_handles = len(files) == 1 and by_band and is_slow and self._threads > 1
        self.mirrored_axes = find_mirrored_axes(self.finest)
        self.pixel_metres = read_pixel_metres(self.finest)
        self.place = read_place_tags(self.finest)
        others = [("a mask", band) for band in self._masks.values()]
        for name, band in [*self.bands.items(), *others]:
            if band.file is not self.finest:
                self._check_place(name, band.file)

    def __iter__(self) -> Iterator[str]:
        return iter(self.bands)

    def refuse_other_sensors(self, name: str) -> None:
        """Raise ValueError where tags, pixel size or a name tell that it is no Sentinel-2."""
        refuse_other_sensors(self.finest, name, self.source)

    def _read_values(self, part: Part, masks: bool) -> np.ndarray:
        values = np.empty((part.rows, part.columns, len(self.bands)), np.float32)

        def read_bands(numbered: Sequence[tuple[int, BandFile]]) -> None:
            with self._own_handle(numbered[0][1].file) as file:
                for index, band in numbered:
                    values[:, :, index] = self._read_stored(band._replace(file=file), part, masks)

        map_in_threads(read_bands, self._share_work(), self._threads)
        return values

    def _read_stored(self, band: BandFile, part: Part, masks: bool) -> np.ndarray:
        from rasterio.enums import Resampling

        shrinking = Resampling.average if masks else Resampling.nearest
        values = self._read_band(band, part, shrinking, Resampling.bilinear)
        nodata = band.file.nodatavals[band.number - 1]
        # A nodata value of 0 counts where every band is 0: a single dark band is a real 0.
        if masks and nodata:
            values = values.astype(np.float32)
            values[values == np.float32(nodata)] = np.nan
        return values

    def _share_work(self) -> list[list[tuple[int, BandFile]]]:
        """Group the bands, with their indices, by what one thread reads.

        Bands of one file share its decoded blocks, and no two threads may read a file at once.
        Where one file holds all, each is fetched or decoded on its own if that takes long.
        """
        shares: dict[int, list[tuple[int, BandFile]]] = {}
        for index, band in enumerate(self.bands.values()):
            key = index if self._needs_handles else id(band.file)
            shares.setdefault(key, []).append((index, band))
        return list(shares.values())

    @contextmanager
    def _own_handle(self, file: rasterio.DatasetReader) -> Iterator[rasterio.DatasetReader]:
        """Yield a raster that no other thread uses; errors while it is read name the file."""
        import rasterio

        with explained(file_label(file.name), file.name):
            if not self._needs_handles:
                yield file
                return
            with rasterio.open(file.name, driver=file.driver) as own:
                yield own

    def read_valid(self, part: Part) -> np.ndarray | None:
        """Return where a mask band, an alpha band or an internal mask says that there is data.

        Bool `[H, W]`; None where there is no mask, or it leaves out nothing.
        """
        from rasterio.enums import MaskFlags, Resampling

        if "mask" in self._masks:
            return super().read_valid(part)
        valid, nearest = None, Resampling.nearest
        for file, number in self._one_band_a_file():
            flags = file.mask_flag_enums[number - 1]
            if MaskFlags.per_dataset in flags and MaskFlags.nodata not in flags:
                band = BandFile(file, number)
                inside = self._read_band(band, part, nearest, nearest, of_mask=True) != 0
                valid = inside if valid is None else valid & inside
        return None if valid is None or valid.all() else valid

    def _read_mask(self, kind: str, part: Part) -> np.ndarray | None:
        from rasterio.enums import Resampling

        nearest, band = Resampling.nearest, self._masks.get(kind)
        return None if band is None else self._read_band(band, part, nearest, nearest)

    def sample_parts(self) -> list[Part]:
        """Return the parts that stand for the whole: an overview, or evenly spaced windows."""
        height, width = self.shape
        windows = _REMOTE_WINDOWS if self._is_remote else SAMPLE_WINDOWS
        side = SAMPLE_SIDE if self._is_remote else windows * SAMPLE_SIDE
        if max(height, width) > side and all(b.file.overviews(1) for b in self.bands.values()):
            return [full_size(0, 0, height, width).shrunk(side)]
        return plan_samples(height, width, windows)

    def _one_band_a_file(self) -> list[BandFile]:
        found: dict[int, BandFile] = {}
        for band in self.bands.values():
            found.setdefault(id(band.file), band)
        return list(found.values())

    def _read_band(
        self,
        band: BandFile,
        part: Part,
        shrinking: Resampling,
        enlarging: Resampling,
        *,
        of_mask: bool = False,
    ) -> np.ndarray:
        """Read one band to the size of a part, `[rows, columns]`."""
        from rasterio.windows import Window

        read = band.file.read_masks if of_mask else band.file.read
        window = Window(part.column, part.row, part.width, part.height)
        if band.file.shape == self.shape and not part.is_reduced:
            return read(band.number, window=window)
        grid, shape = Grid.of_raster(band.file), band.file.shape
        top, left = self._locate_in(grid, shape, part.row, part.column)
        bottom, right = self._locate_in(
            grid, shape, part.row + part.height, part.column + part.width
        )
        window = Window(left, top, right - left, bottom - top)
        if part.is_reduced and not of_mask and shrinking != enlarging:
            smaller = _read_overview(band, window, (part.rows, part.columns))
            if smaller is not None:
                return smaller
        coarser = window.height < part.rows or window.width < part.columns
        return read(
            band.number,
            window=window,
            out_shape=(part.rows, part.columns),
            resampling=enlarging if coarser else shrinking,
        )

    def _check_place(self, name: str, file: rasterio.DatasetReader) -> None:
        """Raise ValueError for a raster that does not cover the finest one."""
        grid = Grid.of_raster(file)
        if self.grid is None or grid is None:
            wanted, found = self.shape[1] / self.shape[0], file.width / file.height
            fits = abs(wanted / found - 1) <= 0.1
        else:
            corners = [
                grid.to_pixels(*self.grid.to_map(float(row), float(column)))
                for row, column in ((0, 0), self.shape)
            ]
            rows, columns = zip(*corners, strict=True)
            margin = 1 + _LARGEST_MISFIT
            fits = (
                file.crs == self.finest.crs
                and min(columns) >= -margin
                and min(rows) >= -margin
                and max(columns) <= file.width + margin
                and max(rows) <= file.height + margin
            )
        if not fits:
            raise ValueError(
                f"{self.source} holds bands of different places or projections ({name} does not "
                "cover the same ground); give the bands of one scene"
            )


def _read_overview(band: BandFile, window: Window, shape: tuple[int, int]) -> np.ndarray | None:
    """Read a window from the overview that is a little coarser than asked for; None without one.

    Of JPEG 2000 it is decoded four times as fast as the next finer one, which GDAL would take.
    """
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.windows import Window

    factors = band.file.overviews(band.number)
    wanted = min(window.height / shape[0], window.width / shape[1])
    fit = [level for level, factor in enumerate(factors) if factor * LARGEST_ENLARGEMENT <= wanted]
    if not fit or factors[fit[-1]] < 2:
        return None
    file = band.file
    with rasterio.open(file.name, driver=file.driver, overview_level=fit[-1]) as overview:
        down, across = file.height / overview.height, file.width / overview.width
        inside = Window(
            window.col_off / across,
            window.row_off / down,
            window.width / across,
            window.height / down,
        )
        return overview.read(
            band.number, window=inside, out_shape=shape, resampling=Resampling.bilinear
        )


def sample_raster(file: rasterio.DatasetReader, numbers: Sequence[int]) -> np.ndarray:
    """Read pixels of evenly spaced windows of the whole raster as stored, float32 `[C, N]`."""
    from rasterio.windows import Window

    samples = [
        file.read(
            list(numbers), window=Window(part.column, part.row, part.width, part.height)
        ).reshape(len(numbers), -1)
        for part in plan_samples(file.height, file.width)
    ]
    return np.concatenate(samples, axis=1).astype(np.float32)
