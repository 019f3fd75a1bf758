"""Land-cover fractions of a scene by spectral indices, independent of any model.

Thresholds are published, with their source here, or the project's own, found on half of the test
places and checked on the others. This is no map of land cover: it classifies spectra pixel by
pixel, and at times mistakes shadow, sand or pale roofs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from scipy import ndimage

from earthvlm.scenes.analysis.haze import (
    HAZE_LEVEL,
    Reflectance,
    find_thick_cloud,
    grow,
    haze_level,
    measure_veil,
    open_mask,
    read_reflectance,
    remove_haze,
)
from earthvlm.scenes.reflectance import normalized_difference
from earthvlm.scenes.scene import Scene

# In the order of the tests; a pixel belongs to the first class whose test it passes.
COVER_CLASSES = ("cloud", "snow", "water", "dense vegetation", "sparse vegetation", "bare or built")
# The classes that are land covers too, by the cover's name.
MEASURED_AS = {"water": "water", "snow or ice": "snow", "cloud": "cloud"}
NO_DATA = 255
COVER_RULES = {
    "cloud": "cloud: as white as a veil of 10 % reflectance over dark ground, or thicker",
    "snow": "snow: NDSI > 0.4, blue-white, and bright in the near infrared too",
    "water": "open water: MNDWI > 0, dark in the infrared, and no shadow by its other bands",
    "dense vegetation": "green plants: NDVI > 0.5",
    "sparse vegetation": "thin or mixed plants: NDVI 0.2 to 0.5",
    "bare or built": "soil, rock, roofs, roads: NDVI < 0.2",
}
# Hall, Riggs and Salomonson, "Development of methods for mapping global snow cover", Remote Sensing
# of Environment 54, 1995: NDSI, which is MNDWI by another name.
SNOW_INDEX = 0.4
SNOW_NEAR_INFRARED = 0.11
# Our own lines against shallow water: over pale sand it is yellowish, elsewhere dark in the near
# infrared. Ice is darker there than snow. Snow in the shade is bluer and as flat as snow; lakes
# under smoke look the same, so it is believed only where there is snow in the sun too.
SNOW_RED, SNOW_BLUE_OF_GREEN, SNOW_B08_OF_B04 = 0.15, 0.95, 0.55
SHADE_RED, SHADE_BLUE_OF_GREEN, SHADE_B08_OF_B04 = 0.03, 1.05, 0.8
LEAST_SNOW = 0.02
# A veil of more than this is cloud, unless NDSI is as high as that of fresh snow alone.
CLOUD_OVER_SNOW, FRESH_SNOW_INDEX = 0.2, 0.7
# Ice cloud is smooth: the median difference of B03 from its neighbours' mean was 0.2 % of it, and
# 5 % in a snowy landscape. A white scene this smooth counts as cloud in a warm season, one still
# smoother where the season is not known, and none in winter or near a pole.
SMOOTH, SMOOTH_AT_ANY_TIME, MOST = 0.004, 0.0025, 0.5
POLAR_LATITUDE, WARM_MONTHS = 60, range(5, 10)
# Xu, "Modification of normalised difference water index", International Journal of Remote Sensing
# 27, 2006 (MNDWI; with B12 where B11 is missing); without both McFeeters, same journal 17, 1996
# (NDWI). Both draw the line at 0.
WATER_INDEX = 0.0
# Water is dark in the short-wave infrared, also where mud or a shallow ground brightens the others.
WATER_SHORT_WAVE = 0.12
# Of dark and turbid water NDWI is about 0, of wet soil and shadow less. Water above the second
# index is bright in the near infrared where it is shallow, up to the NDVI of floating plants.
WATER_NEAR_INFRARED, WATER_NDWI, SHALLOW_NDWI = 0.11, -0.12, 0.05
FLOODED_INDEX, FLOODED_NDVI = 0.4, 0.2
# Where next to nothing comes back, indices are noise. Peat-brown lakes have NIR and B11 of 0.01 to
# 0.015 and a lower B12 still; cloud shadow on land keeps more of the short-wave infrared. Such
# lakes are followed to their brighter shores. Our own lines, drawn on lakes and on shadows.
BLACK_NEAR_INFRARED, BLACK_SHORT_WAVE, BLACK_B12_OF_B08 = 0.02, 0.015, 0.62
BLACK_PIXELS = 3  # along each side; less may be the shadow of a tree or a house
SHORE_NEAR_INFRARED, SHORE_SHORT_WAVE, SHORE_NDVI = 0.03, 0.025, 0.45
# Without the short-wave infrared.
WATER_NEAR_INFRARED_ALONE = 0.15
# Below this in B03, B04 and B08, what is no water may be in shadow, and NDVI is noise. Charcoal is
# as dark, but much brighter in the short-wave infrared.
DARK, BURNT_SHORT_WAVE = 0.04, 2.0
# Sobrino and Raissouni, "Toward remote sensing methods for land cover dynamic monitoring",
# International Journal of Remote Sensing 21, 2000: bare below, fully vegetated above.
BARE_NDVI, DENSE_NDVI = 0.2, 0.5
# A share is given with at least this error: the edges of everything are mixed pixels.
LEAST_ERROR = 0.02
# Pixels so near a threshold may as well be on its other side; under haze errors are as many times
# as large.
INDEX_ERROR, HAZY_ERROR = 0.05, 2
SOURCES = (
    "Haze is measured first and subtracted, where it lies over the whole scene. Water: MNDWI > 0 "
    "(Xu 2006) and dark in the infrared, NDWI where the short-wave infrared is missing (McFeeters "
    "1996), and what is black in the infrared (our own line); snow: Hall et al. 1995, blue-white; "
    "cloud: a white veil of at least 10 % reflectance; plants: NDVI (Sobrino and Raissouni 2000). "
    "Each pixel counts once. Shadow, sand and roofs can be mistaken; cirrus is seldom counted."
)


@dataclass(frozen=True)
class SpectralIndices:
    """Land-cover fractions of a scene, 0 to 1, in the order of COVER_CLASSES; their sum is 1.

    Attributes:
        shares: by cover; snow and cloud are absent where the short-wave infrared is missing.
        water_index: "MNDWI" or "NDWI".
        errors: of the shares, by cover: half of the pixels near a threshold, and all in shadow.
        haze: the reflectance that haze adds to the whole scene; 0 where there is none.
        dark: the share of pixels that are too dark to be measured, mostly in shadow.
    """

    shares: dict[str, float]
    water_index: str
    errors: dict[str, float] = field(default_factory=dict)
    haze: float = 0.0
    dark: float = 0.0

    def share(self, *covers: str) -> float:
        """Return the share of these covers together; 0 for those that were not measured."""
        return sum(self.shares.get(cover, 0.0) for cover in covers)

    def error(self, *covers: str) -> float:
        """Return the error of the share of these covers together, at least LEAST_ERROR."""
        return max(LEAST_ERROR, *(self.errors.get(cover, 0.0) for cover in covers))

    @property
    def vegetation(self) -> float:
        """The share of dense and sparse vegetation together."""
        return self.share("dense vegetation", "sparse vegetation")

    @property
    def is_hazy(self) -> bool:
        """Whether haze lies over the whole scene, so that shares are less certain."""
        return self.haze > HAZE_LEVEL


@dataclass(frozen=True)
class Classification:
    """The cover of each pixel, and how certain it is.

    Attributes:
        covers: uint8 `[H, W]`, an index in COVER_CLASSES, or NO_DATA.
        doubtful: bool `[H, W]`, so near a threshold that the cover may be another.
        dark: bool `[H, W]`, too dark to be measured, and no water.
        haze: the reflectance that haze adds to the whole scene.
        water_index: "MNDWI" or "NDWI".
    """

    covers: np.ndarray
    doubtful: np.ndarray
    dark: np.ndarray
    haze: float
    water_index: str

    @property
    def seen(self) -> np.ndarray:
        """Where the ground can be measured, bool `[H, W]`: data, no cloud and no deep shadow."""
        hidden = np.isin(self.covers, (NO_DATA, COVER_CLASSES.index("cloud")))
        return ~(hidden | self.dark)

    def measure(self, where: np.ndarray | None = None) -> SpectralIndices:
        """Return the shares of the covers among the pixels with data, or among some of them."""
        known = self.covers != NO_DATA if where is None else where
        covers = self.covers[known]
        size = max(covers.size, 1)
        counts, near = (
            np.bincount(found, minlength=len(COVER_CLASSES)) / size
            for found in (covers, covers[self.doubtful[known]])
        )
        dark = float(self.dark[known].sum()) / size
        is_hazy = self.haze > HAZE_LEVEL
        shares, errors = {}, {}
        for index, cover in enumerate(COVER_CLASSES):
            if self.water_index == "NDWI" and cover in ("cloud", "snow"):
                continue
            shares[cover] = float(counts[index])
            error = float(near[index]) / 2 + (dark if cover != "snow" else 0.0)
            errors[cover] = error * (HAZY_ERROR if is_hazy else 1)
        return SpectralIndices(shares, self.water_index, errors, self.haze, dark)


def classify_pixels(scene: Scene) -> Classification | None:
    """Classify each pixel of a scene; None where the near infrared is missing."""
    bands = read_reflectance(scene)
    if not {"B03", "B04", "B08"} <= set(bands):
        return None
    veil = measure_veil(bands)
    has_short_wave = bool({"B11", "B12"} & set(bands))
    cloud = snow = np.zeros(bands["B08"].shape, dtype=bool)
    if has_short_wave:
        cloud, snow = _find_cloud_and_snow(scene, bands, veil)
    clear = ~(cloud | snow)
    if scene.valid is not None:
        clear &= scene.valid
    haze = haze_level(bands, veil, clear)
    ground, near_infrared = bands, bands["B08"]
    if haze > HAZE_LEVEL:
        ground = remove_haze(bands, haze, clear)
        # Subtracting the darkest would take too much from the near infrared of plants.
        near_infrared = np.maximum(near_infrared - np.float32(haze), 0)
    green, red = ground["B03"], ground["B04"]
    water, index = _find_water(ground)
    ndvi = normalized_difference(near_infrared, red)
    dark = clear & ~water & (np.maximum(np.maximum(green, red), near_infrared) < DARK)
    burnt = dark & (_short_wave(ground) > BURNT_SHORT_WAVE * near_infrared)
    rules = [cloud, snow, water, burnt, ndvi > DENSE_NDVI, ndvi >= BARE_NDVI]
    covers = np.select(rules, [0, 1, 2, 5, 3, 4], default=5).astype(np.uint8)
    if scene.valid is not None:
        covers = np.where(scene.valid, covers, np.uint8(NO_DATA))
    doubtful = np.abs(index - WATER_INDEX) < INDEX_ERROR
    for threshold in (BARE_NDVI, DENSE_NDVI):
        doubtful |= ~water & (np.abs(ndvi - threshold) < INDEX_ERROR)
    name = "MNDWI" if has_short_wave else "NDWI"
    return Classification(covers, doubtful & clear, dark & ~burnt, haze, name)


_MEASURED: WeakKeyDictionary[Scene, SpectralIndices | None] = WeakKeyDictionary()


def measure(scene: Scene) -> SpectralIndices | None:
    """Return a scene's land-cover fractions; None where it lacks the near infrared.

    They are kept while the scene is in use, because a page and a prompt both ask for them.
    """
    if scene not in _MEASURED:
        classified = classify_pixels(scene)
        _MEASURED[scene] = None if classified is None else classified.measure()
    return _MEASURED[scene]


def _find_cloud_and_snow(
    scene: Scene, bands: Reflectance, veil: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of cloud and those of snow, bool `[H, W]`; needs the short-wave infrared.

    Ice clouds have the spectrum of snow. What looks like snow is cloud where most of the connected
    white is cloud, and where it is smoother than snow of that place and season.
    """
    cloud = _join_clouds(find_thick_cloud(bands, veil), scene)
    green, red = bands["B03"], bands["B04"]
    blue = bands.get("B02", green)  # snow in the shade is not told without it
    index = normalized_difference(green, _short_wave(bands))
    near_infrared, snowy = bands["B08"], index > SNOW_INDEX
    snow = snowy & (red > SNOW_RED) & (blue > SNOW_BLUE_OF_GREEN * green)
    snow &= near_infrared > np.maximum(SNOW_B08_OF_B04 * red, SNOW_NEAR_INFRARED)
    if snow.mean() > LEAST_SNOW:
        shade = snowy & (red > SHADE_RED) & (blue > SHADE_BLUE_OF_GREEN * green)
        snow |= shade & (near_infrared > SHADE_B08_OF_B04 * red)
    if veil is not None:
        snow &= (veil < CLOUD_OVER_SNOW) | (index > FRESH_SNOW_INDEX)
    if not snow.any():
        return cloud, snow
    labels, count = ndimage.label(snow | cloud)
    shares = ndimage.mean(cloud & ~snow, labels, np.arange(1, count + 1))
    ice = snow & np.concatenate([[False], shares > 0.5])[labels]
    difference = np.abs(green - ndimage.uniform_filter(green, 3))[snow] / green[snow]
    if snow.mean() > MOST and np.median(difference) < _least_texture_of_snow(scene):
        ice = snow
    snow = snow & ~ice
    return (cloud | ice) & ~snow, snow


