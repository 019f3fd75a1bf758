"""Read Sentinel-2 GeoTIFFs and JPEG 2000 files to reflectance, and write GeoTIFFs, by rasterio.

Only local files of these formats are opened (none that points elsewhere), without side files, and
the sizes of the image and of its blocks are checked before any pixel is read. Every error a user
can cause is a ValueError of one sentence.
"""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthvlm.scenes.acquisition import (
    DATE_TAG,
    PIXEL_TAG,
    PLACE_TAGS,
    find_mirrored_axes,
    read_acquisition_date,
    read_pixel_metres,
    read_place,
    refuse_other_sensors,
)
from earthvlm.scenes.band_identification import BandOrder
from earthvlm.scenes.bands import BANDS, VISIBLE_BANDS, find_baseline
from earthvlm.scenes.decoded_image import DecodedImage
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.photo_raster import is_photo_raster, read_photo_raster
from earthvlm.scenes.product import Product, product_tags, read_product
from earthvlm.scenes.raster_limits import GDAL_OPTIONS, check_blocks, check_directories
from earthvlm.scenes.raster_values import (
    find_bands,
    read_classification,
    read_stored_values,
    read_valid,
    read_values,
    size_of,
)
from earthvlm.scenes.reflectance import (
    MIN_BANDS,
    check_size,
    convert_to_reflectance,
    drop_empty_bands,
    fill_missing_pixels,
    mark_empty_bands,
    place_bands,
    refuse_flat_values,
    remove_offset,
)

if TYPE_CHECKING:
    import rasterio
    from rasterio.windows import Window

