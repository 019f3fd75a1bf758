"""`earthvlm publish-collection`: gather a bridge, its datasets and its Space on the Hub."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_publish_collection(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "publish-collection",
        help="gather a bridge, its datasets and its Space on the Hub",
        description=(
            "Create a collection on the Hub from a YAML file, or add the items that an\n"
            "existing one lacks. Log in first with `hf auth login`."
        ),
        epilog=(
            "the file:\n"
            "  title: earthvlm\n"
            "  namespace: owner\n"
            "  description: Chat with Sentinel-2 scenes and search among them\n"
            "  items:\n"
            "    - {type: model, id: owner/earthvlm, note: the bridge}\n"
            "    - {type: dataset, id: owner/embeddings}\n"
            "    - {type: space, id: owner/earthvlm}"
        ),
    )
    parser.add_argument("file", type=Path, help="what belongs together; see below")
    parser.add_argument("--private", action="store_true", help="make a new collection private")
    parser.set_defaults(run=run_publish_collection)


def run_publish_collection(arguments: argparse.Namespace) -> int:
    """Print the collection's address."""
    from earthvlm.publishing.collection import Collection, publish_collection

    print(publish_collection(Collection.read(arguments.file), arguments.private))
    return 0