def _least_texture_of_snow(scene: Scene) -> float:
    """How much texture a white scene needs to be snow, by its season and latitude."""
    if scene.latitude is None:
        return SMOOTH_AT_ANY_TIME
    if abs(scene.latitude) >= POLAR_LATITUDE:
        return 0.0
    if scene.date is None:
        return SMOOTH_AT_ANY_TIME
    month = scene.date.month if scene.latitude > 0 else (scene.date.month + 5) % 12 + 1
    return SMOOTH if month in WARM_MONTHS else 0.0


def _find_water(bands: Reflectance) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of open water, bool `[H, W]`, and the index that they were found by."""
    green, red, near_infrared = (bands[band] for band in ("B03", "B04", "B08"))
    ndwi = normalized_difference(green, near_infrared)
    if not {"B11", "B12"} & set(bands):
        return (ndwi > WATER_INDEX) & (near_infrared < WATER_NEAR_INFRARED_ALONE), ndwi
    short_wave = _short_wave(bands)
    index = normalized_difference(green, short_wave)
    ndvi = normalized_difference(near_infrared, red)
    water = (near_infrared < WATER_NEAR_INFRARED) & (ndwi > WATER_NDWI) | (ndwi > SHALLOW_NDWI)
    water |= (index > FLOODED_INDEX) & (ndvi < FLOODED_NDVI)
    water &= (index > WATER_INDEX) & (short_wave < WATER_SHORT_WAVE)
    black = (near_infrared < BLACK_NEAR_INFRARED) & (short_wave < BLACK_SHORT_WAVE)
    if "B12" in bands:
        black &= bands["B12"] < BLACK_B12_OF_B08 * near_infrared
    shore = (near_infrared < SHORE_NEAR_INFRARED) & (short_wave < SHORE_SHORT_WAVE)
    black = open_mask(black, BLACK_PIXELS)
    return water | grow(black, shore & (ndvi < SHORE_NDVI)), index


def _short_wave(bands: Reflectance) -> np.ndarray:
    """Return B11, or B12 where that is missing; zeros where both are."""
    found = bands.get("B11", bands.get("B12"))
    return np.zeros_like(bands["B03"]) if found is None else found


def percent(share: float) -> str:
    """Return a share as text without a line break: "12 %", "under 1 %", "none"."""
    if share == 0:
        return "none"
    return "under 1\u00a0%" if share < 0.005 else f"{100 * share:.0f}\u00a0%"


def find_cloud(scene: Scene) -> np.ndarray:
    """Return the pixels that cloud covers, bool `[H, W]`; needs B03 and B04.

    The clouds of a scene classification count too. Where the short-wave infrared is missing, bright
    snow counts as cloud.
    """
    bands = read_reflectance(scene)
    if not {"B03", "B04"} <= set(bands):
        raise ValueError(f"'{scene.name}' lacks B03 or B04, by which clouds are found")
    return _join_clouds(find_thick_cloud(bands, measure_veil(bands)), scene)


def _join_clouds(cloud: np.ndarray, scene: Scene) -> np.ndarray:
    classified = scene.cloud_mask
    return cloud if classified is None else cloud | classified
