"""SceneFilter: which scenes take part in a search, by split, bounding box, dates and source."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass

BoundingBox = tuple[float, float, float, float]
# A bounding box may cross the date line, with west greater than east. A wider one than this is
# refused, because its ends were probably swapped.
MAX_CROSSING_DEGREES = 180
BBOX_FORM = (
    "a bounding box is west, south, east and north in degrees, longitudes from -180 to 180 and "
    "south not above north, as in 4, 47, 16, 55"
)


@dataclass(frozen=True)
class SceneFilter:
    """Which scenes take part in a search: those that match every attribute that is not None.

    A scene without coordinates, date or source matches no filter on that attribute.

    Attributes:
        split: the scene's split.
        bbox: west, south, east, north in degrees, edges included. A west greater than east crosses
            the date line; the box is then at most 180 degrees wide.
        first_date: the earliest date, included.
        last_date: the latest date, included.
        source: words that a scene's source contains, in any case.

    Raises:
        ValueError: the bounding box or the dates are invalid.
    """

    split: str | None = None
    bbox: BoundingBox | None = None
    first_date: datetime.date | None = None
    last_date: datetime.date | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        if self.bbox is not None:
            object.__setattr__(self, "bbox", _check_bbox(self.bbox))
        first, last = self.first_date, self.last_date
        if first is not None and last is not None and first > last:
            raise ValueError(f"the first date, {first}, is after the last, {last}; swap them")

    @property
    def longitude_ranges(self) -> tuple[tuple[float, float], ...]:
        """The box's longitudes from west to east, in two ranges if it crosses the date line."""
        if self.bbox is None:
            return ()
        west, _, east, _ = self.bbox
        return ((west, east),) if west <= east else ((west, 180.0), (-180.0, east))


def parse_date(text: str) -> datetime.date:
    """Parse a date as in 2020-06-30. Raises ValueError for anything else."""
    try:
        return datetime.datetime.strptime(text.strip(), "%Y-%m-%d").date()
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no date as in 2020-06-30") from None


def parse_bbox(text: str) -> BoundingBox:
    """Parse "4, 47, 16, 55": west, south, east, north in degrees. Raises ValueError otherwise."""
    parts = text.replace("−", "-").replace(",", " ").split()
    try:
        bbox = [float(part) for part in parts]
    except ValueError:
        raise ValueError(f"{BBOX_FORM}; {text[:60]!r} was given") from None
    return _check_bbox(bbox)


def _check_bbox(bbox: Sequence[float]) -> BoundingBox:
    numbers = [float(value) for value in bbox]
    given = ", ".join(f"{value:g}" for value in numbers)
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{BBOX_FORM}; {given} was given")
    west, south, east, north = numbers
    if max(abs(west), abs(east)) > 180 or not -90 <= south <= north <= 90:
        raise ValueError(f"{BBOX_FORM}; {given} was given")
    if west > east and east + 360 - west > MAX_CROSSING_DEGREES:
        raise ValueError(
            f"the bounding box {given} is {east + 360 - west:g} degrees wide, from {west:g} east "
            f"to {east:g}; swap west and east if it should go from {east:g} to {west:g}"
        )
    return west, south, east, north
