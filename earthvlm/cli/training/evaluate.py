"""`earthvlm evaluate`: evaluate a bridge on a dataset, with two baselines."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from earthvlm.cli.options import (
    add_bridge_options,
    announce_replacement,
    check_model_path,
    load_bridge,
    whole_number,
)
from earthvlm.cli.output import print_message
from earthvlm.storage.files import write_atomically

if TYPE_CHECKING:
    from earthvlm.bridge.model import OlmoEarthVLMBridge
    from earthvlm.data.tile_dataset import TileDataset
    from earthvlm.metrics.results import MetricResult


# Of `earthvlm.data.public_sets`, which is not imported for a parser.
PUBLIC_SET_NAMES = ("rsvqa-lr", "eurosat", "bigearthnet.txt")


def add_evaluate(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "evaluate",
        help="evaluate a bridge on captioned scenes",
        description=(
            "Describe every tile of a split and search among them; where a labels.json beside the\n"
            "captions gives each tile's land cover, ask about that too. Each metric comes with\n"
            "two baselines: the same bridge given another tile's image, and given no image. With\n"
            "--output, an interrupted evaluation continues where it stopped. Questions with fixed\n"
            "answers, those of public sets too, are answered by the likeliest candidate."
        ),
        epilog=(
            "examples:\n"
            "  earthvlm evaluate --data_dir DATA --split val --output results.json\n"
            "  earthvlm evaluate --dataset eurosat --data_dir EuroSAT_MS --output eurosat.json\n"
            "  accelerate launch -m earthvlm evaluate --data_dir DATA --output results.json"
        ),
    )
    parser.add_argument(
        "--data_dir",
        required=True,
        metavar="DATA",
        help="a folder, file or Hub dataset of captions",
    )
    parser.add_argument(
        "--dataset",
        choices=("chatearthnet", *PUBLIC_SET_NAMES),
        help="a public test set, which --data_dir holds (default: --data_dir's own captions)",
    )
    parser.add_argument(
        "--split", help="which tiles (default: val; of a public set its test split)"
    )
    parser.add_argument(
        "--captions", default="35", choices=("35", "4v"), help="ChatGPT-3.5's or GPT-4V's captions"
    )
    parser.add_argument("--batch_size", type=whole_number(1), default=24, help="tiles at once")
    parser.add_argument(
        "--limit", type=whole_number(1), help="the largest number of tiles, spread over the split"
    )
    parser.add_argument("--output", type=Path, help="write metrics and answers to this JSON file")
    add_bridge_options(parser)
    parser.set_defaults(run=run_evaluate)


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Print the metrics as a Markdown table."""
    check_model_path(arguments.model_path)
    from accelerate import PartialState

    from earthvlm.data.public_sets import PUBLIC_SETS, collect_questions
    from earthvlm.data.sources.opening import open_scenes
    from earthvlm.evaluation.public_sets import evaluate_public_set
    from earthvlm.metrics.results import as_markdown

    output: Path | None = arguments.output
    if output is not None and not output.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(output.parent)!r} for --output.")
    state = PartialState(cpu=arguments.device == "cpu")
    if output is not None and state.is_main_process:
        announce_replacement(output)
    if importlib.util.find_spec("pycocoevalcap") is None and state.is_main_process:
        print_message(
            "BLEU, METEOR, ROUGE-L and CIDEr are left out: pip install 'earthvlm[evaluation]'."
        )
    results: list[MetricResult] = []
    rows: list[dict] = []
    split = arguments.split or ("val" if arguments.dataset is None else "test")
    bridge_options = arguments.model_path, arguments.device or str(state.device)
    if arguments.dataset in PUBLIC_SETS:
        read, default = PUBLIC_SETS[arguments.dataset]
        split = arguments.split or default
        questions, dataset = read(Path(arguments.data_dir), split), arguments.dataset
        bridge = load_bridge(*bridge_options)
    else:
        tiles = open_scenes(arguments.data_dir, split, arguments.captions)
        questions, dataset = collect_questions(tiles), tiles.hub_id
        bridge = load_bridge(*bridge_options)
        results, rows = _evaluate_captions(bridge, tiles, arguments)
    if state.is_main_process:
        for note in questions.notes:
            print_message(note)
    if questions.items:
        answered, more = evaluate_public_set(
            bridge,
            questions,
            arguments.batch_size,
            limit=arguments.limit,
            records_folder=output and output.with_name(f"{output.name}.questions"),
            report=print_message,
        )
        results, rows = [*results, *answered], [*rows, *more]
    if not results:
        raise ValueError("There is no caption, label or question to compare answers with.")
    if not state.is_main_process:
        return 0
    print(as_markdown(results))
    if output is not None:
        measured = {"bridge": bridge.revision, "dataset": dataset, "split": split}
        _write_results(output, measured, results, rows)
    return 0


def _write_results(
    output: Path, measured: dict[str, str | None], results: list[MetricResult], rows: list[dict]
) -> None:
    result = {
        **measured,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "metrics": [asdict(result) for result in results],
        "tiles": rows,
    }
    with write_atomically(output) as path:
        path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def _evaluate_captions(
    bridge: OlmoEarthVLMBridge, tiles: TileDataset, arguments: argparse.Namespace
) -> tuple[list[MetricResult], list[dict]]:
    """Evaluate on the tiles with captions or labels, where there are any."""
    from earthvlm.evaluation.evaluation import evaluate

    if not any(tile.captions or tile.labels for tile in tiles.tiles):
        return [], []
    output: Path | None = arguments.output
    return evaluate(
        bridge,
        tiles,
        arguments.batch_size,
        limit=arguments.limit,
        records_folder=output and output.with_name(f"{output.name}.parts"),
        report=print_message,
    )
