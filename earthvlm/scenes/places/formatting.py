"""Dates, places, bounding boxes and counts in words, in one form everywhere."""

from __future__ import annotations

import datetime

TROPIC = 23.4  # degrees of latitude
SQUARE_METRES_A_HECTARE = 10_000
# December belongs to the first.
SEASONS = ("winter", "spring", "summer", "autumn")
# Belts by the latitude at which each ends; a coarse guide that ignores height and sea.
CLIMATE_BELTS = {
    "tropical": TROPIC,
    "subtropical": 35.0,
    "temperate": 55.0,
    "boreal": 66.6,
    "polar": 90.1,
}


def describe_count(number: int, noun: str) -> str:
    """Return a number of things as in "1 tile", "1,200 tiles", "2 searches", "2 entries"."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("ry"):
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}{'es' if noun.endswith(('ch', 'sh', 's')) else 's'}"


def describe_date(date: datetime.date) -> str:
    """Return a date as in "2 February 2020"."""
    return f"{date.day} {date:%B %Y}"


def describe_place(longitude: float | None, latitude: float | None, decimals: int = 3) -> str:
    """Return a place as in "52.515° N 12.623° E"; empty where a coordinate is unknown."""
    if longitude is None or latitude is None:
        return ""
    return f"{_degrees(latitude, 'NS', decimals)} {_degrees(longitude, 'EW', decimals)}"


def describe_bbox(bbox: tuple[float, float, float, float]) -> str:
    """Return west, south, east, north as in "1.50° W to 16.00° E, 47.00° N to 55.00° N".

    A bounding box that crosses the date line says so.
    """
    west, south, east, north = bbox
    longitudes = f"{_degrees(west, 'EW', 2)} to {_degrees(east, 'EW', 2)}"
    if west > east:
        longitudes += " across the date line"
    return f"{longitudes}, {_degrees(south, 'NS', 2)} to {_degrees(north, 'NS', 2)}"


def _degrees(value: float, hemispheres: str, decimals: int) -> str:
    return f"{abs(value):.{decimals}f}° {hemispheres[value < 0]}"


def season(date: datetime.date, latitude: float | None) -> str | None:
    """Return the season of a date, "winter" to "autumn", by whole months.

    None where the latitude is unknown, and in the tropics, which have no such seasons.
    """
    if latitude is None or abs(latitude) < TROPIC:
        return None
    shift = 0 if latitude > 0 else 6
    return SEASONS[(date.month + shift) % 12 // 3]


def describe_climate(latitude: float) -> str:
    """Return the belt of a latitude: "tropical", "subtropical", "temperate", "boreal", "polar"."""
    return next(name for name, limit in CLIMATE_BELTS.items() if abs(latitude) < limit)


def describe_size(width: int, height: int, pixel_metres: float | None) -> str:
    """Return a scene's width and height on the ground as in "3.8 x 2.6 km".

    width, height: in pixels. Empty where the size of a pixel is unknown.
    """
    if pixel_metres is None:
        return ""
    sides = (f"{side * pixel_metres / 1000:.1f}".removesuffix(".0") for side in (width, height))
    return f"{' x '.join(sides)} km"


def describe_area(square_metres: float) -> str:
    """Return an area in two digits, as in "0.3 ha", "45 ha", "1.6 km2", "120 km2"."""
    hectares = square_metres / SQUARE_METRES_A_HECTARE
    rounded = float(f"{hectares:.2g}")
    return f"{rounded:g} ha" if rounded < 100 else f"{rounded / 100:g} km2"
