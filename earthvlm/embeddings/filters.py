"""What a search asks for: words with a minus, and the scenes among which it looks."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass

BoundingBox = tuple[float, float, float, float]
# A box may cross the date line, with west greater than east. One that would reach further around
# the world than this is taken for one whose ends were swapped.
MAX_CROSSING_DEGREES = 180
BBOX_FORM = (
    "a box is west, south, east and north in degrees, longitudes from -180 to 180 and south at "
    "most north, as in 4, 47, 16, 55"
)


@dataclass(frozen=True)
class SceneFilter:
    """Which scenes take part in a search: those that fit everything that is not None.

    split: exactly this one. bbox: west, south, east, north in degrees, edges included; west may be
    greater than east, and the box then crosses the date line, at most 180 degrees wide.
    first_date, last_date: both included. source: words that a scene's source contains, in any
    case. A scene without a place, date or source fits no filter that asks for one.

    Raises ValueError, in one sentence, for a box or dates that cannot be.
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
        """The box from west to east, in two parts where it crosses the date line."""
        if self.bbox is None:
            return ()
        west, _, east, _ = self.bbox
        return ((west, east),) if west <= east else ((west, 180.0), (-180.0, east))


def parse_date(text: str) -> datetime.date:
    """Read a date as in 2020-06-30. Raises ValueError, in one sentence, for anything else."""
    try:
        return datetime.datetime.strptime(text.strip(), "%Y-%m-%d").date()
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no date as in 2020-06-30") from None


def parse_bbox(text: str) -> BoundingBox:
    """Read "4, 47, 16, 55": west, south, east, north in degrees. Raises ValueError as above."""
    parts = text.replace("−", "-").replace(",", " ").split()
    try:
        bbox = tuple(float(part) for part in parts)
    except ValueError:
        raise ValueError(f"{BBOX_FORM}; {text[:60]!r} was given") from None
    return _check_bbox(bbox)


def _check_bbox(bbox: BoundingBox) -> BoundingBox:
    numbers = tuple(float(value) for value in bbox)
    fits = len(numbers) == 4 and all(map(math.isfinite, numbers))
    if fits:
        west, south, east, north = numbers
        fits = max(abs(west), abs(east)) <= 180 and -90 <= south <= north <= 90
    given = ", ".join(f"{value:g}" for value in numbers)
    if not fits:
        raise ValueError(f"{BBOX_FORM}; {given} was given")
    if west > east and east + 360 - west > MAX_CROSSING_DEGREES:
        raise ValueError(
            f"the box {given} goes {east + 360 - west:g} degrees around the world, from {west:g} "
            f"east to {east:g}; swap west and east if it should go from {east:g} to {west:g}"
        )
    return numbers
