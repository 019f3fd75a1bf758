"""`earthvlm segment`: map the land cover of a scene."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from earthvlm.cli.options import (
    add_bridge_options,
    add_part_options,
    add_scene_options,
    check_model_path,
    check_output_path,
    load_bridge,
    open_scene,
)
from earthvlm.cli.output import print_message, write_json

if TYPE_CHECKING:
    from earthvlm.scenes.land_cover import CoverMap


def add_segment(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "segment",
        help="map the land cover of a scene",
        description=(
            "Map the land cover of a Sentinel-2 scene pixel by pixel. Prints the share of each\n"
            "cover; --output also writes the map as a cloud-optimized GeoTIFF with a colour table\n"
            "and the covers' names, on the grid of the scene's file."
        ),
        epilog=(
            "examples:\n"
            "  earthvlm segment scene.tif --output map.tif\n"
            "  earthvlm segment S2B_MSIL2A_....SAFE.zip --window 4096 2048 512 512 -o map.tif\n"
            "  earthvlm segment scene.tif --json"
        ),
    )
    parser.add_argument("path", metavar="PATH", help="a scene's file, product or address")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write the map to this GeoTIFF"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_scene_options(parser)
    add_part_options(parser)
    add_bridge_options(parser)
    parser.set_defaults(run=run_segment)


def run_segment(arguments: argparse.Namespace) -> int:
    """Print the shares of the covers, and write the map."""
    check_model_path(arguments.model_path)
    output: Path | None = arguments.output
    if output is not None:
        check_output_path(output, "--output", inputs=[arguments.path])
    scene = open_scene(arguments.path, arguments)
    bridge = load_bridge(arguments.model_path, arguments.device)
    found = bridge.segment(scene).cover_map
    for note in scene.notes:
        print_message(f"{arguments.path}: {note}")
    if output is not None:
        from earthvlm.scenes.analysis.map_geotiff import write_cover_map

        write_cover_map(output, found, scene)
        if scene.grid is None:
            print_message(f"{arguments.path}: it has no grid on Earth, so the map has none either.")
    print(write_json(_as_dict(arguments.path, found)) if arguments.json else _as_table(found))
    return 0


def _as_table(found: CoverMap) -> str:
    """A line a cover that occurs, the largest first: " 24.3 % water"."""
    return "\n".join(f"{100 * s:5.1f} % {cover}" for cover, s in found.shares.items() if s)


def _as_dict(path: str, found: CoverMap) -> dict[str, object]:
    fields = {name: next(iter(field.shares)) for name, field in found.fields.items()}
    return {
        "path": path,
        "shares": {cover: round(share, 4) for cover, share in found.shares.items()},
        "fields": fields,
    }
