"""Sentinel-2 GeoTIFFs, read to reflectance and written, by rasterio.

Only local GeoTIFF and JPEG 2000 files are opened (no format that points elsewhere), without side
files, and the sizes of the image and of its blocks are checked before any pixel is read. Every
error a user can cause is a ValueError of one sentence.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from earthvlm.scenes.acquisition import (
    DATE_TAG,
    PLACE_TAGS,
    find_mirrored_axes,
    read_acquisition_date,
    read_place,
    refuse_other_sensors,
)
from earthvlm.scenes.band_identification import (
    BandOrder,
    identify_bands,
    name_labels,
    only_count,
    read_labels,
)
from earthvlm.scenes.bands import BANDS, VISIBLE_BANDS, find_baseline
from earthvlm.scenes.image_reader import MAX_PHOTO_SIDE, check_photo_size, photo_content
from earthvlm.scenes.raster_limits import GDAL_OPTIONS, check_blocks, check_directories
from earthvlm.scenes.reflectance import (
    LARGEST_FRACTION,
    MIN_BANDS,
    ImageContent,
    brightest_level,
    check_size,
    convert_to_reflectance,
    drop_empty_bands,
    fill_missing_pixels,
    mark_empty_bands,
    mark_empty_pixels,
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
# One 8-bit band of at most this many values is a map of classes (WorldCover has 11, SCL 12).
MOST_CLASSES = 16
# Share of a transparency channel's pixels that are fully opaque or fully transparent.
ALPHA_EXTREMES = 0.5
# Samples that decide something for a whole raster: windows a side, pixels a window's side.
_SAMPLE_WINDOWS, _SAMPLE_SIDE = 4, 128


def raster_driver(path: Path) -> str | None:
    """Return GDAL's driver for a TIFF or JPEG 2000 file by its first bytes, else None."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError as error:
        raise ValueError(f"'{path}' cannot be opened: {error.strerror}") from error
    return next((driver for first, driver in _DRIVERS.items() if start.startswith(first)), None)


def read_geotiff(path: Path, *, boa_offset: bool | None = None) -> ImageContent:
    """Read a Sentinel-2 GeoTIFF: bands by description, else by ESA's order for 12 or 13 bands.

    An 8-bit file of 1, 3 or 4 bands is a photo. `boa_offset` says whether the values carry the
    +1000 offset of newer products; None finds out.
    """
    import rasterio
    from rasterio._err import CPLE_BaseError  # GDAL's own, which RasterioError does not cover
    from rasterio.errors import RasterioError

    check_directories(path)
    try:
        with quiet_gdal(), rasterio.open(path.absolute(), driver=raster_driver(path)) as file:
            check_blocks(file, path)
            if set(file.dtypes) == {"uint8"} and file.count in (1, 3, 4):
                return _read_photo_raster(file, path)
            return _read_scene(file, path, boa_offset)
    except (RasterioError, CPLE_BaseError) as error:
        if "missing codec" in str(error) or "compression" in str(error).lower():
            raise ValueError(
                f"'{path.name}' has a compression that is not supported here; save it with "
                "DEFLATE, LZW or ZSTD"
            ) from error
        raise ValueError(
            f"'{path.name}' is a damaged GeoTIFF (cut short or corrupt); save or download it again"
        ) from error


def write_geotiff(path: Path, content: ImageContent) -> None:
    """Write the present bands as uint16 reflectance x 10000, with names, date and place in tags.

    The pixel size of a scene is not known, so the file has its centre as tags and no grid.
    """
    import rasterio

    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder '{path.parent}' to save '{path.name}' in")
    present = [index for index, band in enumerate(content.reflectance[0, 0]) if band == band]
    height, width = content.reflectance.shape[:2]
    tags = {CLEAN_TAG: "reflectance x 10000, without offset, 0 is a value"}
    if content.date is not None:
        tags[DATE_TAG] = content.date.isoformat()
    if content.longitude is not None and content.latitude is not None:
        tags |= dict(zip(PLACE_TAGS, map(repr, (content.longitude, content.latitude)), strict=True))
    # Band by band: a quarter smaller than interleaved by pixel on real scenes.
    profile = {"driver": "GTiff", "dtype": "uint16", "interleave": "band"}
    profile |= {"compress": "deflate", "predictor": 2, "zlevel": 9}
    size = {"count": len(present), "height": height, "width": width}
    with quiet_gdal(), rasterio.open(path.absolute(), "w", **profile, **size) as file:
        file.update_tags(**tags)
        for number, index in enumerate(present, start=1):
            band = np.rint(content.reflectance[:, :, index]).clip(0, 65_535)
            file.write(band.astype(np.uint16), number)
            file.set_band_description(number, BANDS[index])


