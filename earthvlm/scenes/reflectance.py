"""Convert pixel values to reflectance x 10000: units, the +1000 offset, pixels without data.

Every function takes values `[H, W, C]` float32, NaN where there is no data, changes them in place
and returns notes, which are sentences for the user. Nothing here reads a file.
"""

from __future__ import annotations

import datetime

import numpy as np

from earthvlm.scenes.bands import (
    BANDS,
    BOA_OFFSET,
    BOA_OFFSET_FROM_BASELINE,
    BOA_OFFSET_FROM_DATE,
    REFLECTANCE_SCALE,
)

# Clouds and snow reach a reflectance of about 1.6, so values up to 2 are fractions, not x 10000.
LARGEST_FRACTION = 2.0
# The brightest of twelve bands is far above this in any real scene; 8-bit pictures end here.
LARGEST_EIGHT_BIT = 255
# Above this share of pixels without data a scene is refused rather than filled.
LARGEST_FILLED_SHARE = 0.5
# Fillers such as -9999 and -32768 that a file does not declare.
LARGEST_FILLER = -9999
# The largest value of 16 bits is saturation or a filler, and netCDF fills with 9.97e36.
SMALLEST_FILLER = 65_535
BRIGHTEST_PERCENTILE = 99.9
# Reflectance x 10000 of clouds ends near 20,000, and level 1C saturates at 28,000.
LARGEST_REFLECTANCE = 30_000
# With the offset, 99 % of a band's pixels are above this (noise reaches a little below 1000).
DARKEST_WITH_OFFSET = BOA_OFFSET - 100
# Forest, water, shade and asphalt put some band below a reflectance of 0.03 in nearly any scene;
# where the darkest is brighter than that even without the offset, values alone do not decide.
USUAL_DARKEST = 300
_SAMPLE_PIXELS = 65_536  # enough for percentiles

MIN_SIDE = 8  # pixels: one patch of the encoder
# A scene's pixels, 48 bytes each, and its longer side, for strips of a satellite's path.
MAX_PIXELS = 2048 * 2048
MAX_SIDE = 16_384
MIN_BANDS = 3
OFFSET_AS_ASKED = "The +1000 offset was taken off, as asked."


def check_size(height: int, width: int, source: str) -> None:
    """Raise ValueError for a scene of fewer than 8 pixels a side or more than 2048 x 2048."""
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"{source} is {width} x {height} pixels; a scene needs at least {MIN_SIDE} x {MIN_SIDE}"
        )
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise ValueError(
            f"{source} is {width} x {height} pixels; cut it into scenes of at most 2048 x 2048"
        )


def sample_pixels(values: np.ndarray) -> np.ndarray:
    """Return about 65,000 evenly spaced pixels of `[H, W, C]` as `[N, C]`, for percentiles."""
    height, width = values.shape[:2]
    step = max(1, int(np.sqrt(height * width / _SAMPLE_PIXELS)))
    return values[::step, ::step].reshape(-1, values.shape[2])


def convert_to_reflectance(values: np.ndarray, source: str) -> list[str]:
    """Convert `[H, W, C]` values to reflectance x 10000 in place; return notes.

    Fractions (0 to 1) are multiplied by 10000. Raises ValueError for values that are neither.
    """
    factor, notes = find_unit(values, source)
    values *= factor
    return notes


def find_unit(values: np.ndarray, source: str) -> tuple[int, list[str]]:
    """Return by what `[H, W, C]` values become reflectance x 10000, and notes.

    Raises ValueError for values that are neither that nor fractions.
    """
    largest, factor = brightest_level(values), 1
    notes: list[str] = []
    if largest <= LARGEST_FRACTION:
        factor = REFLECTANCE_SCALE
        notes = ["Its values are fractions (0 to 1), so they were multiplied by 10000."]
    elif largest <= LARGEST_EIGHT_BIT:
        raise ValueError(
            f"{source} has values of at most {largest:g}, which are neither reflectance x 10000 "
            "nor fractions from 0 to 1; save its reflectance in one of these two units"
        )
    elif largest > LARGEST_REFLECTANCE:
        raise ValueError(
            f"{source} has values of up to {largest:,.0f}, brighter than anything on Earth is as "
            "reflectance x 10000; save its reflectance, not values that were stretched for display"
        )
    if np.mean(sample_pixels(values) * factor < -BOA_OFFSET) > 0.05:
        raise ValueError(
            f"{source} has many negative values, as normalised data has; "
            "save its reflectance x 10000 (or as fractions from 0 to 1) instead"
        )
    return factor, notes


def brightest_level(values: np.ndarray) -> float:
    """Return the 99.9th percentile of `[H, W, C]`: single glints reach beyond any unit."""
    return float(np.nanpercentile(sample_pixels(values), BRIGHTEST_PERCENTILE))


def subtract_offset(values: np.ndarray) -> list[str]:
    """Take the +1000 offset of newer products off `[H, W, C]` in place; return a note.

    Pixels below the offset become 0, as in harmonised products.
    """
    values -= BOA_OFFSET
    np.maximum(values, 0, out=values)
    return [OFFSET_AS_ASKED]


def darkest_level(values: np.ndarray) -> float:
    """Return the lowest of the bands' first percentiles in `[H, W, C]`; no band is all NaN."""
    return float(np.nanpercentile(sample_pixels(values), 1, axis=0).min())


