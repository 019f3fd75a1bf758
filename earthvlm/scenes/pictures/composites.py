"""Draw values as pictures: a stretch for composites, and colours for NDVI."""

from __future__ import annotations

import numpy as np

from earthvlm.scenes.reflectance import normalized_difference, sample_pixels

# Percentiles that become black and white.
BALANCED, CONTRAST, WHOLE = "balanced", "high contrast", "full range"
STRETCH_PERCENTILES = {BALANCED: (2.0, 98.0), CONTRAST: (5.0, 95.0), WHOLE: (0.0, 100.0)}
# The same for every scene, so that pictures can be compared: reflectance x 10000 of white.
FIXED, FIXED_WHITE = "0 to 0.3", 3000.0
STRETCHES = (*STRETCH_PERCENTILES, FIXED)
# Of each band's dark end only this share is taken off: enough to lift haze, not so much that forest
# glows and the sea turns grey (found by eye).
DARK_SHARE_TAKEN_OFF = 0.65
STRETCH_GAMMA = 0.75
# Reflectance x 10000 between black and white at least, so that noise is not drawn as contrast.
SMALLEST_STRETCH = 800.0
# NDVI as cartographers draw it: water blue-grey, bare brown, sparse yellow, dense green.
NDVI_STOPS = (-0.2, 0.0, 0.1, 0.25, 0.45, 0.65, 0.9)
NDVI_COLOURS = (
    *((88, 106, 130), (165, 160, 150), (166, 124, 82), (222, 198, 120)),
    *((190, 209, 112), (86, 158, 62), (12, 82, 32)),
)


def draw_ndvi(near_infrared: np.ndarray, red: np.ndarray) -> np.ndarray:
    """Draw NDVI of two bands `[H, W]` in colours, uint8 `[H, W, 3]`."""
    ndvi = normalized_difference(near_infrared, red)
    channels = [np.interp(ndvi, NDVI_STOPS, colour) for colour in zip(*NDVI_COLOURS, strict=True)]
    return np.stack(channels, axis=2).astype(np.uint8)


def stretch(values: np.ndarray, *, true_colour: bool, how: str = BALANCED) -> np.ndarray:
    """Stretch `[H, W, 3]` of reflectance x 10000 to uint8, as one of STRETCHES says.

    The channels of true colour share one range, which keeps its hues. In false colour the infrared
    outshines the visible several times, so each channel's range goes half-way (geometric mean)
    from the shared one to its own. With high contrast each has its own. Raises ValueError for an
    unknown stretch.
    """
    if how not in STRETCHES:
        raise ValueError(f"there is no stretch '{how[:80]}'; known are {', '.join(STRETCHES)}")
    if how == FIXED:
        return _quantize(values / np.float32(FIXED_WHITE))
    low, high = np.percentile(sample_pixels(values), STRETCH_PERCENTILES[how], axis=0)
    if how == BALANCED:
        low *= DARK_SHARE_TAKEN_OFF
    span = np.maximum(high - low, SMALLEST_STRETCH)
    if how != CONTRAST:
        span = span.max() if true_colour else np.sqrt(span * span.max())
    unit = values - low.astype(np.float32)
    unit /= span.astype(np.float32)
    return _quantize(unit, STRETCH_GAMMA)


def _quantize(unit: np.ndarray, gamma: float = 1.0) -> np.ndarray:
    """Turn brightness from 0 to 1 into uint8, in the place of the float32 that are given.

    In their place, because a large scene's take 50 MB.
    """
    unit.clip(0, 1, out=unit)
    if gamma != 1:
        unit **= gamma
    unit *= 255
    unit += 0.5
    return unit.astype(np.uint8)
