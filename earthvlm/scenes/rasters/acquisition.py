"""When and where a raster was taken, and by which sensor, as its tags, name and grid tell.

The time at which a file was saved is never taken for an acquisition date.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from earthvlm.scenes.bands import FIRST_IMAGE_DATE, find_date
from earthvlm.scenes.grid import METRES_A_DEGREE

if TYPE_CHECKING:
    import rasterio

# Written by Scene.save.
DATE_TAG = "ACQUISITION_DATE"
PLACE_TAGS = ("CENTRE_LONGITUDE", "CENTRE_LATITUDE")
PIXEL_TAG = "PIXEL_METRES"
# Keys of acquisition dates in lower case: our own, ESA's, SNAP's, STAC's, Earth Engine's, GDAL's.
# TIFF's own DATETIME is left out, because programs write the time of saving there.
DATE_KEYS = (
    *(DATE_TAG.lower(), "sensing_time", "sensing_start", "product_start_time"),
    *("datatake_1_datatake_sensing_start", "acquisitiondatetime", "acquisition_time", "datetime"),
    *("date", "start_datetime", "start_date", "acquired", "date_acquired", "system:time_start"),
)
END_KEYS = ("end_datetime", "end_date", "stop_date", "system:time_end")
# Days from a start to an end beyond which they mark a period and not one acquisition.
LONGEST_ACQUISITION_DAYS = 1
_EPOCH = re.compile(r"^\d{9,10}(\d{3})?(\.0*)?$")
_NAMED_MONTH = re.compile(r"(?<!\d)(\d{1,2})[-\s]([A-Za-z]{3})[a-z]*[-\s](20\d\d)")
_PERIOD = re.compile(r"(?<!\d)(20\d\d-\d\d-\d\d)(?:_|/|\.\.|_to_|-)(20\d\d-\d\d-\d\d)(?!\d)")
# Products of other sensors by how their files are named, with what they are.
_OTHER_PRODUCTS = {
    re.compile(r"hls\.l30|(^|[_-])l[cet]0[4-9]_|(^|[_-])l[cet][4-9]\d{13}|landsat"): "Landsat",
    re.compile(r"(^|[_-])s1[abc]_|sentinel-?1\b"): "Sentinel-1",
    re.compile(r"(^|[_-])m[oy]d\d\d|modis"): "MODIS",
    re.compile(r"psscene|planetscope|analyticms"): "PlanetScope",
}
_SENSOR_KEYS = ("spacecraft_id", "sensor_id", "satellite", "platform", "spacecraft", "sensor")
# Metres a pixel of what is read as Sentinel-2: its own 10, 20 and 60, 30 in harmonised products,
# and images resampled a little.
PIXEL_METRES = (4.0, 130.0)


def read_acquisition_date(
    file: rasterio.DatasetReader, stem: str
) -> tuple[datetime.date | None, list[str]]:
    """The day on which a raster was taken, by its tags, else by its name; None for a period.

    Also returns sentences for the user: that it covers a period.
    """
    tags = {**file.tags(ns="IMAGERY"), **file.tags()}
    values = {key.lower(): value for key, value in tags.items()}
    # Earth Engine's "system:time_start=...", which GDAL's metadata splits at the colon.
    name, _, value = values.get("system", "").partition("=")
    values[f"system:{name}"] = value
    starts = [date for key in DATE_KEYS if (date := parse_date(values.get(key, "")))]
    ends = [date for key in END_KEYS if (date := parse_date(values.get(key, "")))]
    period = _PERIOD.search(stem)
    if period and not starts:
        first, last = (parse_date(part) for part in period.groups())
        starts, ends = ([first], [last]) if first and last else ([], [])
    start = starts[0] if starts else find_date(stem)
    if start and ends and (ends[0] - start).days > LONGEST_ACQUISITION_DAYS:
        return None, [f"It covers a period, {start} to {ends[0]}, so it has no single date."]
    return start, []


def parse_date(text: str) -> datetime.date | None:
    """The day that a tag names: ISO, with slashes, as 16-JUL-2021, or milliseconds since 1970."""
    text = text.strip()
    if _EPOCH.match(text):
        seconds = float(text) / (1000 if len(text.split(".")[0]) > 10 else 1)
        date = datetime.datetime.fromtimestamp(seconds, datetime.UTC).date()
        return date if FIRST_IMAGE_DATE <= date <= datetime.date.today() else None
    if match := _NAMED_MONTH.search(text):
        try:
            day = datetime.datetime.strptime("-".join(match.groups()), "%d-%b-%Y")
        except ValueError:
            return None
        return find_date(day.date().isoformat())
    return find_date(text.replace("/", "-"))


def has_grid(file: rasterio.DatasetReader) -> bool:
    """Whether a raster's pixels have places: a CRS and a transform that is not the identity."""
    return file.crs is not None and not file.transform.is_identity


