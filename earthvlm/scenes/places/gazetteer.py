"""Names of places without a network: the town nearest to a position, and a town's position.

`gazetteer.tsv.gz` holds the towns of GeoNames (CC BY 4.0) with more than 15,000 inhabitants, the
largest first; `hub/make_map_data.py` writes it.
"""

from __future__ import annotations

import gzip
import math
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import numpy as np
from scipy.spatial import KDTree

EARTH_KM = 6371.0  # the mean radius
# Up to here a scene is "near" a town; beyond, the distance and the direction are named.
NEAR_KM = 40.0
MAX_NAME_CHARACTERS = 100
DIRECTIONS = (
    *("north", "north-east", "east", "south-east"),
    *("south", "south-west", "west", "north-west"),
)


@dataclass(frozen=True)
class Place:
    """A town: its name, the country it lies in, its position in degrees, its inhabitants."""

    name: str
    country: str
    longitude: float
    latitude: float
    population: int

    @property
    def title(self) -> str:
        """The name with the country, as in "Malmö, Sweden"."""
        return f"{self.name}, {self.country}" if self.country != self.name else self.name

    def distance_km(self, longitude: float, latitude: float) -> float:
        """Return the distance to a position in degrees."""
        return distance_km(self.longitude, self.latitude, longitude, latitude)

    def distances_km(self, longitudes: np.ndarray, latitudes: np.ndarray) -> np.ndarray:
        """Return the distances to positions in degrees, `[N]`."""
        here = _unit_vectors(np.array([self.longitude]), np.array([self.latitude]))
        return _arcs_km(here, _unit_vectors(longitudes, latitudes))

    def bbox(self, radius_km: float) -> tuple[float, float, float, float]:
        """Return west, south, east, north of the box around a circle; west may exceed east."""
        degrees = math.degrees(radius_km / EARTH_KM)
        south, north = self.latitude - degrees, self.latitude + degrees
        if south <= -90 or north >= 90:
            return -180.0, max(south, -90.0), 180.0, min(north, 90.0)
        width = math.degrees(
            math.asin(math.sin(radius_km / EARTH_KM) / math.cos(math.radians(self.latitude)))
        )
        west, east = ((self.longitude + x + 180) % 360 - 180 for x in (-width, width))
        return west, south, east, north


@dataclass(frozen=True)
class _Gazetteer:
    """The towns in their order: texts, positions in degrees `[N]`, and a tree of unit vectors."""

    names: list[str]
    countries: list[str]
    longitudes: np.ndarray
    latitudes: np.ndarray
    populations: np.ndarray
    rows_by_name: dict[str, list[int]]
    rows_by_other_name: dict[str, list[int]]

    def find(self, name: str) -> list[int]:
        """Return the rows of a name: its own, else another name, else the start of one."""
        plain = normalise_name(name)
        found = self.rows_by_name.get(plain) or self.rows_by_other_name.get(plain)
        if found or not plain:
            return found or []
        starting = [rows for key, rows in self.rows_by_name.items() if key.startswith(f"{plain} ")]
        return sorted(row for rows in starting for row in rows)

    def place(self, row: int) -> Place:
        return Place(
            self.names[row],
            self.countries[row],
            float(self.longitudes[row]),
            float(self.latitudes[row]),
            int(self.populations[row]),
        )


def distance_km(
    longitude: float, latitude: float, other_longitude: float, other_latitude: float
) -> float:
    """Return the great-circle distance between two positions in degrees."""
    ends = _unit_vectors(
        np.array([longitude, other_longitude]), np.array([latitude, other_latitude])
    )
    return float(_arcs_km(ends[:1], ends[1:])[0])


def nearest_place(longitude: float, latitude: float) -> Place:
    """Return the town nearest to a position in degrees."""
    position = _unit_vectors(np.array([longitude]), np.array([latitude]))
    return _read().place(int(_make_tree().query(position)[1][0]))


