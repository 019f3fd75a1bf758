"""`earthvlm validate-data`: read every tile of a ChatEarthNet folder before training on it."""

from __future__ import annotations

import argparse
from pathlib import Path

from earthvlm.cli.options import whole_number


def add_check(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "validate-data",
        help="read every tile of a ChatEarthNet folder once",
        description=(
            "Read every tile that has captions, report what cannot be used, empty and repeated\n"
            "captions and tiles that are in two splits, and write check.json next to the data.\n"
            "Training skips the tiles it lists."
        ),
        epilog="example:\n  earthvlm validate-data DATA",
    )
    parser.add_argument("data_dir", type=Path, metavar="DATA", help="the data folder")
    parser.add_argument(
        "--workers", type=whole_number(1), help="threads (default: as many as cores)"
    )
    parser.set_defaults(run=run_check)


def run_check(arguments: argparse.Namespace) -> int:
    """Print the report; the exit code is 1 where tiles or captions cannot be used."""
    from earthvlm.data.chatearthnet_validation import check_chatearthnet

    report = check_chatearthnet(arguments.data_dir, arguments.workers)
    print("\n".join(report.lines()))
    return 1 if report.unusable or report.caption_faults else 0
