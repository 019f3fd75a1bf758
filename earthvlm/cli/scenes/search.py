"""`earthvlm search`: find scenes by words, by other scenes, or by both."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from earthvlm.cli.options import (
    add_bridge_options,
    add_scene_options,
    announce_replacement,
    check_model_path,
    load_bridge,
    open_scene,
    quiet_transformers,
    whole_number,
)
from earthvlm.cli.output import join_lines, print_message, write_json
from earthvlm.scenes.places.formatting import describe_count, describe_place
from earthvlm.storage.hub import BUNDLED

if TYPE_CHECKING:
    from earthvlm.search.index import SceneIndex, SceneResult, SearchResults

MAX_RESULTS = 1000


def add_search(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "search",
        help="find scenes by words, or scenes like another",
        description=(
            "Find scenes by words, scenes like another, or both at once, best first. Beside each\n"
            "are cosine similarities, from -1 to 1, with the rank in each comparison:\n"
            "  caption  of the words with the scene's caption\n"
            "  scene    of the words, or else of the example, with the scene itself\n"
            "  example  of an example that was given beside words, with the scene itself"
        ),
        epilog=(
            "examples:\n"
            "  earthvlm search 'a lake beside forest' --top_k 3\n"
            "  earthvlm search 'a river -city' --bbox 4 47 16 55 --from_date 2017-01-01\n"
            "  earthvlm search --scene scene.tif --json\n"
            "  earthvlm search 'more water' --like tile_17\n"
            "  earthvlm search --like tile_17 --like tile_4 --unlike tile_9\n"
            "  earthvlm search 'a lake' --top_k 100 --output lakes.gpkg"
        ),
    )
    add = parser.add_argument
    add("words", nargs="?", metavar="WORDS", help="what scenes should show; -WORD: should not")
    add("--scene", metavar="PATH", help="scenes like this file's, with words or without")
    _add_examples(parser)
    add(
        "--top_k",
        type=whole_number(1, MAX_RESULTS),
        default=5,
        help="how many scenes to find (default: %(default)s)",
    )
    _add_filters(parser)
    add(
        "--index",
        default=BUNDLED,
        metavar="DATASET",
        help="an embedding dataset's folder or Hub repository (default: the bundled one)",
    )
    add(
        "--engine",
        default="auto",
        help=(
            "exact, faiss-sq8, faiss-ivf, faiss-hnsw or milvus:URI, a local file's or a server's "
            "(default: auto, exact up to a million scenes)"
        ),
    )
    add("--json", action="store_true", help="print one JSON object a scene")
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the scenes, with footprints, captions and scores, to a .geojson, .gpkg, "
        ".parquet or .csv file too",
    )
    add_scene_options(parser)
    add_bridge_options(parser)
    parser.set_defaults(run=run_search)


def _add_examples(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--like",
        action="append",
        default=[],
        metavar="SCENE",
        help="scenes like this one, a file or an image_id of the dataset; may be repeated",
    )
    add(
        "--unlike",
        action="append",
        default=[],
        metavar="SCENE",
        help="scenes unlike this one; may be repeated",
    )


def _add_filters(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--split", help="search only scenes of this split")
    add(
        "--bbox",
        nargs=4,
        type=float,
        metavar=("WEST", "SOUTH", "EAST", "NORTH"),
        help="search only in this bbox, in degrees; WEST above EAST crosses the date line",
    )
    add("--from_date", type=day, metavar="YYYY-MM-DD", help="search only from this day on")
    add("--to_date", type=day, metavar="YYYY-MM-DD", help="search only until this day")
    add("--source", help="search only scenes whose source contains these words")


def day(text: str) -> datetime.date:
    """Parse a date as in 2020-06-30."""
    from earthvlm.embeddings.filters import parse_date

    try:
        return parse_date(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run_search(arguments: argparse.Namespace) -> int:
    """Print the scenes found, best first."""
    likes = [*arguments.like, *([arguments.scene] if arguments.scene is not None else [])]
    if arguments.words is None and not likes:
        raise ValueError(
            "Search by words or by --like FILE_OR_IMAGE_ID; see earthvlm search --help."
        )
    if arguments.output is not None:
        from earthvlm.search.result_files import check_result_path

        check_result_path(arguments.output)
        announce_replacement(arguments.output)
    files = {name for name in (*likes, *arguments.unlike) if Path(name).is_file()}
    if arguments.scene is not None:
        files.add(arguments.scene)  # which says so where it is missing
    if files:
        check_model_path(arguments.model_path)
    opened = {name: open_scene(name, arguments, whole=True) for name in sorted(files)}
    for name, scene in opened.items():
        for note in scene.notes:
            print_message(f"{name}: {note}")

    from earthvlm.embeddings.filters import SceneFilter
    from earthvlm.search.index import SceneIndex

    where = SceneFilter(
        split=arguments.split,
        bbox=arguments.bbox,
        first_date=arguments.from_date,
        last_date=arguments.to_date,
        source=arguments.source,
    )
    index = SceneIndex.from_pretrained(arguments.index, engine=arguments.engine)
    like, unlike = (
        [opened[name] if name in opened else index.get(name) for name in names]
        for names in (likes, arguments.unlike)
    )
    bridge = load_bridge(arguments.model_path, arguments.device) if opened else None
    if arguments.words is not None:
        quiet_transformers()
    query = [*([] if arguments.words is None else [arguments.words]), *like]
    results = index.search(
        query,
        k=arguments.top_k,
        where=where,
        bridge=bridge,
        unlike=unlike,
        left_out=_find_copies(index, opened),
    )
    _print_results(results, arguments)
    return 0


def _print_results(results: SearchResults, arguments: argparse.Namespace) -> None:
    """Print the results, and write them to --output."""
    if results.warning:
        print_message(results.warning)
    if not results:
        unwritten = f", so {arguments.output} was not written" if arguments.output else ""
        print_message(f"No scene was found{unwritten}.")
        if arguments.bbox is not None:
            from earthvlm.scenes.places.formatting import describe_bbox

            print_message(
                f"--bbox was {describe_bbox(arguments.bbox)}; its order is west south east north."
            )
    elif arguments.output is not None:
        from earthvlm.search.result_files import write_results

        write_results(results, arguments.output)
        verb = "was" if len(results) == 1 else "were"
        print_message(
            f"{describe_count(len(results), 'scene')} {verb} written to {arguments.output}."
        )
    for rank, result in enumerate(results, start=1):
        print(write_json(_as_dict(rank, result)) if arguments.json else _as_text(rank, result))


def _find_copies(index: SceneIndex, files: Iterable[str]) -> list[str]:
    """Return the scenes of an index that example files hold, which would be found first."""
    copies = []
    for name in files:
        if found := index.find_copies(name):
            tiles = "it is" if len(found) == 1 else f"its {describe_count(len(found), 'tile')} are"
            print_message(f"{name} is in this index, so {tiles} left out of the results.")
            copies += found
    return copies


def _as_dict(rank: int, result: SceneResult) -> dict[str, object]:
    return {
        "rank": rank,
        "image_id": result.image_id,
        "caption_similarity": result.caption_similarity,
        "scene_similarity": result.scene_similarity,
        "example_similarity": result.example_similarity,
        "caption_rank": result.caption_rank,
        "scene_rank": result.scene_rank,
        "example_rank": result.example_rank,
        "longitude": result.longitude,
        "latitude": result.latitude,
        "date": result.date.isoformat() if result.date else None,
        "split": result.split,
        "source": result.source,
        "caption": result.caption,
        "scene_file": str(result.scene_file) if result.scene_file else None,
    }


def _as_text(rank: int, result: SceneResult) -> str:
    parts = [result.image_id]
    for name in ("caption", "scene", "example"):
        similarity, place = getattr(result, f"{name}_similarity"), getattr(result, f"{name}_rank")
        if similarity is not None:
            parts.append(f"{name} {similarity:.3f}" + (f" (#{place})" if place else ""))
    if where := describe_place(result.longitude, result.latitude, decimals=4):
        parts.append(where)
    if result.date is not None:
        parts.append(result.date.isoformat())
    caption = f"\n     {join_lines(result.caption)}" if result.caption else ""
    return f"{rank:>3}  {'  '.join(parts)}{caption}"
