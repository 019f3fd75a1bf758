"""`earthvlm publish-space`: publish the app as a Space."""

from __future__ import annotations

import argparse
from pathlib import Path

from earthvlm.cli.options import add_visibility_options
from earthvlm.cli.output import print_message
from earthvlm.storage.hub import BUNDLED


def add_publish_space(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "publish-space",
        help="publish the app as a Hugging Face Space",
        description=(
            "Publish the app as a Space that shows a bridge and an embedding dataset, in one\n"
            "commit. If one of them is private or gated, set $EARTHVLM_SPACE_TOKEN to a token\n"
            "that may read it; it becomes the Space's secret HF_TOKEN.\n"
            "Log in first with `hf auth login`."
        ),
        epilog=(
            "example:\n"
            "  earthvlm publish-space owner/space --bridge owner/earthvlm "
            "--embeddings owner/embeddings"
        ),
    )
    parser.add_argument("space", help="the Space, as owner/name; created if it does not exist")
    parser.add_argument("--bridge", default=BUNDLED, help="a Hub repository (%(default)s)")
    parser.add_argument("--embeddings", default=BUNDLED, help="a Hub dataset (%(default)s)")
    add_visibility_options(parser)
    parser.add_argument(
        "--hardware", help="for example cpu-basic or zero-a10g (default: the Hub's)"
    )
    parser.add_argument(
        "--torch_index", metavar="URL", help="the package index of torch without CUDA"
    )
    parser.add_argument(
        "--output", type=Path, help="write the files here instead of publishing them"
    )
    parser.set_defaults(run=run_publish_space)


def run_publish_space(arguments: argparse.Namespace) -> int:
    """Print the commit's address, or with --output the Space's variables."""
    from earthvlm.publishing.space import find_sources, publish_space, write_space

    sources = find_sources(arguments.bridge, arguments.embeddings)
    if arguments.output:
        write_space(arguments.output, sources, arguments.torch_index)
        print("\n".join(f"{key}={value}" for key, value in sources.variables.items()))
        return 0
    address = publish_space(
        arguments.space,
        sources,
        print_message,
        private=arguments.private,
        hardware=arguments.hardware,
        torch_index=arguments.torch_index,
    )
    print(address)
    return 0
