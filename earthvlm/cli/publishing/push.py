"""`earthvlm push`: publish a saved bridge on the Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from earthvlm.cli.options import add_visibility_options


def add_push(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "push",
        help="publish a saved bridge on the Hub",
        description=(
            "Push a saved bridge, its training's log and curve, and a card written from them, in\n"
            "one commit, which deletes files of an earlier push that this bridge does not have.\n"
            "Log in first with `hf auth login`."
        ),
        epilog="example:\n  earthvlm push runs/first owner/earthvlm --results results.json",
    )
    parser.add_argument("folder", help="the saved bridge")
    parser.add_argument("repository", help="where to, as in owner/name; made where there is none")
    parser.add_argument("--results", type=Path, help="what `earthvlm evaluate` wrote of it")
    parser.add_argument(
        "--notes", type=Path, metavar="FILE", help="Markdown for the card, on data and limits"
    )
    add_visibility_options(parser)
    for option, part in (("--vlm_model", "language model"), ("--olmoearth_model", "OlmoEarth")):
        parser.add_argument(
            option,
            metavar="REPO",
            help=f"the Hub repository that holds the {part} of a bridge trained on a local folder",
        )
    parser.add_argument("--revision", help="the branch (default: main)")
    parser.add_argument("--create_pr", action="store_true", help="as a pull request")
    parser.set_defaults(run=run_push)


def run_push(arguments: argparse.Namespace) -> int:
    """Print the commit's address."""
    from earthvlm.bridge.hub.model_card import read_results
    from earthvlm.bridge.hub.publish import publish_bridge

    address = publish_bridge(
        Path(arguments.folder),
        arguments.repository,
        private=arguments.private,
        revision=arguments.revision,
        create_pr=arguments.create_pr,
        results=read_results(arguments.results) if arguments.results else None,
        notes=_read_notes(arguments.notes) if arguments.notes else "",
        vlm_model=arguments.vlm_model,
        olmoearth_model=arguments.olmoearth_model,
    )
    print(address)
    return 0


def _read_notes(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"There are no notes at {path}: give a Markdown file.") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8: give a Markdown file.") from None
