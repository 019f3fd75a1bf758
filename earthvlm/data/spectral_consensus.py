"""The land covers that a pixel can be by its spectrum, where several indices agree.

Not a classification: where indices disagree, every cover that one of them allows stays possible,
and training learns from neighbours and other labels what it is.
"""

from __future__ import annotations

import numpy as np

from earthvlm.data.pixel_labels import ANY, cover_set
from earthvlm.scenes.bands import REFLECTANCE_SCALE
from earthvlm.scenes.reflectance import normalized_difference
from earthvlm.scenes.scene import Scene

WATER, BURNT = cover_set(["water"]), cover_set(["burnt land"])
# Covers by NDVI, each from its limit on. Bare ground ends at 0.2 and full plant cover begins at 0.5
# (Sobrino and Raissouni 2000); the sets overlap widely around both.
BY_NDVI = (
    (-1.0, ("bare soil", "built-up land")),
    (0.13, ("bare soil", "built-up land", "sparse vegetation")),
    (0.20, ("bare soil", "built-up land", "sparse vegetation", "cropland or grass")),
    (0.27, ("built-up land", "sparse vegetation", "cropland or grass", "tree cover")),
    (0.45, ("sparse vegetation", "cropland or grass", "tree cover")),
    (0.60, ("cropland or grass", "tree cover")),
)
# A pixel this dark in the near infrared can be shadow on anything.
SHADE = 0.07
# Near infrared above which nothing is open water, and a water index below which nothing is.
BRIGHT_INFRARED, DRY_INDEX = 0.2, -0.15
# Open water by two indices, (Xu 2006) and (McFeeters 1996), and dark in the near infrared; or
# next to black in both infrared bands.
WET_INDEX, WET_NDWI, WET_INFRARED = 0.15, 0.05, 0.15
BLACK_INFRARED, BLACK_SHORT_WAVE = 0.035, 0.02
# Burnt ground: NBR this much below the scene's median.
BURNT_NBR = 0.1


def possible_by_spectrum(scene: Scene) -> np.ndarray:
    """Return the covers that each pixel can be, uint16 `[H, W]`; see `PixelLabels`.

    Covers of the ground that are not plants, soil, houses or water (snow, burnt land, cloud) are
    neither found nor excluded: they are always among the possible ones. Without the near infrared
    every cover is possible.
    """
    bands = {band: scene.find_band(band) for band in ("B03", "B04", "B08", "B11", "B12")}
    green, red, infrared = (_scaled(bands[band]) for band in ("B03", "B04", "B08"))
    other = cover_set(["snow or ice", "burnt land", "cloud"])
    if green is None or red is None or infrared is None:
        return np.full((scene.height, scene.width), ANY, np.uint16)
    ndvi = normalized_difference(infrared, red)
    possible = np.zeros(ndvi.shape, np.uint16)
    for limit, covers in BY_NDVI:
        possible[ndvi >= limit] = cover_set(covers)
    possible[infrared < SHADE] |= cover_set(["tree cover", "built-up land", "bare soil"])
    short_wave = _scaled(bands["B11"] if bands["B11"] is not None else bands["B12"])
    ndwi = normalized_difference(green, infrared)
    index = ndwi if short_wave is None else normalized_difference(green, short_wave)
    dry = (index < DRY_INDEX) | (infrared > BRIGHT_INFRARED)
    black = infrared < BLACK_INFRARED
    if short_wave is not None:
        black &= short_wave < BLACK_SHORT_WAVE
        dry &= ~black
    wet = (index > WET_INDEX) & (ndwi > WET_NDWI) & (infrared < WET_INFRARED) | black
    possible[~dry] |= WATER
    possible[wet] = WATER
    return possible | np.uint16(other)


def looks_burnt(scene: Scene) -> np.ndarray | None:
    """Return where the normalized burn ratio is far below the scene's median, bool `[H, W]`.

    None without the near or the short-wave infrared.
    """
    infrared, short_wave = scene.find_band("B08"), scene.find_band("B12")
    if short_wave is None:
        short_wave = scene.find_band("B11")
    if infrared is None or short_wave is None:
        return None
    ratio = normalized_difference(infrared, short_wave)
    dark = infrared < np.median(infrared)
    return (ratio < np.median(ratio) - BURNT_NBR) & dark


def _scaled(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else values / REFLECTANCE_SCALE
