"""Open raster files by GDAL, each by the one driver that its first bytes ask for.

Side files are ignored, and the sizes of the image and of its blocks are checked before any pixel is
read. Every error a user can cause is a ValueError of one sentence.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from earthvlm.scenes.rasters.parallel import REMOTE_THREADS, map_in_threads
from earthvlm.scenes.rasters.raster_limits import GDAL_OPTIONS, check_blocks, check_directories

if TYPE_CHECKING:
    import rasterio

# The first bytes of a file and the one GDAL driver that may open it.
_DRIVERS = {
    **dict.fromkeys((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"), "GTiff"),
    **dict.fromkeys((b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51"), "JP2OpenJPEG"),
}
FIRST_BYTES = 12  # as many as tell a driver
RASTER_SUFFIXES = (".tif", ".tiff", ".jp2")
REMOTE_PREFIX = "/vsicurl/"  # of GDAL's virtual file system for addresses


@dataclass(frozen=True)
class RasterFile:
    """A raster and how GDAL opens it.

    Attributes:
        name: its file name, for messages and for what it tells.
        location: an absolute path, or one of GDAL's virtual file systems.
        driver: GDAL's name of its format.
        path: of a file on disk, else None.
    """

    name: str
    location: str
    driver: str
    path: Path | None = None

    @classmethod
    def on_disk(cls, path: Path) -> RasterFile:
        """Raise ValueError for a file that is neither TIFF nor JPEG 2000."""
        driver = raster_driver(path)
        if driver is None:
            raise ValueError(f"'{path.name}' is neither a GeoTIFF nor JPEG 2000")
        return cls(path.name, str(path.absolute()), driver, path)

    @property
    def is_remote(self) -> bool:
        """Whether it is behind an address."""
        return self.location.startswith(REMOTE_PREFIX)

    @property
    def stem(self) -> str:
        """Its name without the suffix."""
        return Path(self.name).stem


def raster_driver(path: Path) -> str | None:
    """Return GDAL's driver for a TIFF or JPEG 2000 file by its first bytes, else None."""
    try:
        with path.open("rb") as file:
            return driver_of(file.read(FIRST_BYTES))
    except OSError as error:
        raise ValueError(f"'{path}' cannot be opened: {error.strerror}") from error


def file_label(location: str) -> str:
    """Return the name of the file at a location, without the query of an address."""
    return re.split(r"[/\\]", location.partition("?")[0])[-1]


def driver_of(start: bytes) -> str | None:
    """Return GDAL's driver for a file that starts with these bytes, else None."""
    return next((driver for first, driver in _DRIVERS.items() if start.startswith(first)), None)


@contextmanager
def open_raster(raster: RasterFile) -> Iterator[rasterio.DatasetReader]:
    """Open a GeoTIFF or JPEG 2000 file after checks of its layout.

    Raises ValueError where the file is damaged, also while it is read.
    """
    with ExitStack() as stack, explained(raster.name, raster.location):
        yield open_rasters([raster], stack)[0]


def open_rasters(rasters: Sequence[RasterFile], stack: ExitStack) -> list[rasterio.DatasetReader]:
    """Open files, which `stack` closes, after checks of their layout.

    Those behind addresses are opened side by side. Raises ValueError where one is damaged.
    """
    stack.enter_context(quiet_gdal())
    threads = REMOTE_THREADS if any(raster.is_remote for raster in rasters) else 1
    opened = map_in_threads(_open_checked, rasters, threads)
    for file in opened:
        stack.enter_context(file)
    return opened


def _open_checked(raster: RasterFile) -> rasterio.DatasetReader:
    import rasterio

    if raster.path is not None:
        with raster.path.open("rb") as stream:
            check_directories(stream, raster.name)
    with explained(raster.name, raster.location):
        file = rasterio.open(raster.location, driver=raster.driver)
        try:
            check_blocks(file, raster.name)
        except BaseException:
            file.close()
            raise
        return file


@contextmanager
def explained(name: str, location: str) -> Iterator[None]:
    """Turn GDAL's errors about a file into a ValueError of one sentence that names it."""
    from rasterio._err import CPLE_BaseError  # GDAL's own, which RasterioError does not cover
    from rasterio.errors import RasterioError

    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        raise ValueError(_explain(name, location, str(error))) from error


def _explain(name: str, location: str, error: str) -> str:
    if "missing codec" in error or "compression" in error.lower():
        return (
            f"'{name}' has a compression that is not supported here; save it with "
            "DEFLATE, LZW or ZSTD"
        )
    if location.startswith(REMOTE_PREFIX):
        return f"'{name}' could not be read from its address: {error.rstrip('.')[:200]}"
    return f"'{name}' is damaged (cut short or corrupt); save or download it again"


@contextmanager
def quiet_gdal() -> Iterator[None]:
    """No side files, a small cache, and no warning about files without a grid."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
