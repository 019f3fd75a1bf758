"""How an image's stored values become reflectance x 10000: one decision for the whole image.

Decided window by window, a dark tile would keep an offset that its bright neighbour loses.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from earthvlm.scenes.bands import BOA_OFFSET, REFLECTANCE_SCALE, SCL_CLASSES, SCL_CLOUD
from earthvlm.scenes.reflectance import (
    LARGEST_FRACTION,
    OFFSET_AS_ASKED,
    brightest_level,
    darkest_level,
    decide_offset,
    find_unit,
    mark_empty_bands,
    mark_empty_pixels,
)

SCALED_NOTE = (
    "Its values are fractions already, so the scale and offset in its tags were not applied a "
    "second time."
)
OFFSET_TAG_NOTE = (
    "With the offset in its tags nearly all values would be negative, so it was taken as "
    "subtracted already."
)
# In deep shadow the atmospheric correction of level 2A subtracts a little too much; where the
# middle of a band is as negative as this, reflectance x 10000, an offset was subtracted twice.
NEGATIVE_MIDDLE = -200


# Landsat's Collection 2: reflectance = 0.0000275 * number - 0.2, so that 0 is stored as 7273.
LANDSAT_SCALE, LANDSAT_DARKEST = 0.0000275, 7000
LANDSAT_MARGIN = 2  # metres
LARGEST_SCALE_RATIO = 10  # of bands of one image
# Deep water has a reflectance of about 0.05 at most, so this marks water or another unit.
DARK_SCENE = 1000
DARK_NOTE = (
    "Even its brightest values are a reflectance below 0.1, as over deep water alone; if it shows "
    "land, its values are in another unit than reflectance x 10000."
)


@dataclass(frozen=True)
class ValueTags:
    """What a file or product says of its values, by band: reflectance = value * scale + offset.

    Attributes:
        scales, offsets: as written; reflectance has the unit 1.
        trusted: whether they are a product's own metadata, which is followed without a test.
    """

    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    trusted: bool = False

    @property
    def are_set(self) -> bool:
        """Whether they change anything."""
        return any(scale != 1 for scale in self.scales) or any(self.offsets)


@dataclass(frozen=True)
class ValueRules:
    """Reflectance x 10000 = value * scale + offset, by band.

    Attributes:
        scales, offsets: one a band.
        removes_offset: whether what falls below 0 becomes 0, as in harmonised products.
        notes: what was assumed, in sentences for the user.
    """

    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    removes_offset: bool = False
    notes: tuple[str, ...] = ()

    def apply(self, values: np.ndarray) -> None:
        """Convert `[H, W, C]` float32 in place; the rules' bands are its channels."""
        if any(scale != 1 for scale in self.scales):
            values *= np.array(self.scales, np.float32)
        if any(self.offsets):
            values += np.array(self.offsets, np.float32)
        if self.removes_offset:
            np.maximum(values, 0, out=values)

    def of_bands(self, indices: Sequence[int]) -> ValueRules:
        """Return the rules for some of the bands."""
        return ValueRules(
            tuple(self.scales[index] for index in indices),
            tuple(self.offsets[index] for index in indices),
            self.removes_offset,
            self.notes,
        )


