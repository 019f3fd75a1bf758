"""`earthvlm evaluate`: how good a bridge is, beside the same bridge made blind."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from earthvlm.commands.arguments import (
    add_bridge_options,
    check_model_path,
    load_bridge,
    whole_number,
)
from earthvlm.commands.messages import tell


def add_evaluate(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a bridge on tiles whose land cover is known",
        description=(
            "Ask about every tile of a split and search among them. The data folder is laid out\n"
            "as ChatEarthNet is, with a facts.json that gives each tile's land cover."
        ),
        epilog="example:\n  earthvlm evaluate --data_dir DATA --split val --output results.json",
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="the data folder")
    parser.add_argument("--split", default="val", help="which tiles (default: %(default)s)")
    parser.add_argument("--batch_size", type=whole_number(1), default=24, help="tiles at once")
    parser.add_argument("--limit", type=whole_number(1), help="so many tiles at most, spread out")
    parser.add_argument("--output", type=Path, help="write figures and answers to this JSON file")
    add_bridge_options(parser)
    parser.set_defaults(run=run_evaluate)


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Print the figures as a Markdown table."""
    check_model_path(arguments.model_path)
    from earthvlm.chatearthnet import ChatEarthNet
    from earthvlm.evaluation import as_markdown, evaluate

    tiles = ChatEarthNet(arguments.data_dir, arguments.split)
    bridge = load_bridge(arguments.model_path, arguments.device)
    figures, rows = evaluate(
        bridge, tiles, arguments.batch_size, limit=arguments.limit, report=tell
    )
    print(as_markdown(figures))
    if arguments.output:
        result = {
            "bridge": bridge.revision,
            "split": arguments.split,
            "figures": [asdict(figure) for figure in figures],
            "tiles": rows,
        }
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0
