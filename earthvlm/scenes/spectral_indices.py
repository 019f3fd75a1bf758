"""Land-cover fractions of a scene by spectral indices, independent of any model.

Every threshold is published and has its source here. This is no map of land cover: it classifies
spectra pixel by pixel, and at times mistakes shadow, sand or pale roofs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from earthvlm.scenes.bands import REFLECTANCE_SCALE
from earthvlm.scenes.reflectance import normalized_difference
from earthvlm.scenes.scene import Scene

# In the order of the tests; a pixel belongs to the first class whose test it passes.
COVER_CLASSES = ("cloud", "snow", "water", "dense vegetation", "sparse vegetation", "bare or built")
NO_DATA = 255
COVER_RULES = {
    "cloud": "thick cloud: B03 > 0.39, or B03 > 0.175 and B03 > B04, with B11 > 0.1",
    "snow": "snow: NDSI > 0.4 and near infrared > 0.11",
    "water": "open water: MNDWI > 0 and near infrared < 0.11, or next to nothing in the infrared",
    "dense vegetation": "green plants: NDVI > 0.5",
    "sparse vegetation": "thin or mixed plants: NDVI 0.2 to 0.5",
    "bare or built": "soil, rock, roofs, roads: NDVI < 0.2",
}
# Braaten, Cohen and Yang, "Automated cloud and cloud shadow identification in Landsat MSS imagery",
# Remote Sensing of Environment 169, 2015; with B11 > 0.1 against snow, as the detector named after
# them does for Sentinel-2.
CLOUD_GREEN, CLOUD_GREEN_SURE, CLOUD_SHORT_WAVE = 0.175, 0.39, 0.1
# Hall, Riggs and Salomonson, "Development of methods for mapping global snow cover", Remote Sensing
# of Environment 54, 1995. NDSI is MNDWI by another name; the near infrared tells snow from water.
SNOW_INDEX, SNOW_NEAR_INFRARED = 0.4, 0.11
# Xu, "Modification of normalised difference water index", International Journal of Remote Sensing
# 27, 2006 (MNDWI); without B11 McFeeters, same journal 17, 1996 (NDWI). Both draw the line at 0.
WATER_INDEX = 0.0
# Where next to nothing comes back, the index is noise: peat-brown lakes have NIR and B11 of 0.01 to
# 0.02. This line is the project's own, drawn by eye on such lakes; black shadow looks the same.
DARK_WATER = 0.025
# Sobrino and Raissouni, "Toward remote sensing methods for land cover dynamic monitoring",
# International Journal of Remote Sensing 21, 2000: bare below, fully vegetated above.
BARE_NDVI, DENSE_NDVI = 0.2, 0.5
SOURCES = (
    "Water: MNDWI > 0 (Xu 2006), NDWI where B11 is missing (McFeeters 1996), and what is black in "
    "the infrared (our own line); snow: Hall et al. 1995; thick cloud: Braaten et al. 2015; "
    "plants: NDVI (Sobrino and Raissouni 2000). Each pixel counts once. Shadow, sand and roofs can "
    "be mistaken; thin cloud is not counted."
)


@dataclass(frozen=True)
class SpectralIndices:
    """Land-cover fractions of a scene, 0 to 1, in the order of COVER_CLASSES; their sum is 1.

    Snow and cloud are absent where B11 is missing. water_index: "MNDWI" or "NDWI".
    """

    shares: dict[str, float]
    water_index: str

    def share(self, *covers: str) -> float:
        """Return the share of these covers together; 0 for those that were not measured."""
        return sum(self.shares.get(cover, 0.0) for cover in covers)

    @property
    def vegetation(self) -> float:
        """The share of dense and sparse vegetation together."""
        return self.share("dense vegetation", "sparse vegetation")


def classify(scene: Scene) -> np.ndarray | None:
    """Return the cover of each pixel as its index in COVER_CLASSES, uint8 `[H, W]`.

    Pixels without data are NO_DATA.
    None where the near infrared is missing, as in a photo: nothing here can then be measured.
    """
    green, red, near_infrared, short_wave = (
        _reflectance(scene, band) for band in ("B03", "B04", "B08", "B11")
    )
    if green is None or red is None or near_infrared is None:
        return None
    ndvi = normalized_difference(near_infrared, red)
    other = near_infrared if short_wave is None else short_wave
    water_index = normalized_difference(green, other)
    nothing = np.zeros(ndvi.shape, dtype=bool)
    cloud, snow = nothing, nothing
    if short_wave is not None:
        cloud = find_cloud(scene)
        snow = (water_index > SNOW_INDEX) & (near_infrared > SNOW_NEAR_INFRARED)
    water = (water_index > WATER_INDEX) & (near_infrared < SNOW_NEAR_INFRARED)
    water |= (near_infrared < DARK_WATER) & (other < DARK_WATER)
    rules = [cloud, snow, water, ndvi > DENSE_NDVI, ndvi >= BARE_NDVI]
    covers = np.select(rules, list(range(5)), default=5).astype(np.uint8)
    return covers if scene.valid is None else np.where(scene.valid, covers, NO_DATA)


def measure(scene: Scene) -> SpectralIndices | None:
    """Return a scene's land-cover fractions; None where it lacks the near infrared."""
    covers = classify(scene)
    if covers is None:
        return None
    covers = covers[covers != NO_DATA]
    counts = np.bincount(covers, minlength=len(COVER_CLASSES)) / covers.size
    has_short_wave = "B11" in scene.bands
    kept = [c for c in COVER_CLASSES if has_short_wave or c not in ("cloud", "snow")]
    shares = {cover: float(counts[COVER_CLASSES.index(cover)]) for cover in kept}
    return SpectralIndices(shares, "MNDWI" if has_short_wave else "NDWI")


def percent(share: float) -> str:
    """Return a share as text without a line break: "12 %", "under 1 %", "none"."""
    if share == 0:
        return "none"
    return "under 1\u00a0%" if share < 0.005 else f"{100 * share:.0f}\u00a0%"


def find_cloud(scene: Scene) -> np.ndarray:
    """Return the pixels that thick cloud covers, bool `[H, W]`; needs B03 and B04.

    The clouds of a scene classification count too. Where B11 is missing, bright snow counts as
    cloud.
    """
    green, red, short_wave = (_reflectance(scene, band) for band in ("B03", "B04", "B11"))
    if green is None or red is None:
        raise ValueError(f"'{scene.name}' lacks B03 or B04, by which clouds are found")
    bright = (green > CLOUD_GREEN) & (green > red) | (green > CLOUD_GREEN_SURE)
    cloud = bright if short_wave is None else bright & (short_wave > CLOUD_SHORT_WAVE)
    classified = scene.cloud_mask
    return cloud if classified is None else cloud | classified


def _reflectance(scene: Scene, band: str) -> np.ndarray | None:
    """Return a band's reflectance from 0 to 1, `[H, W]`, or None where it is missing."""
    values = scene.find_band(band)
    return None if values is None else values / REFLECTANCE_SCALE
