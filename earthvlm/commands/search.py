"""`earthvlm search`: find scenes by words, or by another scene."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from earthvlm.commands.arguments import (
    add_bridge_options,
    add_scene_options,
    check_model_path,
    load_bridge,
    open_scene,
    whole_number,
)
from earthvlm.commands.messages import join_lines, tell
from earthvlm.hub import BUNDLED

if TYPE_CHECKING:
    from earthvlm.retrieval import SceneResult

MAX_RESULTS = 1000


def add_search(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "search",
        help="find scenes by words, or scenes like another",
        description=(
            "Find scenes by words, or scenes like another, best first. Beside each are cosine\n"
            "similarities, from -1 to 1: of the query with the scene's caption, and with the\n"
            "scene itself."
        ),
        epilog=(
            "examples:\n"
            "  earthvlm search 'a lake beside forest' --k 3\n"
            "  earthvlm search --scene scene.tif --json"
        ),
    )
    parser.add_argument("words", nargs="?", metavar="WORDS", help="what the scenes should show")
    parser.add_argument("--scene", metavar="PATH", help="search by this scene instead of by words")
    parser.add_argument(
        "--k",
        type=whole_number(1, MAX_RESULTS),
        default=5,
        help="how many scenes to find (default: %(default)s)",
    )
    parser.add_argument("--split", help="search only scenes of this split")
    parser.add_argument(
        "--index",
        default=BUNDLED,
        metavar="DATASET",
        help="an embedding dataset's folder or Hub repository (default: the bundled one)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a scene")
    add_scene_options(parser)
    add_bridge_options(parser)
    parser.set_defaults(run=run_search)


def run_search(arguments: argparse.Namespace) -> int:
    """Print the scenes found, best first."""
    if (arguments.words is None) == (arguments.scene is None):
        raise ValueError(
            "Search by words or by --scene PATH, one of the two; see earthvlm search --help."
        )
    query = arguments.words
    if arguments.scene is not None:
        check_model_path(arguments.model_path)
        query = open_scene(arguments.scene, arguments.boa_offset)
        for note in query.notes:
            tell(f"{arguments.scene}: {note}")

    from earthvlm.retrieval import SceneIndex

    index = SceneIndex.from_pretrained(arguments.index)
    bridge = None
    if arguments.scene is not None:
        bridge = load_bridge(arguments.model_path, arguments.device)
    results = index.search(query, k=arguments.k, split=arguments.split, bridge=bridge)
    if not results:
        tell("No scene was found.")
    for rank, result in enumerate(results, start=1):
        print(json.dumps(_as_dict(rank, result)) if arguments.json else _as_text(rank, result))
    return 0


def _as_dict(rank: int, result: SceneResult) -> dict[str, object]:
    return {
        "rank": rank,
        "image_id": result.image_id,
        "caption_similarity": result.caption_similarity,
        "scene_similarity": result.scene_similarity,
        "longitude": result.longitude,
        "latitude": result.latitude,
        "split": result.split,
        "caption": result.caption,
        "scene_file": str(result.scene_file) if result.scene_file else None,
    }


def _as_text(rank: int, result: SceneResult) -> str:
    parts = [result.image_id]
    similarities = {"caption": result.caption_similarity, "scene": result.scene_similarity}
    parts += [f"{name} {value:.3f}" for name, value in similarities.items() if value is not None]
    if result.longitude is not None and result.latitude is not None:
        north = "N" if result.latitude >= 0 else "S"
        east = "E" if result.longitude >= 0 else "W"
        parts.append(f"{abs(result.latitude):.4f} {north}, {abs(result.longitude):.4f} {east}")
    return f"{rank:>3}  {'  '.join(parts)}\n     {join_lines(result.caption or '(no caption)')}"
