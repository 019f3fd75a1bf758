"""Haze and cloud: how much light of the sky lies over each pixel, and the ground without it.

Thin cloud, fog and haze add nearly the same reflectance to all bands. What no surface could send
back in the blue, the red and the short-wave infrared at once is the most that such a veil can hold.
Smoke and fine dust, which scatter blue light alone, are not found here.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from earthvlm.scenes.bands import REFLECTANCE_SCALE
from earthvlm.scenes.scene import Scene

Reflectance = Mapping[str, np.ndarray]  # by band, 0 to 1, `[H, W]`
USED_BANDS = ("B02", "B03", "B04", "B08", "B8A", "B09", "B11", "B12")
# A veil's reflectance by band, relative to the near infrared: thick cloud is flat to 900 nm and
# darker in the short-wave infrared.
VEIL_SPECTRUM = {"B02": 1.04, "B03": 1.03, "B04": 1.02, "B08": 1.0, "B11": 0.7, "B12": 0.55}
# Dark surfaces reflect this much of their B12 in the blue and in the red. Kaufman et al., "The
# MODIS 2.1-um channel", IEEE Transactions on Geoscience and Remote Sensing 35, 1997.
BLUE_OF_B12, RED_OF_B12 = 0.25, 0.5
B12_OF_B11 = 0.6  # of soils and plants, where B12 is missing
# A scene is hazy from this reflectance on, below which only HAZE_PERCENTILE of its pixels are.
# Clear scenes of forest, fields, desert and coast had up to 0.025, on half of the test places.
HAZE_LEVEL, HAZE_PERCENTILE = 0.035, 2
# It is judged by plants, water and shadow, which are darker than this in B12 even under haze, where
# they fill at least this share: pale sand under a clear sky looks like dark ground under haze.
DARK_B12, DARK_SHARE = 0.15, 0.05
# Atmospheric correction takes haze for aerosol and removes it from the visible bands only, so
# others may keep up to this many times as much.
LARGEST_REMAINDER = 2.0
# Cloud: a veil of at least SURE over 5 x 5 pixels (fewer are roofs) or of WIDE over 15 x 15, with
# all connected pixels of at least WIDE.
CLOUD_SURE, CLOUD_WIDE = 0.10, 0.07
SURE_PIXELS, WIDE_PIXELS = 5, 15
# Through haze up to this level, over the whole scene, the ground is seen; a thicker veil is cloud.
THICKEST_HAZE = 0.06
# Cloud is white: salt and sand are redder. In top-of-atmosphere products water vapour darkens B09
# over the ground, and not over cloud.
CLOUD_BLUE_OF_RED, CLOUD_B09_OF_B8A = 0.9, 0.35
# Where B02 or the short-wave infrared is missing. Braaten, Cohen and Yang, "Automated cloud and
# cloud shadow identification in Landsat MSS imagery", Remote Sensing of Environment 169, 2015.
CLOUD_GREEN, CLOUD_GREEN_SURE, CLOUD_SHORT_WAVE = 0.175, 0.39, 0.1


def read_reflectance(scene: Scene) -> Reflectance:
    """Return the bands of USED_BANDS that a scene has, as reflectance from 0 to 1.

    B08 and B8A replace each other.
    """
    return {
        band: values / REFLECTANCE_SCALE
        for band in USED_BANDS
        if (values := scene.find_band(band)) is not None
    }


def measure_veil(bands: Reflectance) -> np.ndarray | None:
    """Return the largest reflectance that a veil can have over each pixel, `[H, W]`.

    None where B02, B04, B08 or the short-wave infrared is missing.
    """
    if not {"B02", "B04", "B08"} <= set(bands) or not {"B11", "B12"} & set(bands):
        return None
    short_wave = _estimate_b12(bands)
    veil = bands["B08"] / VEIL_SPECTRUM["B08"]
    for band, part in (("B02", BLUE_OF_B12), ("B04", RED_OF_B12)):
        own = VEIL_SPECTRUM[band] - part * VEIL_SPECTRUM["B12"]
        veil = np.minimum(veil, (bands[band] - part * short_wave) / own)
    for band in ("B11", "B12"):
        if band in bands:
            veil = np.minimum(veil, bands[band] / VEIL_SPECTRUM[band])
    return np.maximum(veil, 0)


def haze_level(
    bands: Reflectance, veil: np.ndarray | None, where: np.ndarray | None = None
) -> float:
    """Return the reflectance that a veil adds to the whole scene; below HAZE_LEVEL it is clear.

    0 where that cannot be measured, for lack of bands or of dark ground.

    Args:
        bands: reflectance, 0 to 1.
        veil: what `measure_veil` returned for them.
        where: the pixels to judge by, those with data and without cloud or snow.
    """
    if veil is None:
        return 0.0
    dark = _estimate_b12(bands) < DARK_B12
    if where is not None:
        dark &= where
    if dark.mean() < DARK_SHARE:
        return 0.0
    return float(np.percentile(ndimage.uniform_filter(veil, 3)[dark], HAZE_PERCENTILE))


def _estimate_b12(bands: Reflectance) -> np.ndarray:
    return bands["B12"] if "B12" in bands else B12_OF_B11 * bands["B11"]


def find_thick_cloud(bands: Reflectance, veil: np.ndarray | None) -> np.ndarray:
    """Return the pixels that cloud covers, bool `[H, W]`; needs B03 and B04.

    Without the short-wave infrared all that is bright counts, snow too.

    Args:
        bands: reflectance, 0 to 1.
        veil: what `measure_veil` returned for them.
    """
    if veil is None:
        green, red = bands["B03"], bands["B04"]
        bright = (green > CLOUD_GREEN) & (green > red) | (green > CLOUD_GREEN_SURE)
        short_wave = bands.get("B11", bands.get("B12"))
        return bright if short_wave is None else bright & (short_wave > CLOUD_SHORT_WAVE)
    white = bands["B02"] > CLOUD_BLUE_OF_RED * bands["B04"]
    if "B09" in bands and "B8A" in bands:
        white &= bands["B09"] > CLOUD_B09_OF_B8A * bands["B8A"]
    haze, wide = haze_level(bands, veil), CLOUD_WIDE
    if HAZE_LEVEL < haze < THICKEST_HAZE:
        wide += 2 * (haze - HAZE_LEVEL)
    covered = white & (veil > wide)
    seeds = open_mask(white & (veil > CLOUD_SURE), SURE_PIXELS) | open_mask(covered, WIDE_PIXELS)
    return grow(seeds, covered)


def open_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """Return the parts of a mask that a square of this side fits into."""
    if mask.sum() < side**2:
        return np.zeros_like(mask)
    # On bytes the filters take a fifth of the time of scipy's binary opening.
    eroded = ndimage.minimum_filter(mask.view(np.uint8), side, mode="nearest")
    return ndimage.maximum_filter(eroded, side, mode="nearest").view(bool)


def grow(seeds: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the connected parts of a mask that hold a seed, bool `[H, W]`."""
    if not seeds.any():
        return np.zeros_like(mask)
    labels, count = ndimage.label(mask)
    kept = np.zeros(count + 1, dtype=bool)
    kept[np.unique(labels[seeds & mask])] = True
    kept[0] = False
    return kept[labels]


def remove_haze(bands: Reflectance, level: float, where: np.ndarray) -> Reflectance:
    """Subtract a veil of this level from the bands in VEIL_SPECTRUM.

    Outside of the visible bands as much is subtracted as makes the scene's darkest pixels black,
    within bounds.

    Args:
        bands: reflectance, 0 to 1.
        level: what `haze_level` returned.
        where: the pixels without cloud or snow.
    """
    cleared = dict(bands)
    for band, share in VEIL_SPECTRUM.items():
        if band not in bands:
            continue
        added = share * level
        if band not in ("B02", "B03", "B04"):
            darkest = float(np.percentile(bands[band][where], 1))
            added = float(np.clip(darkest, added, LARGEST_REMAINDER * added))
        cleared[band] = np.maximum(bands[band] - np.float32(added), 0)
    return cleared
