"""`earthvlm describe`: answer a question about one or more scenes."""

from __future__ import annotations

import argparse
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthvlm.cli.options import (
    add_bridge_options,
    add_part_options,
    add_scene_options,
    check_model_path,
    check_output_path,
    load_bridge,
    open_scene,
    probability,
    temperature,
    whole_number,
)
from earthvlm.cli.output import USER_ERROR, join_lines, print_error, print_message, write_json

if TYPE_CHECKING:
    from earthvlm.bridge.model import OlmoEarthVLMBridge
    from earthvlm.scenes.land_cover import CoverMap
    from earthvlm.scenes.scene import Scene

MAX_ANSWER_TOKENS = 2048
# The scenes of a batch and their pixels, 48 bytes each: enough to use the processor well, and few
# enough for its memory. As many are opened in advance while a batch is answered.
SCENES_AT_ONCE = 32
PIXELS_AT_ONCE = SCENES_AT_ONCE * 256 * 256
READERS = min(8, os.cpu_count() or 1)  # files decoded at a time


def add_describe(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "describe",
        help="answer a question about one or more scenes",
        description=(
            "Answer a question about Sentinel-2 scenes: a GeoTIFF, a .SAFE product or its zip\n"
            "archive, a folder with a file for each band, a STAC item or its address, netCDF or\n"
            "Zarr, any one PNG of a ChatEarthNet triplet, an RGB image, or a folder of these. Of\n"
            "a large one an overview is read, or a part. One scene prints the answer alone,\n"
            "several print 'path: answer'. Notes about a scene go to stderr."
        ),
        epilog=(
            "examples:\n"
            "  earthvlm describe scene.tif\n"
            "  earthvlm describe scenes/ --json > answers.jsonl\n"
            "  earthvlm describe *.tif --prompt 'Is there water?' --json > answers.jsonl\n"
            "  earthvlm describe S2B_MSIL2A_....SAFE.zip --bbox 11.4 48.0 11.5 48.1\n"
            "  earthvlm describe https://example.org/items/a.json --window 4096 2048 512 512\n"
            "  earthvlm describe scene.tif --prompt 'What dominates?' --candidates Water. Fields.\n"
            "  earthvlm describe --data_dir ChatEarthNet 1908_3064_patch00.png"
        ),
    )
    parser.add_argument(
        "path", nargs="*", metavar="PATH", help="a scene's file, product or address, or a folder"
    )
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
    parser.add_argument("--prompt", help="the question (default: asks for a description)")
    parser.add_argument(
        "--candidates",
        nargs="+",
        metavar="ANSWER",
        help="do not write an answer, but choose the likeliest of these, and print its probability",
    )
    _add_generation_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object for each scene")
    parser.add_argument(
        "--attention",
        type=Path,
        metavar="FILE",
        help="write where the answer about one scene attended to this GeoTIFF",
    )
    add_scene_options(parser)
    add_part_options(parser)
    add_bridge_options(parser)
    parser.set_defaults(run=run_describe)


def _add_generation_options(parser: argparse.ArgumentParser) -> None:
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
        help="0 always gives the likeliest answer, higher values vary it (default: 0)",
    )
    parser.add_argument(
        "--top_p",
        type=probability,
        default=1.0,
        metavar="P",
        help="sample from the likeliest tokens with this total probability (default: 1)",
    )
    parser.add_argument(
        "--top_k",
        type=whole_number(0),
        default=0,
        metavar="K",
        help="sample from this number of likeliest tokens; 0 samples from all (default: 0)",
    )


def run_describe(arguments: argparse.Namespace) -> int:
    """Print an answer for each scene; report those that cannot be read and answer the others."""
    paths = [*arguments.path, *arguments.image_path]
    if not paths:
        raise ValueError("No scene is named: earthvlm describe PATH; see earthvlm describe --help.")
    _refuse_questions(paths)
    check_model_path(arguments.model_path, True)
    paths = [path for named in paths for path in _expand(named, arguments.data_dir)]
    _check_attention(arguments.attention, paths)
    bridge = None
    unread = 0
    for scenes, errors in _open_in_batches(paths, arguments):
        for error in errors:
            print_error(error)
        unread += len(errors)
        if not scenes:
            continue

        # After the scenes, so that a mistyped path is reported at once.
        from earthvlm.generation.sampling import DEFAULT_PROMPT, check_prompt

        prompt = DEFAULT_PROMPT if arguments.prompt is None else arguments.prompt
        check_prompt(prompt)
        if bridge is None:
            bridge = load_bridge(arguments.model_path, arguments.device, True)
        answers, chosen = _answer(bridge, [scene for _, scene in scenes], prompt, arguments)
        for (path, scene), answer, shown in zip(scenes, answers, chosen, strict=True):
            for note in scene.notes:
                print_message(f"{path}: {note}")
            cover_map = bridge.memory.cover_maps.get(scene)
            measured = _check_answer(scene, prompt, answer, cover_map)
            if arguments.attention is not None:
                _write_attention(arguments.attention, bridge, scene, prompt, answer)
            if arguments.json:
                print(write_json(_as_dict(path, scene, answer) | measured | shown), flush=True)
                continue
            for sentence in (*measured["warnings"], *measured["disagreements"]):
                print_message(f"{path}: {sentence}")
            if shown:
                answer = f"{answer} ({shown['probabilities'][answer]:.2f})"
            text = answer if len(paths) == 1 else f"{path}: {join_lines(answer)}"
            print(text, flush=True)
    return USER_ERROR if unread else 0