def decide_rules(
    samples: np.ndarray,
    tags: ValueTags,
    source: str,
    *,
    is_float: bool,
    date: datetime.date | None,
    baseline: int | None,
    boa_offset: bool | None,
    pixel_metres: float | None = None,
) -> ValueRules:
    """Decide how values become reflectance, from samples of the whole image and its tags.

    samples: stored values `[N, C]` float32, NaN where there is no data. boa_offset: whether the
    +1000 offset of newer products is in them; None finds out. pixel_metres: the side of a pixel.

    Raises ValueError where they are no reflectance.
    """
    count = samples.shape[1]
    if min(tags.scales) * LARGEST_SCALE_RATIO < max(tags.scales):
        raise ValueError(
            f"{source} has scales from {min(tags.scales):g} to {max(tags.scales):g} in its bands' "
            "tags, which cannot all be right; save it with one scale"
        )
    if tags.trusted and boa_offset is None:
        return _follow(tags)
    values = samples[:, None].copy()
    mark_empty_pixels(values)
    mark_empty_bands(values)
    seen = ~np.isnan(values).all(axis=(0, 1))
    if not seen.any():
        return ValueRules((1.0,) * count, (0.0,) * count)
    values = values[:, :, seen]
    _refuse_landsat(values, tags, pixel_metres, source)
    scales, offsets, notes = _use_tags(values, tags, seen, is_float)
    factor, unit_notes = find_unit(values, source)
    values *= factor
    scales, offsets = scales * factor, offsets * factor
    notes += unit_notes
    if boa_offset is None and offsets.any():
        boa_offset = False
    if boa_offset is None:
        remove, offset_notes = decide_offset(darkest_level(values), date=date, baseline=baseline)
    else:
        remove = boa_offset
        offset_notes = [OFFSET_AS_ASKED] if remove else []
    if remove:
        offsets = offsets - BOA_OFFSET
    dark = brightest_level(values) - BOA_OFFSET * remove < DARK_SCENE
    notes += [*offset_notes, *([DARK_NOTE] if dark else [])]
    return ValueRules(tuple(scales), tuple(offsets), remove, tuple(notes))


def _refuse_landsat(
    values: np.ndarray, tags: ValueTags, pixel_metres: float | None, source: str
) -> None:
    """Raise ValueError for the numbers of Landsat's Collection 2, by their scale or their range."""
    scaled = any(abs(scale - LANDSAT_SCALE) < LANDSAT_SCALE / 100 for scale in tags.scales)
    of_30_m = pixel_metres is not None and abs(pixel_metres - 30) < LANDSAT_MARGIN
    if scaled or (of_30_m and not tags.are_set and darkest_level(values) > LANDSAT_DARKEST):
        raise ValueError(
            f"{source} has the numbers of Landsat's Collection 2, not of Sentinel-2, whose bands "
            "differ"
        )


def _follow(tags: ValueTags) -> ValueRules:
    scale = REFLECTANCE_SCALE
    return ValueRules(
        tuple(scale * each for each in tags.scales),
        tuple(scale * each for each in tags.offsets),
        removes_offset=min(tags.offsets) < 0,
    )


def _use_tags(
    values: np.ndarray, tags: ValueTags, seen: np.ndarray, is_float: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Apply scale and offset to samples in place, as far as they make sense.

    Returns the scales and offsets to use, `[C]`, and notes.
    """
    scales, offsets = np.array(tags.scales), np.array(tags.offsets)
    plain = np.ones_like(scales), np.zeros_like(offsets)
    if not tags.are_set:
        return *plain, []
    if is_float and scales.max() < 1 and brightest_level(values) <= LARGEST_FRACTION:
        return *plain, [SCALED_NOTE]
    values *= scales[seen].astype(np.float32)
    moved = values + offsets[seen].astype(np.float32)
    unit = 1 if brightest_level(moved) > LARGEST_FRACTION else REFLECTANCE_SCALE
    middle = float(np.nanmedian(moved, axis=(0, 1)).min()) * unit
    if offsets.any() and middle < NEGATIVE_MIDDLE:
        return scales, np.zeros_like(offsets), [OFFSET_TAG_NOTE]
    values[:] = moved
    return scales, offsets, []


def keep_known_classes(classes: np.ndarray) -> np.ndarray:
    """Return ESA's scene classification as uint8, with 0 for values that are no class of it."""
    known = (classes >= 0) & (classes < len(SCL_CLASSES))
    return np.where(known, classes, 0).astype(np.uint8)


def classify_clouds(mask: np.ndarray) -> np.ndarray:
    """Return a scene classification, uint8: cloud of high probability where a mask is 1, else 0."""
    return np.where(mask == 1, SCL_CLOUD, 0).astype(np.uint8)