def read_place_tags(file: rasterio.DatasetReader) -> tuple[float, float] | None:
    """Return longitude and latitude (degrees) of a raster's centre as `Scene.save` writes them."""
    tags = file.tags()
    try:
        longitude, latitude = (float(tags[tag]) for tag in PLACE_TAGS)
    except (KeyError, ValueError):
        return None
    known = abs(longitude) <= 180 and abs(latitude) <= 90
    return (longitude, latitude) if known else None


def read_pixel_metres(file: rasterio.DatasetReader) -> float | None:
    """The side of a raster's pixels on the ground, in metres; None where it is not known.

    It is measured along the middle column, because maps such as Web Mercator stretch distances
    away from the equator.
    """
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError
    from rasterio.warp import transform

    try:
        if PIXEL_TAG in file.tags():
            side = float(file.tags()[PIXEL_TAG])
        elif not has_grid(file):
            return None
        else:
            ends = [file.xy(row, file.width / 2) for row in (0, file.height - 1)]
            steps = max(file.height - 1, 1)
            longitudes, latitudes = transform(file.crs, "EPSG:4326", *zip(*ends, strict=True))
            east = (longitudes[1] - longitudes[0]) * math.cos(math.radians(latitudes[0]))
            side = math.hypot(east, latitudes[1] - latitudes[0]) * METRES_A_DEGREE / steps
    except (RasterioError, CPLE_BaseError, ValueError):
        return None
    return side if PIXEL_METRES[0] <= side <= PIXEL_METRES[1] else None


def find_mirrored_axes(file: rasterio.DatasetReader) -> tuple[int, ...]:
    """The axes of `[H, W]` to reverse for north to be at the top and west at the left."""
    if not has_grid(file):
        return ()
    return (*((0,) if file.transform.e > 0 else ()), *((1,) if file.transform.a < 0 else ()))


def refuse_other_sensors(file: rasterio.DatasetReader, stem: str, source: str) -> None:
    """Raise ValueError for a raster that its name, tags or pixel size tell to be no Sentinel-2."""
    refuse_sensors(file.tags(), _pixel_metres(file), stem, source)


def refuse_sensors(tags: Mapping[Any, Any], metres: float | None, stem: str, source: str) -> None:
    """Raise ValueError where tags, pixel size or file name are none of Sentinel-2's.

    metres: the side of a pixel; source: names the image in the error.
    """
    named = {str(key).lower(): str(value) for key, value in tags.items()}
    texts = [stem, *(named.get(key, "") for key in _SENSOR_KEYS)]
    for pattern, sensor in _OTHER_PRODUCTS.items():
        found = any(pattern.search(text.lower()) for text in texts)
        if found and ("hls" not in stem.lower() or "hls.l30" in stem.lower()):
            raise ValueError(f"{source} is of {sensor}, not of Sentinel-2, whose bands differ")
    if metres is not None and not PIXEL_METRES[0] <= metres <= PIXEL_METRES[1]:
        raise ValueError(
            f"{source} has pixels of {metres:,.2g} m; Sentinel-2's are 10, 20 or 60 m, and answers "
            f"about pixels of {PIXEL_METRES[0]:.0f} to {PIXEL_METRES[1]:.0f} m alone make sense"
        )


def _pixel_metres(file: rasterio.DatasetReader) -> float | None:
    if not has_grid(file):
        return None
    side = math.hypot(file.transform.b, file.transform.e)
    if file.crs.is_geographic:
        return side * METRES_A_DEGREE
    return side * file.crs.linear_units_factor[1] if file.crs.is_projected else None