def _refuse_questions(paths: list[str]) -> None:
    """Raise ValueError for a question in the place of a path, or whose quotes were forgotten."""
    for path in paths:
        if path.endswith(("?", "\uff1f")) and not Path(path).exists():
            raise ValueError(
                f"{path!r} is no file: a question follows --prompt, in quotes, as in "
                "earthvlm describe scene.tif --prompt 'Is there water?'"
            )


def _check_attention(output: Path | None, paths: list[str]) -> None:
    """Raise ValueError or FileNotFoundError, before a model is loaded, for a wrong --attention."""
    if output is None:
        return
    check_output_path(output, "--attention", inputs=paths)
    if len(paths) > 1:
        raise ValueError(f"--attention takes one scene, and {len(paths)} are given.")


def _write_attention(
    output: Path, bridge: OlmoEarthVLMBridge, scene: Scene, prompt: str, answer: str
) -> None:
    from earthvlm.bridge.attention_maps import attend, write_attention_map
    from earthvlm.models.language.chat_templates import Message

    messages = [Message(role="user", content=prompt), Message(role="assistant", content=answer)]
    write_attention_map(output, attend(bridge, scene, messages), scene)
    if scene.grid is None:
        print_message(f"{scene.name} has no grid on Earth, so {output} has none either.")


def _answer(
    bridge: OlmoEarthVLMBridge, scenes: list[Scene], prompt: str, arguments: argparse.Namespace
) -> tuple[list[str], list[dict[str, dict[str, float]]]]:
    """Return an answer for each scene, and the candidates' probabilities where there are any."""
    if arguments.candidates is None:
        answers = bridge.generate(
            scenes,
            prompt,
            max_length=arguments.max_length,
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            top_k=arguments.top_k,
        )
        return answers, [{} for _ in scenes]
    from scipy.special import softmax

    candidates = list(dict.fromkeys(arguments.candidates))
    shares = softmax(bridge.score(scenes, prompt, candidates), axis=1)
    tables = [dict(zip(candidates, map(float, row.round(4)), strict=True)) for row in shares]
    answers = [candidates[place] for place in shares.argmax(axis=1)]
    return answers, [{"probabilities": table} for table in tables]


def _expand(path: str, data_dir: Path | None) -> list[str]:
    """List the scenes in a folder; any other path, a product's folder too, is returned as it is.

    Raises ValueError for a folder without scenes.
    """
    from earthvlm.scenes.products.listing import KINDS, is_scene_folder, list_scenes

    folder = Path(path)
    if data_dir is not None or not folder.is_dir() or is_scene_folder(folder):
        return [path]
    found = list_scenes(folder)
    if not found:
        raise ValueError(f"The folder '{path}' holds no scenes: give a folder with {KINDS}.")
    return [str(file) for file in found]


def _open_in_batches(
    paths: list[str], arguments: argparse.Namespace
) -> Iterator[tuple[list[tuple[str, Scene]], list[Exception]]]:
    """Yield batches of scenes, and the errors of those that could not be opened.

    Opens the next batch while the caller answers this one.
    """
    scenes: list[tuple[str, Scene]] = []
    errors: list[Exception] = []
    pixels, latest = 0, PIXELS_AT_ONCE  # until one was opened
    coming: deque[tuple[str, Future[Scene]]] = deque()
    left = iter(paths)
    readers = ThreadPoolExecutor(READERS)
    try:
        while True:
            ahead = max(2, min(SCENES_AT_ONCE, PIXELS_AT_ONCE // latest))
            for path in islice(left, max(0, ahead - len(coming))):
                opened = readers.submit(open_scene, path, arguments, data_dir=arguments.data_dir)
                coming.append((path, opened))
            if not coming:
                break
            path, opened = coming.popleft()
            try:
                scene = opened.result()
            except (ValueError, OSError) as error:
                errors.append(error)
                continue
            scenes.append((path, scene))
            latest = scene.height * scene.width
            pixels += latest
            if len(scenes) == SCENES_AT_ONCE or pixels >= PIXELS_AT_ONCE:
                yield scenes, errors
                scenes, errors, pixels = [], [], 0
    finally:
        readers.shutdown(cancel_futures=True)
    if scenes or errors:
        yield scenes, errors


def _check_answer(
    scene: Scene, prompt: str, answer: str, cover_map: CoverMap | None
) -> dict[str, Any]:
    """Return what is measured of a scene, and how an answer departs from that and the map."""
    from earthvlm.metrics.agreement import find_disagreements
    from earthvlm.scenes.analysis.distribution_shift import warn_out_of_distribution
    from earthvlm.scenes.analysis.spectral_indices import measure

    measured = measure(scene)
    covers = measured.shares if measured else {}
    errors = {cover: measured.error(cover) for cover in covers} if measured else {}
    return {
        "measured_shares": {cover: round(share, 4) for cover, share in covers.items()},
        "measured_errors": {cover: round(error, 4) for cover, error in errors.items()},
        "warnings": warn_out_of_distribution(scene, measured),
        "disagreements": find_disagreements(prompt, answer, measured, cover_map),
    }


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