# The first bytes of a file and the one GDAL driver that may open it.
_DRIVERS = {
    **dict.fromkeys((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"), "GTiff"),
    **dict.fromkeys((b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51"), "JP2OpenJPEG"),
}
# Written by write_geotiff: the values are clean reflectance x 10000, and nothing is to be guessed.
CLEAN_TAG = "EARTHVLM_REFLECTANCE"
TOP_OF_ATMOSPHERE_NOTE = (
    "It is a level-1C product, reflectance at the top of the atmosphere: haze brightens its blue "
    "bands, and band B10 is not used."
)


def raster_driver(path: Path) -> str | None:
    """Return GDAL's driver for a TIFF or JPEG 2000 file by its first bytes, else None."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError as error:
        raise ValueError(f"'{path}' cannot be opened: {error.strerror}") from error
    return next((driver for first, driver in _DRIVERS.items() if start.startswith(first)), None)


@contextmanager
def open_raster(path: Path) -> Iterator[rasterio.DatasetReader]:
    """Open a GeoTIFF or JPEG 2000 file after checks of its layout.

    Raises ValueError where the file is damaged, also while it is read.
    """
    import rasterio
    from rasterio._err import CPLE_BaseError  # GDAL's own, which RasterioError does not cover
    from rasterio.errors import RasterioError

    check_directories(path)
    try:
        with quiet_gdal(), rasterio.open(path.absolute(), driver=raster_driver(path)) as file:
            check_blocks(file, path)
            yield file
    except (RasterioError, CPLE_BaseError) as error:
        if "missing codec" in str(error) or "compression" in str(error).lower():
            raise ValueError(
                f"'{path.name}' has a compression that is not supported here; save it with "
                "DEFLATE, LZW or ZSTD"
            ) from error
        raise ValueError(
            f"'{path.name}' is damaged (cut short or corrupt); save or download it again"
        ) from error


def read_geotiff(path: Path, *, boa_offset: bool | None = None) -> DecodedImage:
    """Read a Sentinel-2 GeoTIFF; an 8-bit file of 1, 3 or 4 bands is a picture.

    `boa_offset` says whether the values carry the +1000 offset of newer products; None finds out.
    """
    with open_raster(path) as file:
        if is_photo_raster(file):
            return read_photo_raster(file, path)
        return read_scene(file, path, boa_offset=boa_offset)


def read_scene(
    file: rasterio.DatasetReader,
    path: Path,
    *,
    order: BandOrder | None = None,
    window: Window | None = None,
    boa_offset: bool | None = None,
) -> DecodedImage:
    """Read the bands of an open raster, or of a window of it, as reflectance.

    order: which band is which; None finds out.
    """
    source = f"'{path.name}'"
    clean = CLEAN_TAG in file.tags() and set(file.dtypes) == {"uint16"}
    check_size(*size_of(file, window), source)
    order = order or find_bands(file, path)
    bands = tuple(order.numbers)
    if not clean:
        _require_visible_bands(bands, source)
        _refuse_other_values(file, source)
        refuse_other_sensors(file, path.stem, source)
    date, notes = read_acquisition_date(file, path.stem)
    notes = [*order.notes, *notes]
    scl = read_classification(file, order, window)
    grid = Grid.of_raster(file, window)
    if clean:
        values = read_stored_values(file, order, window)
        valid: np.ndarray | None = read_valid(file, order, window)
    else:
        values, has_offset_tag, value_notes = read_values(file, order, window)
        notes += value_notes
        values, bands, valid, value_notes = _convert(values, bands, source)
        notes += value_notes
        notes += remove_offset(
            values,
            date=date,
            baseline=find_baseline(file.tags().get("PROCESSING_BASELINE", ""), path.stem),
            boa_offset=False if has_offset_tag and boa_offset is None else boa_offset,
        )
        if "MSIL1C" in path.stem.upper() or "B10" in order.numbers:
            notes.append(TOP_OF_ATMOSPHERE_NOTE)
        if axes := find_mirrored_axes(file):
            values = np.flip(values, axes)
            valid = None if valid is None else np.flip(valid, axes)
            scl = None if scl is None else np.flip(scl, axes)
            grid = grid and grid.flip(axes, *values.shape[:2])
            notes.append("Its grid is mirrored, so it was turned: north is at the top.")
    return DecodedImage(
        place_bands(values, bands),
        path.stem,
        date,
        *read_place(file, window),
        tuple(notes),
        pixel_metres=read_pixel_metres(file),
        valid=None if valid is None or valid.all() else valid,
        scl=scl,
        grid=grid,
        product=read_product(file.tags(), path.stem),
    )


def _refuse_other_values(file: rasterio.DatasetReader, source: str) -> None:
    if any(np.dtype(dtype).kind not in "uif" for dtype in file.dtypes):
        raise ValueError(f"{source} holds complex numbers; give reflectance x 10000")
    if set(file.dtypes) == {"uint8"}:
        raise ValueError(
            f"{source} holds 8-bit values, which are not reflectance; "
            "give reflectance x 10000 as 16-bit integers"
        )


def _convert(
    values: np.ndarray, bands: tuple[str, ...], source: str
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None, list[str]]:
    """Fill missing pixels, leave out empty bands and convert to reflectance x 10000.

    Returns the values, their bands, which pixels hold data (None where all do) and notes.
    """
    mark_empty_bands(values)
    refuse_flat_values(values, source)
    valid, notes = fill_missing_pixels(values, source)
    values, bands, lost = drop_empty_bands(values, bands)
    _require_visible_bands(bands, source)
    return values, bands, valid, [*notes, *lost, *convert_to_reflectance(values, source)]


def write_geotiff(
    path: Path,
    reflectance: np.ndarray,
    date: datetime.date | None = None,
    longitude: float | None = None,
    latitude: float | None = None,
    pixel_metres: float | None = None,
    *,
    valid: np.ndarray | None = None,
    scl: np.ndarray | None = None,
    grid: Grid | None = None,
    product: Product | None = None,
) -> None:
    """Write `[H, W, 12]` reflectance as uint16 x 10000, with band names, date and product in tags.

    Bands that are NaN are left out. `valid` becomes the file's mask and `scl` its last band.
    Without a grid, centre and pixel size are in tags.
    """
    import rasterio

    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder '{path.parent}' to save '{path.name}' in")
    present = np.flatnonzero(~np.isnan(reflectance[0, 0]))
    height, width = reflectance.shape[:2]
    tags = {CLEAN_TAG: "reflectance x 10000, without offset, 0 is a value"} | product_tags(product)
    if date is not None:
        tags[DATE_TAG] = date.isoformat()
    # With a grid, a tag would be wrong once another program has cut or moved the file.
    if grid is None and longitude is not None and latitude is not None:
        tags |= dict(zip(PLACE_TAGS, map(repr, (longitude, latitude)), strict=True))
    if grid is None and pixel_metres is not None:
        tags[PIXEL_TAG] = repr(pixel_metres)
    # Band by band: a quarter smaller than interleaved by pixel on real scenes.
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "uint16", "interleave": "band"}
    profile |= {"compress": "deflate", "predictor": 2, "zlevel": 9}
    size = {"count": len(present) + (scl is not None), "height": height, "width": width}
    if grid is not None:
        profile |= {"crs": grid.crs, "transform": rasterio.Affine(*grid.transform)}
    mask_inside = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True)
    with quiet_gdal(), mask_inside, rasterio.open(path.absolute(), "w", **profile, **size) as file:
        file.update_tags(**tags)
        for number, index in enumerate(present, start=1):
            band = np.rint(reflectance[:, :, index]).clip(0, 65_535)
            file.write(band.astype(np.uint16), number)
            file.set_band_description(number, BANDS[index])
        if scl is not None:
            file.write(scl.astype(np.uint16), size["count"])
            file.set_band_description(size["count"], "SCL")
        if valid is not None:
            file.write_mask(valid)


@contextmanager
def quiet_gdal() -> Iterator[None]:
    """No side files, a small cache, and no warning about files without a grid."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _require_visible_bands(bands: tuple[str, ...], source: str) -> None:
    missing = [band for band in reversed(VISIBLE_BANDS) if band not in bands]
    if missing or len(bands) < MIN_BANDS:
        raise ValueError(
            f"{source} has no {' or '.join(missing)}; a scene needs at least B02, B03 and B04 "
            "with data, named so (or blue, green and red) in the file's band descriptions"
        )
