"""`earthvlm index`: make a folder of images searchable, and update its index."""

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
from earthvlm.cli.output import print_message
from earthvlm.scenes.memory import limit_heaps
from earthvlm.scenes.places.formatting import describe_count

# The least and the largest tile in pixels: a few of the encoder's patches, the largest scene.
TILE_SIZES = (32, 2048)


def add_index(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "index",
        help="make a folder of images searchable",
        description=(
            "Cut a folder of Sentinel-2 scenes (all that earthvlm describe takes) into tiles and\n"
            "embed these, so that earthvlm search finds them. The next run embeds only new and\n"
            "changed images; an interrupted run resumes. Cloudy tiles go into\n"
            "the split 'cloudy', others into 'clear'."
        ),
        epilog=(
            "examples:\n"
            "  earthvlm index images --output images.index\n"
            "  earthvlm search 'a lake beside forest' --index images.index --split clear"
        ),
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="holds the images, also in sub-folders")
    add("--output", type=Path, required=True, help="the index, a new folder or one to be updated")
    add(
        "--tile_size",
        type=whole_number(*TILE_SIZES),
        default=256,
        help="cut images into tiles of this many pixels a side (default: %(default)s)",
    )
    add("--source", help="the owner and licence of the images")
    add(
        "--captions",
        action="store_true",
        help="let the bridge describe each tile, which takes seconds",
    )
    add(
        "--no_scenes",
        action="store_true",
        help="do not copy the tiles' bands; search results then have a thumbnail only",
    )
    add(
        "--batch_size",
        type=whole_number(1),
        default=8,
        help="tiles embedded at once (default: %(default)s)",
    )
    add_scene_options(parser)
    add_bridge_options(parser)
    parser.set_defaults(run=run_index)


def run_index(arguments: argparse.Namespace) -> int:
    """Index the folder, and print the counts."""
    check_model_path(arguments.model_path)
    limit_heaps()  # a tenth less memory with whole products
    from earthvlm.embeddings.folder_index import find_images, index_folder
    from earthvlm.embeddings.indexed_images import IndexSettings, check_settings

    settings = IndexSettings(
        tile_size=arguments.tile_size,
        source=arguments.source,
        captions=arguments.captions,
        keep_scenes=not arguments.no_scenes,
        boa_offset=BOA_OFFSET_CHOICES[arguments.boa_offset],
        bands=arguments.bands,
    )
    # These raise errors before a model is loaded.
    find_images(arguments.folder, arguments.output)
    check_settings(arguments.output, settings)
    report = index_folder(
        arguments.folder,
        arguments.output,
        load_bridge(arguments.model_path, arguments.device),
        arguments.model_path,
        settings,
        batch_size=arguments.batch_size,
        report=print_message,
    )
    print(
        f"{describe_count(report.embedded, 'image')} embedded "
        f"({describe_count(report.tiles, 'tile')}, {report.cloudy} of them "
        f"cloudy; {report.empty} without data left out), {report.kept} kept, "
        f"{report.removed} removed, {report.refused} refused, in {arguments.output}"
    )
    tiles = describe_count(report.total, "tile")
    for count, what, filters in (
        (report.undated, "date", "--from_date and --to_date"),
        (report.unplaced, "place", "--bbox"),
    ):
        if count:
            print_message(
                f"{count:,} of {tiles} in the index without a {what}: searches with {filters} "
                "leave them out."
            )
    return 0