def decide_offset(
    darkest: float, *, date: datetime.date | None, baseline: int | None = None
) -> tuple[bool, list[str]]:
    """Decide from the darkest level whether values carry the +1000 offset; also return notes."""
    if baseline is not None:
        newer: bool | None = baseline >= BOA_OFFSET_FROM_BASELINE
    elif date is not None:
        newer = date >= BOA_OFFSET_FROM_DATE
    else:
        newer = None
    level = round(darkest)
    usual = darkest <= BOA_OFFSET + USUAL_DARKEST
    if darkest < DARKEST_WITH_OFFSET:
        if not newer:
            return False, []
        return False, [
            "Newer products carry an offset of +1000, but the darkest values here are near "
            f"{level}: it was off already."
        ]
    if newer or (newer is None and usual):
        return True, [
            "The +1000 offset of newer products was taken off, since no band's darkest values are "
            f"much below 1000 (lowest near {level}); if it was off already, say so with the option "
            "boa_offset."
        ]
    if newer is None or usual:
        return False, [
            f"It was taken as free of the +1000 offset of newer products, though its darkest "
            f"values are near {level}; if it carries that offset, say so with the option "
            "boa_offset."
        ]
    return False, []


def mark_empty_pixels(values: np.ndarray) -> None:
    """Set to NaN infinities, fillers, and pixels whose bands are all 0.

    A pixel that has the same negative value in every band is filled too, as with -999.
    """
    filled = ~np.isfinite(values) | (values <= LARGEST_FILLER) | (values >= SMALLEST_FILLER)
    values[filled] = np.nan
    if values.shape[2] > 1:
        alike = (values == values[:, :, :1]).all(axis=2) & (values[:, :, 0] < 0)
        values[alike] = np.nan
    values[np.all((values == 0) | np.isnan(values), axis=2)] = np.nan


def mark_empty_bands(values: np.ndarray) -> None:
    """Set to NaN bands that are 0 throughout, which are placeholders for missing bands."""
    zero = [
        index for index in range(values.shape[2]) if not np.nan_to_num(values[:, :, index]).any()
    ]
    values[:, :, zero] = np.nan


class BlankSceneError(ValueError):
    """Raised for a scene with data in less than half of its pixels, or with one value only."""


def refuse_flat_values(values: np.ndarray, source: str) -> None:
    """Raise BlankSceneError where every band of `[H, W, C]` has one value only, or none."""
    flat = all(
        np.isnan(band).all() or np.nanmin(band) == np.nanmax(band)
        for band in np.moveaxis(values, 2, 0)
    )
    if flat:
        raise BlankSceneError(
            f"{source} has no data in it (each band has one value at most); "
            "give a scene whose pixels differ"
        )


def fill_missing_pixels(values: np.ndarray, source: str) -> tuple[np.ndarray | None, list[str]]:
    """Fill NaN pixels of `[H, W, C]` with their band's median.

    Returns which pixels hold data in all bands that hold any, bool `[H, W]`, or None where all do,
    and notes. Bands that hold nothing at all stay NaN: they are missing. Raises BlankSceneError
    where fewer than half of the pixels hold data.
    """
    holes = np.isnan(values)
    if not holes.any():
        return None, []
    empty = holes.all(axis=(0, 1))
    if empty.all():
        raise BlankSceneError(f"{source} has no data in it; give a scene whose pixels hold values")
    missing = holes[:, :, ~empty].any(axis=2)
    share = float(missing.mean())
    if share > LARGEST_FILLED_SHARE:
        raise BlankSceneError(
            f"{source} holds data in only {1 - share:.0%} of its pixels; "
            "crop it to where it has data (at least half is needed)"
        )
    if share == 0:
        return None, []
    for index in np.flatnonzero(~empty):
        hole = holes[:, :, index]
        if hole.any():
            band = values[:, :, index]
            band[hole] = np.median(band[~hole])
    words = f"{share:.0%}" if share >= 0.01 else "Less than 1%"
    note = f"{words} of its pixels hold no data and were filled with each band's median."
    return ~missing, [note]


def drop_empty_bands(
    values: np.ndarray, bands: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Drop bands that are NaN throughout; return the others, their names and notes.

    Takes filled values, in which a band has data everywhere or nowhere.
    """
    empty = np.isnan(values[0, 0])
    if not empty.any():
        return values, bands, []
    kept = tuple(band for band, gone in zip(bands, empty, strict=True) if not gone)
    lost = [band for band in BANDS if band in bands and band not in kept]
    notes = [f"Without data, so missing: {', '.join(lost)}."] if lost else []
    return values[:, :, ~empty], kept, notes


def place_bands(values: np.ndarray, bands: tuple[str, ...]) -> np.ndarray:
    """Put `[H, W, C]` values of the named bands into `[H, W, 12]` in BANDS order, else NaN.

    Values that have this form already are returned themselves.
    """
    if bands == BANDS:
        return values
    # In one pass over the pixels: band by band would take five times as long.
    placed = np.take(values, [bands.index(b) if b in bands else 0 for b in BANDS], axis=2)
    placed[:, :, [band not in bands for band in BANDS]] = np.nan
    return placed


def normalized_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (a - b) / (a + b) of two bands `[H, W]`, 0 where nothing is reflected."""
    total = first + second
    return np.divide(first - second, total, out=np.zeros_like(total), where=total > 0)