@lru_cache(maxsize=20_000)  # a map names the same scenes again and again
def describe_nearest(longitude: float | None, latitude: float | None) -> str:
    """Return where a position is: "near Malmö, Sweden", "180 km north of Agadez, Niger".

    Empty where a coordinate is unknown.
    """
    if longitude is None or latitude is None:
        return ""
    place = nearest_place(longitude, latitude)
    distance = place.distance_km(longitude, latitude)
    if distance <= NEAR_KM:
        return f"near {place.title}"
    rounded = round(distance, -1) if distance >= 100 else round(distance)
    return f"{rounded:,.0f} km {_direction(place, longitude, latitude)} of {place.title}"


def find_place(name: str) -> Place:
    """Return the largest town of a name, in any case and without accents if need be.

    name: as in "Porto", "sao paulo", or with its country, "Santiago, Chile". Raises ValueError
    where there is none.
    """
    if len(name) > MAX_NAME_CHARACTERS:
        raise ValueError(
            f"the name of a place has {len(name)} characters; at most {MAX_NAME_CHARACTERS} are "
            "accepted"
        )
    gazetteer = _read()
    rows = gazetteer.find(name)
    town, comma, country = name.rpartition(",")
    if not rows and comma:
        wanted = normalise_name(country)
        found = gazetteer.find(town)
        rows = [row for row in found if normalise_name(gazetteer.countries[row]) == wanted]
    if not rows:
        raise ValueError(
            f"no town of more than 15,000 inhabitants is called {name.strip()!r}; try a larger "
            "town nearby, or add the country, as in 'Santiago, Chile'"
        )
    return gazetteer.place(rows[0])


def largest_places(count: int | None = None) -> list[Place]:
    """Return the towns with the most inhabitants, the largest first; all without a count."""
    gazetteer = _read()
    return [gazetteer.place(row) for row in range(len(gazetteer.names))[:count]]


def normalise_name(name: str) -> str:
    """Return a name in lower case, without accents and double spaces."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    plain = "".join(each for each in letters if not unicodedata.combining(each))
    return " ".join(plain.replace("-", " ").replace("ø", "o").replace("ł", "l").split())


@cache
def _read() -> _Gazetteer:
    """Read the towns: lines of name, country, longitude, latitude, inhabitants, other names.

    Other names are as `normalise_name` writes them.
    """
    content = (files("earthvlm.scenes.places") / "gazetteer.tsv.gz").read_bytes()
    rows = [line.split("\t") for line in gzip.decompress(content).decode("utf-8").splitlines()]
    rows_by_name: dict[str, list[int]] = {}
    rows_by_other_name: dict[str, list[int]] = {}
    for number, (name, *_, others) in enumerate(rows):
        rows_by_name.setdefault(normalise_name(name), []).append(number)
        for each in others.split("|") if others else ():
            rows_by_other_name.setdefault(each, []).append(number)
    _, countries, *numbers, _ = zip(*rows, strict=True)
    longitudes, latitudes, populations = (np.array(each, float) for each in numbers)
    return _Gazetteer(
        [row[0] for row in rows],
        list(countries),
        longitudes,
        latitudes,
        populations.astype(np.int64),
        rows_by_name,
        rows_by_other_name,
    )


@cache
def _make_tree() -> KDTree:
    gazetteer = _read()
    return KDTree(_unit_vectors(gazetteer.longitudes, gazetteer.latitudes))


def _unit_vectors(longitudes: np.ndarray, latitudes: np.ndarray) -> np.ndarray:
    """Return positions in degrees `[N]` on the unit sphere, `[N, 3]`."""
    x, y = np.radians(longitudes), np.radians(latitudes)
    return np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=1)


def _arcs_km(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the great-circle distances between unit vectors `[N, 3]`, `[N]`."""
    chords = np.linalg.norm(one - other, axis=1)
    return EARTH_KM * 2 * np.arcsin(np.minimum(chords / 2, 1.0))


def _direction(place: Place, longitude: float, latitude: float) -> str:
    """Return where a position lies as seen from a town, by the initial bearing."""
    x1, y1, x2, y2 = map(math.radians, (place.longitude, place.latitude, longitude, latitude))
    east = math.sin(x2 - x1) * math.cos(y2)
    north = math.cos(y1) * math.sin(y2) - math.sin(y1) * math.cos(y2) * math.cos(x2 - x1)
    return DIRECTIONS[round(math.degrees(math.atan2(east, north)) / 45) % 8]
