"""8-bit GeoTIFFs of one, three or four bands, read as pictures with their place and date."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from earthvlm.scenes.acquisition import find_mirrored_axes, read_acquisition_date, read_place
from earthvlm.scenes.band_identification import name_labels, read_labels
from earthvlm.scenes.bands import VISIBLE_BANDS
from earthvlm.scenes.decoded_image import DecodedImage
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.image_reader import MAX_PHOTO_SIDE, check_photo_size, make_photo_image
from earthvlm.scenes.product import read_product
from earthvlm.scenes.raster_values import sample_raster

if TYPE_CHECKING:
    import rasterio

# One 8-bit band of at most this many values is a map of classes (WorldCover has 11, SCL 12).
MAX_CLASSES = 16
# Share of a transparency channel's pixels that are fully opaque or fully transparent.
MIN_ALPHA_SHARE = 0.5


def is_photo_raster(file: rasterio.DatasetReader) -> bool:
    """Return whether a raster has the form of a picture: 8 bits, and one, three or four bands."""
    return set(file.dtypes) == {"uint8"} and file.count in (1, 3, 4)


def read_photo_raster(file: rasterio.DatasetReader, path: Path) -> DecodedImage:
    """Read an 8-bit raster as a picture of at most 1024 pixels a side.

    Raises ValueError for a map of classes and for false colours.
    """
    from rasterio.enums import ColorInterp, Resampling

    check_photo_size(file.height, file.width, path)
    _refuse_class_map(file, path)
    channels = _find_channels(file, path)
    if file.colorinterp[0] == ColorInterp.cyan:
        raise ValueError(f"'{path.name}' is a CMYK picture; save it as RGB")
    shrink = max(1.0, max(file.height, file.width) / MAX_PHOTO_SIDE)
    height, width = round(file.height / shrink), round(file.width / shrink)
    palette = file.colorinterp[0] == ColorInterp.palette
    resampling = Resampling.nearest if palette else Resampling.average
    shape = (file.count, max(1, height), max(1, width))
    pixels = np.moveaxis(file.read(out_shape=shape, resampling=resampling), 0, 2)
    if palette:
        colours = file.colormap(1)
        table = np.array([colours.get(index, (0, 0, 0, 255)) for index in range(256)], np.uint8)
        pixels = table[pixels[:, :, 0]]
    elif file.count == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if not (pixels.shape[2] == 4 and (palette or _is_alpha(file, pixels[:, :, 3]))):
        valid = file.dataset_mask(out_shape=shape[1:], resampling=Resampling.nearest)
        valid = valid if pixels.shape[2] == 3 else np.full(shape[1:], 255, np.uint8)
        pixels = np.dstack([pixels[:, :, channels], valid])
    pixels = np.flip(pixels, find_mirrored_axes(file))
    content = make_photo_image(
        Image.fromarray(np.ascontiguousarray(pixels)),
        path,
        size=(file.width, file.height),
        grey=file.count == 1 and not palette,
    )
    longitude, latitude = read_place(file)
    grid = Grid.of_raster(file)
    if grid:
        grid = grid.flip(find_mirrored_axes(file), file.height, file.width)
        rows, columns = content.reflectance.shape[:2]
        grid = grid.scale(file.height / rows, file.width / columns)
    date, period = read_acquisition_date(file, path.stem)
    return replace(
        content,
        date=date,
        longitude=longitude,
        latitude=latitude,
        notes=(*content.notes, *period),
        grid=grid,
        product=read_product(file.tags(), path.stem),
    )


def _refuse_class_map(file: rasterio.DatasetReader, path: Path) -> None:
    """Raise ValueError for one 8-bit band of few values, as maps of classes have."""
    if file.count != 1:
        return
    values = np.unique(sample_raster(file, [1]))
    if len(values) <= MAX_CLASSES:
        raise ValueError(
            f"'{path.name}' is a map of {len(values)} classes, not an image; give the image itself"
        )


def _find_channels(file: rasterio.DatasetReader, path: Path) -> list[int]:
    """Return which channels are red, green and blue: by labels, else in this order."""
    named = name_labels(read_labels(file, path))[:3]
    if len(named) < 3 or not all(named) or set(named) == set(VISIBLE_BANDS):
        known = len(named) == 3 and all(named)
        return [named.index(band) for band in VISIBLE_BANDS] if known else [0, 1, 2]
    raise ValueError(
        f"'{path.name}' shows {', '.join(map(str, named))} in 8 bits, which is a false-colour "
        "picture; give true colours (B04, B03, B02), or the bands' reflectance"
    )


def _is_alpha(file: rasterio.DatasetReader, band: np.ndarray) -> bool:
    """Return whether a fourth channel is transparency: declared so, and mostly all or nothing.

    GDAL calls any fourth channel alpha, the near infrared of aerial images, too.
    """
    from rasterio.enums import ColorInterp

    declared = file.colorinterp[3] == ColorInterp.alpha
    return bool(declared and np.isin(band, (0, 255)).mean() > MIN_ALPHA_SHARE)
