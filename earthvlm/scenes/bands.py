"""Tables of Sentinel-2: band names and orders, units, 8-bit scales, product names.

Nothing here reads a file. Reflectance is always x 10000 and free of
the offset that newer products carry (`BOA_OFFSET`).
"""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Iterator

# The order OlmoEarth was trained in (10 m, then 20 m, then 60 m bands); B10 is not among them.
BANDS = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09")

# The order of ESA's product specification, in which GeoTIFFs without band names are written:
# thirteen bands of a level-1C product, twelve of a level-2A one (B10, cirrus, sees no ground).
FILE_ORDER_13 = (
    *("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A"),
    *("B09", "B10", "B11", "B12"),
)
FILE_ORDER_12 = tuple(band for band in FILE_ORDER_13 if band != "B10")
VISIBLE_BANDS = ("B04", "B03", "B02")

# Central wavelengths in nm, Sentinel-2A (ESA, Sentinel-2 User Handbook, table 1).
WAVELENGTHS = {
    "B01": 443,
    "B02": 490,
    "B03": 560,
    "B04": 665,
    "B05": 705,
    "B06": 740,
    "B07": 783,
    "B08": 842,
    "B8A": 865,
    "B09": 945,
    "B10": 1375,
    "B11": 1610,
    "B12": 2190,
}

# Bands shown as red, green and blue. NDVI is an index with a colour map of its own.
COMPOSITES: dict[str, tuple[str, str, str] | None] = {
    "true colour": ("B04", "B03", "B02"),
    "near infrared": ("B08", "B04", "B03"),
    "short-wave infrared": ("B12", "B8A", "B04"),
    "NDVI": None,
}
NDVI_BANDS = ("B08", "B04")
CHANNELS = 3  # of a picture
# Bands of nearly the same wavelengths, one of which may replace the other in indices and pictures.
SUBSTITUTES = {"B8A": "B08", "B08": "B8A"}

REFLECTANCE_SCALE = 10_000
# Added to every band of products of processing baseline 04.00 and later (ESA, "Sentinel-2
# Products Specification Document" 14.9: BOA_ADD_OFFSET / RADIO_ADD_OFFSET = -1000), in force from
# 2022-01-25; products of older dates have it too where they were processed again (Collection 1).
BOA_OFFSET = 1000
BOA_OFFSET_FROM_DATE = datetime.date(2022, 1, 25)
BOA_OFFSET_FROM_BASELINE = 400
# Of products that were not processed by ESA, such as BigEarthNet's: it tells nothing.
LOCAL_BASELINE = 9999
FIRST_IMAGE_DATE = datetime.date(2015, 6, 23)  # launch of Sentinel-2A

# Classes of ESA's scene classification (SCL) by their number ("Level-2A Algorithm Theoretical Basis
# Document" 2.10), and those in which cloud hides the ground.
SCL_CLASSES = (
    *("no data", "saturated or defective", "dark area", "cloud shadow", "vegetation"),
    *("not vegetated", "water", "unclassified", "cloud, medium probability"),
    *("cloud, high probability", "thin cirrus", "snow or ice"),
)
SCL_CLOUD = 9
SCL_CLOUDS = (8, 9, 10)

# ChatEarthNet's three folders and the bands of the 8-bit RGB PNGs in them, in channel order.
CHATEARTHNET_FOLDERS = {
    "s2_rgb_images": ("B04", "B03", "B02"),
    "s2_band_5_6_7_images": ("B05", "B06", "B07"),
    "s2_band_8_11_12_images": ("B08", "B11", "B12"),
}
# Reflectance x 10000 for one 8-bit step. Source: SatlasPretrain, whose tiles ChatEarthNet reuses:
# RGB is ESA's true-colour product (255 = reflectance 0.3558), the other bands are divided by 32.
# Unverified for ChatEarthNet itself.
TRUE_COLOUR_WHITE = 3558
EIGHT_BIT_SCALE = {
    **dict.fromkeys(("B04", "B03", "B02"), TRUE_COLOUR_WHITE / 255),
    **dict.fromkeys(("B05", "B06", "B07", "B08", "B11", "B12"), 32.0),
}

# A date in a product's name or a tag (20220308T105111, 2022-03-08, 2022:03:08), and the baseline.
_DATE = re.compile(r"(?<!\d)(20\d\d)([-:_]?)(0\d|1[0-2])\2([0-3]\d)(?!\d)")
# A day of the year, as in names of Harmonised Landsat Sentinel (2021197T105031), and the sensing
# time in ESA's names of before December 2016 (V20160605T105031), where other times are of writing.
_DAY_OF_YEAR = re.compile(r"(?<!\d)(20\d\d)(\d{3})T\d{6}(?!\d)")
_OLD_NAME = "_OPER_"
_OLD_SENSING = re.compile(r"_V(20\d{6})T")
_BASELINE = re.compile(r"(?:_N|^)(\d\d)\.?(\d\d)(?:_|$)")