@contextmanager
def quiet_gdal() -> Iterator[None]:
    """No side files, a small cache, and no warning about files without a grid."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _read_scene(file: rasterio.DatasetReader, path: Path, boa_offset: bool | None) -> ImageContent:
    source = f"'{path.name}'"
    tags = file.tags()
    clean = CLEAN_TAG in tags and set(file.dtypes) == {"uint16"}
    check_size(file.height, file.width, source)
    if any(np.dtype(dtype).kind not in "uif" for dtype in file.dtypes):
        raise ValueError(f"{source} holds complex numbers; give reflectance x 10000")
    order = find_bands(file, path)
    numbers, notes = order.numbers, list(order.notes)
    bands = tuple(numbers)
    if not clean:
        _require_visible_bands(bands, source)
    if set(file.dtypes) == {"uint8"}:
        raise ValueError(
            f"{source} holds 8-bit values, which are not reflectance; "
            "give reflectance x 10000 as 16-bit integers"
        )
    if not clean:
        refuse_other_sensors(file, path.stem, source)
    date, period = read_acquisition_date(file, path.stem)
    notes += period
    longitude, latitude = read_place(file)
    values = np.empty((file.height, file.width, len(bands)), dtype=np.float32)
    for index, number in enumerate(numbers.values()):
        values[:, :, index] = file.read(number)
    if not clean:
        valid = read_valid(file, order)
        if not valid.all():
            values[~valid] = np.nan
            notes.append("The file's mask was used: the pixels it leaves out are missing.")
        scaled, ignored = _apply_masks_and_scales(values, file, numbers)
        notes += ignored
        mark_empty_pixels(values)
        mark_empty_bands(values)
        refuse_flat_values(values, source)
        notes += fill_missing_pixels(values, source)
        values, bands, lost = drop_empty_bands(values, bands)
        notes += lost
        _require_visible_bands(bands, source)
        notes += convert_to_reflectance(values, source)
        notes += remove_offset(
            values,
            date=date,
            baseline=find_baseline(tags.get("PROCESSING_BASELINE", ""), path.stem),
            boa_offset=False if scaled and boa_offset is None else boa_offset,
        )
        if "MSIL1C" in path.stem.upper() or "B10" in numbers:
            notes.append(TOP_OF_ATMOSPHERE_NOTE)
        if axes := find_mirrored_axes(file):
            values = np.flip(values, axes)
            notes.append("Its grid is mirrored, so it was turned: north is at the top.")
    return ImageContent(
        place_bands(values, bands), path.stem, date, longitude, latitude, tuple(notes)
    )


def find_bands(file: rasterio.DatasetReader, path: Path) -> BandOrder:
    """Find which band of an open raster is which; see `identify_bands`."""
    from rasterio.enums import ColorInterp

    labels = read_labels(file, path)
    samples = np.empty((file.count, 0), np.float32)
    if only_count(labels):
        samples = sample_raster(file, file.indexes)
    alpha = file.colorinterp[-1] == ColorInterp.alpha
    return identify_bands(labels, samples, f"'{path.name}'", has_alpha=alpha)


def sample_raster(file: rasterio.DatasetReader, numbers: Sequence[int]) -> np.ndarray:
    """Pixels of evenly spaced windows of the whole raster, float32 `[C, N]`."""
    samples = []
    for top in np.linspace(0, max(file.height - _SAMPLE_SIDE, 0), _SAMPLE_WINDOWS).astype(int):
        for left in np.linspace(0, max(file.width - _SAMPLE_SIDE, 0), _SAMPLE_WINDOWS).astype(int):
            window = ((top, top + _SAMPLE_SIDE), (left, left + _SAMPLE_SIDE))
            samples.append(file.read(list(numbers), window=window).reshape(len(numbers), -1))
    return np.concatenate(samples, axis=1).astype(np.float32)


def read_valid(
    file: rasterio.DatasetReader, order: BandOrder, window: Window | None = None
) -> np.ndarray:
    """Where a mask band, an alpha band or the file's internal mask says that there is data.

    Returns bool `[H, W]`, of the whole raster or of a window.
    """
    from rasterio.enums import MaskFlags

    number = next(iter(order.numbers.values()))
    flags = file.mask_flag_enums[number - 1]
    if order.mask:
        return file.read(order.mask, window=window) != 0
    if MaskFlags.per_dataset in flags and MaskFlags.nodata not in flags:
        return file.read_masks(number, window=window) != 0
    height, width = (window.height, window.width) if window else file.shape
    return np.ones((height, width), bool)


def _apply_masks_and_scales(
    values: np.ndarray, file: rasterio.DatasetReader, numbers: dict[str, int]
) -> tuple[bool, list[str]]:
    """Set fill values to NaN and apply the bands' scale and offset.

    A nodata value of 0 counts only where every band is 0: a single dark band is a real 0. Returns
    whether an offset was applied, and a sentence where tags were left aside because the values are
    scaled already.
    """
    for index, number in enumerate(numbers.values()):
        band = values[:, :, index]
        nodata = file.nodatavals[number - 1]
        if nodata:
            band[band == np.float32(nodata)] = np.nan
    scales = [file.scales[number - 1] for number in numbers.values()]
    offsets = [file.offsets[number - 1] for number in numbers.values()]
    if all(scale == 1 for scale in scales) and not any(offsets):
        return False, []
    mark_empty_pixels(values)
    is_float = all(np.dtype(dtype).kind == "f" for dtype in file.dtypes)
    if is_float and max(scales) < 1 and brightest_level(values) <= LARGEST_FRACTION:
        return False, [
            "Its values are fractions already, so the scale and offset in its tags were not "
            "applied a second time."
        ]
    values *= np.float32(scales)
    values += np.float32(offsets)
    return any(offsets), []


def _read_photo_raster(file: rasterio.DatasetReader, path: Path) -> ImageContent:
    from rasterio.enums import ColorInterp, Resampling

    check_photo_size(file.height, file.width, path)
    refuse_class_map(file, path)
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
    content = photo_content(
        Image.fromarray(np.ascontiguousarray(pixels)),
        path,
        size=(file.width, file.height),
        grey=file.count == 1 and not palette,
    )
    longitude, latitude = read_place(file)
    date, period = read_acquisition_date(file, path.stem)
    return replace(
        content,
        date=date,
        longitude=longitude,
        latitude=latitude,
        notes=(*content.notes, *period),
    )


def refuse_class_map(file: rasterio.DatasetReader, path: Path) -> None:
    """Raise ValueError for one 8-bit band of few values, as maps of classes have."""
    if file.count != 1:
        return
    values = np.unique(sample_raster(file, [1]))
    if len(values) <= MOST_CLASSES:
        raise ValueError(
            f"'{path.name}' is a map of {len(values)} classes, not an image; give the image itself"
        )


def _find_channels(file: rasterio.DatasetReader, path: Path) -> list[int]:
    """Which channels of an 8-bit picture are red, green and blue: by labels, else in order."""
    named = name_labels(read_labels(file, path))[:3]
    if len(named) < 3 or not all(named) or set(named) == set(VISIBLE_BANDS):
        known = len(named) == 3 and all(named)
        return [named.index(band) for band in VISIBLE_BANDS] if known else [0, 1, 2]
    raise ValueError(
        f"'{path.name}' shows {', '.join(map(str, named))} in 8 bits, which is a false-colour "
        "picture; give true colours (B04, B03, B02), or the bands' reflectance"
    )


def _is_alpha(file: rasterio.DatasetReader, band: np.ndarray) -> bool:
    """Whether a fourth channel is transparency: declared so, and mostly all or nothing.

    GDAL calls any fourth channel alpha, the near infrared of aerial images, too.
    """
    from rasterio.enums import ColorInterp

    declared = file.colorinterp[3] == ColorInterp.alpha
    return bool(declared and np.isin(band, (0, 255)).mean() > ALPHA_EXTREMES)


def _require_visible_bands(bands: tuple[str, ...], source: str) -> None:
    missing = [band for band in reversed(VISIBLE_BANDS) if band not in bands]
    if missing or len(bands) < MIN_BANDS:
        raise ValueError(
            f"{source} has no {' or '.join(missing)}; a scene needs at least B02, B03 and B04 "
            "with data, named so (or blue, green and red) in the file's band descriptions"
        )
