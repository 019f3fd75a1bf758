"""`earthvlm push`: publish a saved bridge on the Hub."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_push(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "push",
        help="publish a saved bridge on the Hub",
        description=(
            "Push a saved bridge, its training's log and curve, and a card written from them, in\n"
            "one commit. Log in first with `hf auth login`."
        ),
        epilog="example:\n  earthvlm push runs/first owner/earthvlm --results results.json",
    )
    parser.add_argument("folder", help="the saved bridge")
    parser.add_argument("repository", help="where to, as in owner/name; made where there is none")
    parser.add_argument("--results", type=Path, help="what `earthvlm evaluate` wrote of it")
    parser.add_argument(
        "--notes", type=Path, metavar="FILE", help="Markdown for the card, on data and limits"
    )
    parser.add_argument("--private", action="store_true", help="make the repository a private one")
    parser.add_argument("--revision", help="the branch (default: main)")
    parser.add_argument("--create_pr", action="store_true", help="as a pull request")
    parser.set_defaults(run=run_push)


def run_push(arguments: argparse.Namespace) -> int:
    """Print the commit's address."""
    from earthvlm.publishing import publish_bridge

    results = json.loads(arguments.results.read_text()) if arguments.results else None
    address = publish_bridge(
        Path(arguments.folder),
        arguments.repository,
        private=arguments.private or None,
        revision=arguments.revision,
        create_pr=arguments.create_pr,
        results=results,
        notes=arguments.notes.read_text("utf-8") if arguments.notes else "",
    )
    print(address)
    return 0