# Names for bands as STAC catalogues, Earth Engine and people write them.
_COMMON_NAMES = {
    **dict.fromkeys(("coastal", "coastal aerosol", "aerosol", "aerosols"), "B01"),
    # Also in French, German, Spanish, Portuguese, Italian and Dutch.
    **dict.fromkeys(("blue", "bleu", "blau", "azul", "blu", "blauw"), "B02"),
    **dict.fromkeys(("green", "vert", "grün", "gruen", "verde", "groen"), "B03"),
    **dict.fromkeys(("red", "rouge", "rot", "rojo", "vermelho", "rosso", "rood"), "B04"),
    **dict.fromkeys(("rededge1", "red edge 1", "rededge 1", "re1", "rededge071"), "B05"),
    **dict.fromkeys(("rededge2", "red edge 2", "rededge 2", "re2", "rededge075"), "B06"),
    **dict.fromkeys(("rededge3", "red edge 3", "rededge 3", "re3", "rededge078"), "B07"),
    **dict.fromkeys(("nir", "near infrared", "nir1", "pir", "nahes infrarot"), "B08"),
    **dict.fromkeys(("nir08", "rededge4", "red edge 4", "nir narrow", "narrow nir", "nir2"), "B8A"),
    **dict.fromkeys(("nir09", "water vapour", "water vapor"), "B09"),
    "cirrus": "B10",
    **dict.fromkeys(("swir16", "swir1", "swir 1"), "B11"),
    **dict.fromkeys(("swir22", "swir2", "swir 2"), "B12"),
}
_BAND_NUMBER = re.compile(r"(?<![a-z0-9])(?:band|b)[ _-]?0?(8a|\d{1,2})(?![a-z0-9])")
# Landsat (SR_B4) and MODIS (sur_refl_b01) number other bands in the same way.
_OTHER_SENSORS = re.compile(r"\bsr_b\d|sur_refl|landsat|modis")


def normalise_band_name(name: str | None) -> str | None:
    """Return the Sentinel-2 band that a label names ("B2", "Band 8A", "blue"), as in "B02".

    Labels of other sensors that count alike, such as Landsat's "SR_B2" or MODIS's
    "sur_refl_b01", and labels that name no band give None.
    """
    label = (name or "").strip().lower()
    if not label or _OTHER_SENSORS.search(label):
        return None
    if label in _COMMON_NAMES:
        return _COMMON_NAMES[label]
    if label.replace("_", " ").replace("-", " ") in _COMMON_NAMES:
        return _COMMON_NAMES[label.replace("_", " ").replace("-", " ")]
    match = _BAND_NUMBER.search(label.replace("_b", " b").replace("/b", " b"))
    if match is None:
        return None
    number = match.group(1).upper()
    band = "B8A" if number == "8A" else f"B{int(number):02d}"
    return band if band in WAVELENGTHS else None


def composite_bands(name: str) -> tuple[str, str, str] | None:
    """Return the bands that are shown as red, green and blue; None for NDVI.

    name: of COMPOSITES, or three bands as in "B11 B08 B02". Raises ValueError for any other.
    """
    if name in COMPOSITES:
        return COMPOSITES[name]
    bands = [normalise_band_name(text) for text in re.split(r"[\s,]+", name.strip())]
    if len(bands) != CHANNELS or not all(band in BANDS for band in bands):
        raise ValueError(
            f"there is no composite '{name[:80]}'; known are {', '.join(COMPOSITES)}, and three "
            "bands such as B11 B08 B02"
        )
    red, green, blue = (str(band) for band in bands)
    return red, green, blue


def find_date(*texts: str) -> datetime.date | None:
    """Return the first date in these tags or product names on which Sentinel-2 can have looked.

    A date before its launch or in the future is no acquisition date and is passed over.
    """
    latest = datetime.date.today() + datetime.timedelta(days=1)
    for text in texts:
        if _OLD_NAME in text:
            text = " ".join(_OLD_SENSING.findall(text))
        for date in _list_dates(text):
            if FIRST_IMAGE_DATE <= date <= latest:
                return date
    return None


def _list_dates(text: str) -> Iterator[datetime.date]:
    for year, _, month, day in _DATE.findall(text):
        with contextlib.suppress(ValueError):
            yield datetime.date(int(year), int(month), int(day))
    for year, day in _DAY_OF_YEAR.findall(text):
        if 1 <= int(day) <= 366:
            yield datetime.date(int(year), 1, 1) + datetime.timedelta(days=int(day) - 1)


def find_baseline(*texts: str) -> int | None:
    """Return the processing baseline, 510 for "05.10" or a product name with "_N0510_"."""
    for text in texts:
        match = _BASELINE.search(text)
        if match is not None and int(match[1] + match[2]) != LOCAL_BASELINE:
            return int(match[1] + match[2])
    return None
