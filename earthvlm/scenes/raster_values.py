"""Bands, samples, masks and values of an open raster, of the whole of it or of a window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthvlm.scenes.band_identification import BandOrder, identify_bands, only_count, read_labels
from earthvlm.scenes.bands import SCL_CLASSES, SCL_CLOUD
from earthvlm.scenes.reflectance import LARGEST_FRACTION, brightest_level, mark_empty_pixels

if TYPE_CHECKING:
    import rasterio
    from rasterio.windows import Window

# Samples that decide something for a whole raster: windows a side, pixels a window's side.
_SAMPLE_WINDOWS, _SAMPLE_SIDE = 4, 128
MASK_NOTE = "The file's mask was used: the pixels it leaves out are missing."
SCALED_NOTE = (
    "Its values are fractions already, so the scale and offset in its tags were not applied a "
    "second time."
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
    """Read pixels of evenly spaced windows of the whole raster, float32 `[C, N]`."""
    samples = [
        file.read(list(numbers), window=window).reshape(len(numbers), -1)
        for window in plan_samples(file.height, file.width)
    ]
    return np.concatenate(samples, axis=1).astype(np.float32)


def plan_samples(height: int, width: int) -> list[Window]:
    """Return evenly spaced windows in a raster of this size."""
    from rasterio.windows import Window

    rows, columns = min(height, _SAMPLE_SIDE), min(width, _SAMPLE_SIDE)
    tops = np.unique(np.linspace(0, height - rows, _SAMPLE_WINDOWS).astype(int))
    lefts = np.unique(np.linspace(0, width - columns, _SAMPLE_WINDOWS).astype(int))
    return [Window(int(left), int(top), columns, rows) for top in tops for left in lefts]


def read_valid(
    file: rasterio.DatasetReader, order: BandOrder, window: Window | None = None
) -> np.ndarray:
    """Return where a mask band, an alpha band or an internal mask says that there is data.

    The mask is bool `[H, W]`, of the whole raster or of a window.
    """
    from rasterio.enums import MaskFlags

    number = next(iter(order.numbers.values()))
    flags = file.mask_flag_enums[number - 1]
    if order.mask:
        return file.read(order.mask, window=window) != 0
    if MaskFlags.per_dataset in flags and MaskFlags.nodata not in flags:
        return file.read_masks(number, window=window) != 0
    return np.ones(size_of(file, window), bool)


def read_values(
    file: rasterio.DatasetReader, order: BandOrder, window: Window | None = None
) -> tuple[np.ndarray, bool, list[str]]:
    """Read bands `[H, W, C]` float32 with masks, scale and offset applied; no data is NaN.

    Returns the values, whether the tags give an offset, and notes.
    """
    values, notes = read_stored_values(file, order, window), []
    valid = read_valid(file, order, window)
    if not valid.all():
        values[~valid] = np.nan
        notes.append(MASK_NOTE)
    for index, number in enumerate(order.numbers.values()):
        nodata = file.nodatavals[number - 1]
        # A nodata value of 0 counts where every band is 0: a single dark band is a real 0.
        if nodata:
            band = values[:, :, index]
            band[band == np.float32(nodata)] = np.nan
    mark_empty_pixels(values)
    has_offset_tag, scale_notes = _apply_scales(values, file, order)
    mark_empty_pixels(values)
    return values, has_offset_tag, notes + scale_notes


def read_classification(
    file: rasterio.DatasetReader, order: BandOrder, window: Window | None = None
) -> np.ndarray | None:
    """Read ESA's scene classification, uint8 `[H, W]`, or make one of a cloud mask; else None.

    Of a cloud mask, clouds get the class of clouds of high probability and all else 0.
    """
    if order.scl:
        classes = file.read(order.scl, window=window)
        known = (classes >= 0) & (classes < len(SCL_CLASSES))
        return np.where(known, classes, 0).astype(np.uint8)
    if order.clouds:
        return np.where(file.read(order.clouds, window=window) == 1, SCL_CLOUD, 0).astype(np.uint8)
    return None


def read_stored_values(
    file: rasterio.DatasetReader, order: BandOrder, window: Window | None = None
) -> np.ndarray:
    """Read bands as they are stored, `[H, W, C]` float32."""
    height, width = size_of(file, window)
    values = np.empty((height, width, len(order.numbers)), dtype=np.float32)
    for index, number in enumerate(order.numbers.values()):
        values[:, :, index] = file.read(number, window=window)
    return values


def size_of(file: rasterio.DatasetReader, window: Window | None) -> tuple[int, int]:
    """Return height and width of a window, or of the whole raster."""
    return file.shape if window is None else (window.height, window.width)


def _apply_scales(
    values: np.ndarray, file: rasterio.DatasetReader, order: BandOrder
) -> tuple[bool, list[str]]:
    """Apply the bands' scale and offset in place, unless the values are scaled already.

    Returns whether an offset was applied, and notes.
    """
    scales = [file.scales[number - 1] for number in order.numbers.values()]
    offsets = [file.offsets[number - 1] for number in order.numbers.values()]
    if all(scale == 1 for scale in scales) and not any(offsets):
        return False, []
    is_float = all(np.dtype(dtype).kind == "f" for dtype in file.dtypes)
    if (
        is_float
        and max(scales) < 1
        and not np.isnan(values).all()
        and brightest_level(values) <= LARGEST_FRACTION
    ):
        return False, [SCALED_NOTE]
    values *= np.array(scales, np.float32)
    values += np.array(offsets, np.float32)
    return any(offsets), []
