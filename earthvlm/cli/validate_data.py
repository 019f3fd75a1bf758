"""`earthvlm validate-data`: read every tile of a ChatEarthNet folder before training on it."""

from __future__ import annotations

import argparse
from pathlib import Path

from earthvlm.cli.options import whole_number


def add_validate_data(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "validate-data",
        help="read every tile of a ChatEarthNet folder once",
        description=(
            "Read every tile that has captions; report unusable tiles, empty and repeated\n"
            "captions, and tiles in two splits; and write check.json into the data folder.\n"
            "Training skips the tiles that it lists."
        ),
        epilog="example:\n  earthvlm validate-data DATA",
    )
    parser.add_argument("data_dir", type=Path, metavar="DATA", help="the data folder")
    parser.add_argument(
        "--workers", type=whole_number(1), help="threads (default: one for each core)"
    )
    parser.set_defaults(run=run_validate_data)


def run_validate_data(arguments: argparse.Namespace) -> int:
    """Print the report; the exit code is 1 where tiles or captions are unusable."""
    from earthvlm.data.chatearthnet_validation import check_chatearthnet

    report = check_chatearthnet(arguments.data_dir, arguments.workers)
    print("\n".join(report.lines()))
    return 1 if report.unusable or report.caption_faults else 0
