"""`earthvlm fetch`: find a scene in a STAC catalogue and save the part of it that is asked for."""

from __future__ import annotations

import argparse
import datetime
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from earthvlm.cli.options import check_output_path, whole_number
from earthvlm.cli.output import print_message, write_json
from earthvlm.scenes.places.formatting import describe_count

if TYPE_CHECKING:
    from earthvlm.scenes.products.stac_search import FoundItem

PIXEL_METRES = 10
_PLACE = re.compile(r"(-?\d+(?:\.\d+)?)[\s,]+(-?\d+(?:\.\d+)?)")


def add_fetch(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "fetch",
        help="find a Sentinel-2 scene in a STAC catalogue, and save a part of it",
        description=(
            "Find the least cloudy Sentinel-2 scene of a place and time in a STAC catalogue, and\n"
            "save the part around the place as a GeoTIFF with all its bands. Only this part is\n"
            "fetched, by HTTP range requests."
        ),
        epilog=(
            "examples:\n"
            "  earthvlm fetch --place '48.1 11.6' --date 2024-06-01/2024-06-30 --cloud 20\n"
            "  earthvlm fetch --bbox 11.4 48.0 11.5 48.1 --date 2024-06-01/2024-06-30 --list\n"
            "  earthvlm describe S2A_32UPU_20240613_0_L2A.tif"
        ),
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--place", type=_place, metavar="'LATITUDE LONGITUDE'", help="the centre, in degrees"
    )
    where.add_argument(
        "--bbox",
        nargs=4,
        type=float,
        metavar=("WEST", "SOUTH", "EAST", "NORTH"),
        help="the part, in degrees",
    )
    add = parser.add_argument
    add("--date", type=_dates, required=True, metavar="DAY[/DAY]", help="as in 2024-06-01")
    add(
        "--cloud",
        type=whole_number(0, 100),
        default=20,
        metavar="PERCENT",
        help="the largest cloud cover of the whole scene (default: %(default)s)",
    )
    add(
        "--size",
        type=whole_number(8, 2048),
        default=512,
        metavar="PIXELS",
        help="the width and height around --place, in pixels of 10 m (default: %(default)s)",
    )
    add("--output", type=Path, metavar="FILE", help="a GeoTIFF (default: NAME.tif here)")
    add("--list", action="store_true", help="list what fits, one JSON object a line, save nothing")
    add("--api", metavar="URL", help="a STAC API's address (default: Earth Search's)")
    add("--collection", metavar="NAME", help="in the catalogue (default: level 2A's)")
    parser.set_defaults(run=run_fetch)


def run_fetch(arguments: argparse.Namespace) -> int:
    """Save the least cloudy scene and print its path, or list all."""
    output: Path | None = arguments.output
    if output is not None:
        check_output_path(output, "--output")
    from earthvlm.scenes.products.stac_search import COLLECTION, EARTH_SEARCH, search_items

    bbox = arguments.bbox or surround(arguments.place, arguments.size)
    api, collection = arguments.api or EARTH_SEARCH, arguments.collection or COLLECTION
    found = search_items(api, bbox, arguments.date, arguments.cloud, collection)
    if not found:
        first, last = arguments.date
        raise ValueError(
            f"No scene of {first} to {last} with at most {arguments.cloud} % cloud covers this "
            "part; allow more cloud, more days or a smaller part."
        )
    if arguments.list:
        for item in found:
            print(write_json(_as_dict(item)))
        return 0

    from earthvlm.scenes.scene import Scene

    best = found[0]
    path = output or Path(f"{re.sub(r'[^A-Za-z0-9._-]', '_', best.item_id)}.tif")
    if output is None and path.exists():  # perhaps another part of the same scene
        raise ValueError(f"{path} exists already: name another file with --output, or remove it.")
    scene = Scene.open(best.address, bbox=bbox)
    for note in scene.notes:
        print_message(f"{best.item_id}: {note}")
    scene.save(path)
    cloud = "unknown" if best.cloud is None else f"{best.cloud:.0f} %"
    print_message(
        f"{best.item_id}, {best.time[:10]}, cloud cover {cloud}, the least of "
        f"{describe_count(len(found), 'scene')}; contains modified Copernicus Sentinel data."
    )
    print(path)
    return 0


def surround(place: tuple[float, float], pixels: int) -> tuple[float, float, float, float]:
    """Return west, south, east, north of a square of pixels of 10 m around latitude, longitude."""
    from earthvlm.scenes.grid import METRES_A_DEGREE

    latitude, longitude = place
    up = pixels * PIXEL_METRES / 2 / METRES_A_DEGREE
    across = up / max(math.cos(math.radians(latitude)), 0.01)
    west, east = ((longitude + side + 180) % 360 - 180 for side in (-across, across))
    return west, max(latitude - up, -90.0), east, min(latitude + up, 90.0)


def _place(text: str) -> tuple[float, float]:
    match = _PLACE.fullmatch(text.strip())
    latitude, longitude = (float(number) for number in match.groups()) if match else (99.0, 0.0)
    if abs(latitude) > 90 or abs(longitude) > 180:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not latitude and longitude as in '48.1 11.6'"
        )
    return latitude, longitude


def _dates(text: str) -> tuple[datetime.date, datetime.date]:
    first, _, last = text.partition("/")
    try:
        days = datetime.date.fromisoformat(first), datetime.date.fromisoformat(last or first)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a day or two as in 2024-06-01/2024-06-30"
        ) from error
    if days[0] > days[1]:
        raise argparse.ArgumentTypeError(f"{text!r} ends before it begins")
    return days


def _as_dict(item: FoundItem) -> dict[str, object]:
    return {
        "id": item.item_id,
        "time": item.time,
        "cloud": item.cloud,
        "address": item.address,
    }
