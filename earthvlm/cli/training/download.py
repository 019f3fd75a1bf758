"""`earthvlm download`: fetch published models and data before they are needed."""

from __future__ import annotations

import argparse
from pathlib import Path

OLMOEARTH, MOONDREAM2, CHATEARTHNET = "olmoearth", "moondream2", "chatearthnet"
CHATEARTHNET_PARTS = ("json", "rgb", "b567", "b81112")
DEFAULT_OLMOEARTH = "OlmoEarth-v1-Nano"


def add_download(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "download",
        help="fetch the released models, or ChatEarthNet",
        description=(
            "Fetch the released OlmoEarth or Moondream2 into the Hub's cache, where bridges look\n"
            "for them, and print the folder; or fetch ChatEarthNet into a data folder. What was\n"
            "interrupted is resumed, what is there is left alone."
        ),
        epilog=(
            "examples:\n"
            "  earthvlm download moondream2\n"
            "  earthvlm download olmoearth --model OlmoEarth-v1_2-Base\n"
            "  earthvlm download chatearthnet --data_dir DATA --parts json rgb"
        ),
    )
    parser.add_argument("what", choices=(OLMOEARTH, MOONDREAM2, CHATEARTHNET))
    parser.add_argument(
        "--model",
        default=DEFAULT_OLMOEARTH,
        help="which OlmoEarth, by its id or its name in ModelID (default: %(default)s)",
    )
    parser.add_argument(
        "--revision", help="a branch, tag or commit (default: the one a fresh bridge uses)"
    )
    parser.add_argument("--data_dir", type=Path, help="where ChatEarthNet goes")
    parser.add_argument(
        "--parts",
        nargs="+",
        type=_read_parts,
        default=[CHATEARTHNET_PARTS],
        metavar="PART",
        help=f"which of its archives: {', '.join(CHATEARTHNET_PARTS)} (default: all)",
    )
    parser.add_argument("--captions", choices=("35", "4v"), help="only these (default: both)")
    parser.add_argument("--record_url", help=argparse.SUPPRESS)
    parser.set_defaults(run=run_download)


def _read_parts(text: str) -> list[str]:
    """Parts with commas between them."""
    parts = text.split(",")
    for part in parts:
        if part not in CHATEARTHNET_PARTS:
            raise argparse.ArgumentTypeError(
                f"there is no part {part!r}: give some of {', '.join(CHATEARTHNET_PARTS)}"
            )
    return parts


def run_download(arguments: argparse.Namespace) -> int:
    """Print the folder. Raises ValueError or OSError, in one sentence, where it cannot be had."""
    if arguments.what == CHATEARTHNET:
        print(_download_chatearthnet(arguments))
    else:
        print(_download_model(arguments))
    return 0


def _download_chatearthnet(arguments: argparse.Namespace) -> Path:
    from earthvlm.data.chatearthnet.download import RECORD_URL, download_chatearthnet

    if arguments.data_dir is None:
        raise ValueError("ChatEarthNet needs a folder: --data_dir DATA.")
    download_chatearthnet(
        arguments.data_dir,
        list(dict.fromkeys(part for parts in arguments.parts for part in parts)),
        arguments.captions,
        arguments.record_url or RECORD_URL,
    )
    return arguments.data_dir


def _download_model(arguments: argparse.Namespace) -> Path:
    from earthvlm.models.language.language_model import LANGUAGE_FILES
    from earthvlm.models.language.moondream2 import MOONDREAM_ID, MOONDREAM_REVISION
    from earthvlm.models.olmoearth_loading import OLMOEARTH_FILES, olmoearth_repository
    from earthvlm.storage.hub import fetch

    if arguments.what == MOONDREAM2:
        revision = arguments.revision or MOONDREAM_REVISION
        return fetch(MOONDREAM_ID, LANGUAGE_FILES, revision).folder
    repository = olmoearth_repository(arguments.model)
    return fetch(repository, OLMOEARTH_FILES, arguments.revision).folder
