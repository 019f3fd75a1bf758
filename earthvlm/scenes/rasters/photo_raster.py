"""8-bit GeoTIFFs of one, three or four bands, read as pictures with their place and date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from earthvlm.scenes.bands import VISIBLE_BANDS
from earthvlm.scenes.decoded_image import DecodedImage
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.parts import Part, choose_part
from earthvlm.scenes.pictures.image_reader import MAX_PHOTO_SIDE, make_photo_image
from earthvlm.scenes.product import read_product
from earthvlm.scenes.rasters.acquisition import (
    find_mirrored_axes,
    read_acquisition_date,
    read_pixel_metres,
)
from earthvlm.scenes.rasters.band_identification import name_labels, read_labels
from earthvlm.scenes.rasters.band_stack import sample_raster
from earthvlm.scenes.rasters.raster_file import RasterFile

if TYPE_CHECKING:
    import rasterio

# One 8-bit band of at most this many values is a map of classes (WorldCover has 11, SCL 12).
MAX_CLASSES = 16
# Share of a transparency channel's pixels that are fully opaque or fully transparent.
MIN_ALPHA_SHARE = 0.5


def is_photo_raster(file: rasterio.DatasetReader) -> bool:
    """Return whether a raster has the form of a picture: 8 bits, and one, three or four bands."""
    return set(file.dtypes) == {"uint8"} and file.count in (1, 3, 4)


def read_photo_raster(
    file: rasterio.DatasetReader,
    raster: RasterFile,
    *,
    bbox: Sequence[float] | None = None,
    window: Sequence[int] | None = None,
) -> DecodedImage:
    """Read an 8-bit raster, or a part of it, as a picture of at most 1024 pixels a side.

    Raises ValueError for a map of classes and for false colours.
    """
    from rasterio.enums import ColorInterp

    grid = Grid.of_raster(file)
    part = choose_part(file.shape, grid, f"'{raster.name}'", bbox, window).shrunk(MAX_PHOTO_SIDE)
    _refuse_class_map(file, raster)
    channels = _find_channels(file, raster)
    if file.colorinterp[0] == ColorInterp.cyan:
        raise ValueError(f"'{raster.name}' is a CMYK picture; save it as RGB")
    pixels = np.flip(_read_pixels(file, part, channels), find_mirrored_axes(file))
    content = make_photo_image(
        Image.fromarray(np.ascontiguousarray(pixels)),
        Path(raster.name),
        size=(part.width, part.height),
        grey=file.count == 1 and file.colorinterp[0] != ColorInterp.palette,
    )
    if grid:
        grid = part.grid_of(grid).flip(find_mirrored_axes(file), part.rows, part.columns)
    place = grid.locate(part.rows / 2, part.columns / 2) if grid else None
    longitude, latitude = place or (None, None)
    date, period = read_acquisition_date(file, raster.stem)
    metres = read_pixel_metres(file)
    return replace(
        content,
        date=date,
        longitude=longitude,
        latitude=latitude,
        notes=(*content.notes, *period),
        pixel_metres=metres and metres * part.height / part.rows,
        grid=grid,
        product=read_product(file.tags(), raster.stem),
    )


def _read_pixels(file: rasterio.DatasetReader, part: Part, channels: Sequence[int]) -> np.ndarray:
    """Read red, green, blue and transparency of a part, uint8 `[H, W, 4]`."""
    from rasterio.enums import ColorInterp, Resampling
    from rasterio.windows import Window

    palette = file.colorinterp[0] == ColorInterp.palette
    window = Window(part.column, part.row, part.width, part.height)
    shape = (part.rows, part.columns)
    stored = file.read(
        window=window,
        out_shape=(file.count, *shape),
        resampling=Resampling.nearest if palette else Resampling.average,
    )
    pixels = np.moveaxis(stored, 0, 2)
    if palette:
        colours = file.colormap(1)
        table = np.array([colours.get(index, (0, 0, 0, 255)) for index in range(256)], np.uint8)
        pixels = table[pixels[:, :, 0]]
    elif file.count == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4 and (palette or _is_alpha(file, pixels[:, :, 3])):
        return pixels
    valid = np.full(shape, 255, np.uint8)
    if pixels.shape[2] == 3:
        valid = file.dataset_mask(window=window, out_shape=shape, resampling=Resampling.nearest)
    return np.dstack([pixels[:, :, channels], valid])


def _refuse_class_map(file: rasterio.DatasetReader, raster: RasterFile) -> None:
    """Raise ValueError for one 8-bit band of few values, as maps of classes have."""
    if file.count != 1:
        return
    values = np.unique(sample_raster(file, [1]))
    if len(values) <= MAX_CLASSES:
        raise ValueError(
            f"'{raster.name}' is a map of {len(values)} classes, not an image; "
            "give the image itself"
        )


def _find_channels(file: rasterio.DatasetReader, raster: RasterFile) -> list[int]:
    """Return which channels are red, green and blue: by labels, else in this order."""
    named = name_labels(read_labels(file, raster.path))[:3]
    if len(named) < 3 or not all(named) or set(named) == set(VISIBLE_BANDS):
        known = len(named) == 3 and all(named)
        return [named.index(band) for band in VISIBLE_BANDS] if known else [0, 1, 2]
    raise ValueError(
        f"'{raster.name}' shows {', '.join(map(str, named))} in 8 bits, which is a false-colour "
        "picture; give true colours (B04, B03, B02), or the bands' reflectance"
    )


def _is_alpha(file: rasterio.DatasetReader, band: np.ndarray) -> bool:
    """Return whether a fourth channel is transparency: declared so, and mostly all or nothing.

    GDAL calls any fourth channel alpha, the near infrared of aerial images, too.
    """
    from rasterio.enums import ColorInterp

    declared = file.colorinterp[3] == ColorInterp.alpha
    return bool(declared and np.isin(band, (0, 255)).mean() > MIN_ALPHA_SHARE)
