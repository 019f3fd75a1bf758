"""Read Sentinel-2 GeoTIFFs and JPEG 2000 files of several bands, and write GeoTIFFs."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthvlm.scenes.bands import BANDS, find_baseline
from earthvlm.scenes.decoded_image import DecodedImage
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.product import Product, product_tags, read_product
from earthvlm.scenes.rasters.acquisition import (
    DATE_TAG,
    PIXEL_TAG,
    PLACE_TAGS,
    read_acquisition_date,
)
from earthvlm.scenes.rasters.band_identification import (
    BandOrder,
    identify_bands,
    name_bands,
    only_count,
    read_labels,
)
from earthvlm.scenes.rasters.band_stack import BandFile, BandStack, sample_raster
from earthvlm.scenes.rasters.photo_raster import is_photo_raster, read_photo_raster
from earthvlm.scenes.rasters.raster_file import RasterFile, open_raster, quiet_gdal
from earthvlm.scenes.rasters.sentinel2_image import (
    ImageMetadata,
    Sentinel2Image,
    refuse_complex_numbers,
    require_visible_bands,
)

if TYPE_CHECKING:
    import rasterio

# Written by write_geotiff: the values are clean reflectance x 10000, and nothing is to be guessed.
CLEAN_TAG = "EARTHVLM_REFLECTANCE"


def read_geotiff(
    raster: RasterFile,
    *,
    boa_offset: bool | None = None,
    bbox: Sequence[float] | None = None,
    window: Sequence[int] | None = None,
    bands: Sequence[str] | None = None,
) -> DecodedImage:
    """Read a raster, or a bounding box or a window of it; 8 bits and 1, 3 or 4 bands are a picture.

    boa_offset: whether the values carry the +1000 offset of newer products; None finds out.
    bands: the names of its bands in their order, in place of what the file says.
    """
    with open_raster(raster) as file:
        if is_photo_raster(file) and bands is None:
            return read_photo_raster(file, raster, bbox=bbox, window=window)
        return make_image(file, raster, boa_offset, bands).read(bbox, window)


@contextmanager
def open_image(
    raster: RasterFile, boa_offset: bool | None = None, bands: Sequence[str] | None = None
) -> Iterator[Sentinel2Image]:
    """Open a raster of several bands for reading parts of it."""
    with open_raster(raster) as file:
        yield make_image(file, raster, boa_offset, bands)


def make_image(
    file: rasterio.DatasetReader,
    raster: RasterFile,
    boa_offset: bool | None,
    bands: Sequence[str] | None = None,
) -> Sentinel2Image:
    """Find the bands of an open raster, and read what its tags and name tell.

    Raises ValueError where its bands are not Sentinel-2's.
    """
    source, tags = f"'{raster.name}'", file.tags()
    refuse_complex_numbers(file.dtypes, source)
    order = name_bands(bands, file.count, source) if bands else find_bands(file, raster)
    clean = CLEAN_TAG in tags and set(file.dtypes) == {"uint16"}
    if not clean:
        require_visible_bands(tuple(order.numbers), source)

    def locate(number: int | None) -> BandFile | None:
        return BandFile(file, number) if number else None

    stack = BandStack(
        {band: BandFile(file, number) for band, number in order.numbers.items()},
        source,
        mask=locate(order.mask),
        scl=locate(order.scl),
        clouds=locate(order.clouds),
    )
    date, notes = read_acquisition_date(file, raster.stem)
    metadata = ImageMetadata(
        raster.stem,
        stack.tags,
        date=date,
        product=read_product(tags, raster.stem),
        baseline=find_baseline(tags.get("PROCESSING_BASELINE", ""), raster.stem),
        top_of_atmosphere="MSIL1C" in raster.stem.upper() or "B10" in order.numbers,
        clean=clean,
        notes=(*order.notes, *notes),
    )
    return Sentinel2Image(stack, metadata, boa_offset)


def find_bands(file: rasterio.DatasetReader, raster: RasterFile) -> BandOrder:
    """Find which band of an open raster is which; see `identify_bands`."""
    from rasterio.enums import ColorInterp

    labels = read_labels(file, raster.path)
    samples = np.empty((file.count, 0), np.float32)
    if only_count(labels):
        samples = sample_raster(file, file.indexes)
    alpha = file.colorinterp[-1] == ColorInterp.alpha
    return identify_bands(labels, samples, f"'{raster.name}'", has_alpha=alpha)


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
