"""`earthvlm index`: make a folder of images searchable, and keep it so."""

from __future__ import annotations

import argparse
from pathlib import Path

from earthvlm.cli.options import (
    BOA_OFFSET_CHOICES,
    add_bridge_options,
    add_scene_options,
    check_model_path,
    load_bridge,
    whole_number,
)
from earthvlm.cli.output import tell

# Pixels a side: from a few of the encoder's patches to the largest scene.
TILE_SIZES = (32, 2048)


def add_index(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "index",
        help="make your own images searchable",
        description=(
            "Embed a folder of Sentinel-2 GeoTIFFs, cut into tiles, so that earthvlm search finds\n"
            "them. Run again, it embeds only what is new or changed; broken off, it goes on.\n"
            "Cloudy tiles come into the split 'cloudy', the others into 'clear'."
        ),
        epilog=(
            "examples:\n"
            "  earthvlm index images --output images.index\n"
            "  earthvlm search 'a lake beside forest' --index images.index --split clear"
        ),
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="where the images are, in sub-folders too")
    add("--output", type=Path, required=True, help="the folder of the index, new or to be updated")
    add(
        "--tile_size",
        type=whole_number(*TILE_SIZES),
        default=256,
        help="images larger than so many pixels are cut (default: %(default)s)",
    )
    add("--source", help="whose images these are, and under which licence")
    add("--captions", action="store_true", help="have each tile described, seconds for each")
    add(
        "--no_scenes",
        action="store_true",
        help="do not copy the tiles' bands; results then have a thumbnail only",
    )
    add(
        "--batch_size",
        type=whole_number(1),
        default=16,
        help="tiles embedded at once (default: %(default)s)",
    )
    add_scene_options(parser)
    add_bridge_options(parser)
    parser.set_defaults(run=run_index)


def run_index(arguments: argparse.Namespace) -> int:
    """Index the folder, and print what was done."""
    check_model_path(arguments.model_path)
    from earthvlm.embeddings.folder_index import find_images, index_folder

    find_images(arguments.folder, arguments.output)  # before a model is loaded for nothing
    report = index_folder(
        arguments.folder,
        arguments.output,
        load_bridge(arguments.model_path, arguments.device),
        arguments.model_path,
        tile_size=arguments.tile_size,
        source=arguments.source,
        captions=arguments.captions,
        keep_scenes=not arguments.no_scenes,
        boa_offset=BOA_OFFSET_CHOICES[arguments.boa_offset],
        batch_size=arguments.batch_size,
        tell=tell,
    )
    print(
        f"{report.embedded} images embedded ({report.tiles} tiles, {report.cloudy} of them "
        f"cloudy; {report.empty} without data left out), {report.kept} kept, "
        f"{report.removed} removed, {report.refused} refused, in {arguments.output}"
    )
    return 0
