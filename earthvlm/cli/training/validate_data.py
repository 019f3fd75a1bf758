"""`earthvlm validate-data`: read every tile of a dataset before training on it."""

from __future__ import annotations

import argparse

from earthvlm.cli.options import whole_number


def add_validate_data(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "validate-data",
        help="read every tile of a dataset once",
        description=(
            "Read every tile that has captions; report unusable tiles, empty and repeated\n"
            "captions, and tiles in two splits; and write check.json into the data folder.\n"
            "Training skips the tiles that it lists."
        ),
        epilog=(
            "examples:\n"
            "  earthvlm validate-data ChatEarthNet\n"
            "  earthvlm validate-data my_scenes          # with metadata.jsonl\n"
            "  earthvlm validate-data GeoChat_Instruct.json\n"
            "  earthvlm validate-data owner/dataset      # on the Hub"
        ),
    )
    parser.add_argument(
        "data_dir",
        metavar="DATA",
        help="what --data_dir of the training takes: see docs/own_data.md",
    )
    parser.add_argument(
        "--workers", type=whole_number(1), help="threads (default: one for each core)"
    )
    parser.set_defaults(run=run_validate_data)


def run_validate_data(arguments: argparse.Namespace) -> int:
    """Print the report; the exit code is 1 where tiles or captions are unusable."""
    from earthvlm.data.sources.opening import check_source

    report = check_source(arguments.data_dir, arguments.workers)
    print("\n".join(report.lines()))
    return 1 if report.unusable or report.faults else 0
