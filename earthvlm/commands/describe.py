"""`earthvlm describe`: answer a question about one or more scenes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from earthvlm.commands.arguments import (
    add_bridge_options,
    add_scene_options,
    check_model_path,
    load_bridge,
    open_scene,
    probability,
    temperature,
    whole_number,
)
from earthvlm.commands.messages import USER_ERROR, complain, join_lines, tell

if TYPE_CHECKING:
    from earthvlm.scene import Scene

MAX_ANSWER_TOKENS = 2048
# Scenes opened and answered together: enough to fill a batch, few enough to fit in memory.
SCENES_AT_ONCE = 8


def add_describe(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "describe",
        help="answer a question about one or more scenes",
        description=(
            "Answer a question about Sentinel-2 scenes: a GeoTIFF, any one PNG of a\n"
            "ChatEarthNet triplet, or an RGB picture. One scene prints the answer alone,\n"
            "several print 'path: answer'. What there is to say about a scene goes to stderr."
        ),
        epilog=(
            "examples:\n"
            "  earthvlm describe scene.tif\n"
            "  earthvlm describe *.tif --prompt 'Is there water?' --json > answers.jsonl\n"
            "  earthvlm describe --data_dir ChatEarthNet 1908_3064_patch00.png"
        ),
    )
    parser.add_argument("path", nargs="*", metavar="PATH", help="a scene's file")
    parser.add_argument(
        "--image_path",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH",
        help="the same as PATH, one or many",
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        metavar="FOLDER",
        help="a data root in ChatEarthNet's layout; each PATH is then an image's name in it",
    )
    parser.add_argument("--prompt", help="what to ask (default: to describe the scene)")
    parser.add_argument(
        "--max_length",
        type=whole_number(1, MAX_ANSWER_TOKENS),
        default=128,
        metavar="TOKENS",
        help="the longest answer, in tokens (default: %(default)s)",
    )
    parser.add_argument(
        "--temperature",
        type=temperature,
        default=0.0,
        metavar="T",
        help="0 gives the likeliest answer every time, more gives variety (default: 0)",
    )
    parser.add_argument(
        "--top_p",
        type=probability,
        default=1.0,
        metavar="P",
        help="draw from the likeliest words that together have this probability (default: 1)",
    )
    parser.add_argument(
        "--top_k",
        type=whole_number(0),
        default=0,
        metavar="K",
        help="draw from this many likeliest words; 0 draws from all (default: 0)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a scene")
    add_scene_options(parser)
    add_bridge_options(parser)
    parser.set_defaults(run=run_describe)


def run_describe(arguments: argparse.Namespace) -> int:
    """Print an answer a scene; a scene that cannot be read is named, and the rest answered."""
    paths = [*arguments.path, *arguments.image_path]
    if not paths:
        raise ValueError("No scene is named: earthvlm describe PATH; see earthvlm describe --help.")
    check_model_path(arguments.model_path)
    bridge = None
    unread = 0
    for start in range(0, len(paths), SCENES_AT_ONCE):
        scenes: dict[int, Scene] = {}
        for index, path in enumerate(paths[start : start + SCENES_AT_ONCE], start):
            try:
                scenes[index] = open_scene(path, arguments.boa_offset, arguments.data_dir)
            except (ValueError, OSError) as error:
                complain(error)
                unread += 1
        if not scenes:
            continue

        # After the scenes, so that a mistyped path is told at once.
        from earthvlm.generation import DEFAULT_PROMPT, check_prompt

        prompt = DEFAULT_PROMPT if arguments.prompt is None else arguments.prompt
        check_prompt(prompt)
        if bridge is None:
            bridge = load_bridge(arguments.model_path, arguments.device)
        answers = bridge.generate(
            list(scenes.values()),
            prompt,
            max_length=arguments.max_length,
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            top_k=arguments.top_k,
        )
        for (index, scene), answer in zip(scenes.items(), answers, strict=True):
            for note in scene.notes:
                tell(f"{paths[index]}: {note}")
            if arguments.json:
                print(json.dumps(_as_dict(paths[index], scene, answer)), flush=True)
            elif len(paths) == 1:
                print(answer, flush=True)
            else:
                print(f"{paths[index]}: {join_lines(answer)}", flush=True)
    return USER_ERROR if unread else 0


def _as_dict(path: str, scene: Scene, answer: str) -> dict[str, object]:
    return {
        "path": path,
        "answer": answer,
        "bands": list(scene.bands),
        "date": scene.date.isoformat() if scene.date else None,
        "longitude": scene.longitude,
        "latitude": scene.latitude,
        "notes": list(scene.notes),
    }
