"""`earthvlm app`: serve the web app."""

from __future__ import annotations

import argparse
import os

from earthvlm.cli.options import whole_number

MAX_PORT = 65535


def add_app(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "app",
        help="serve the web app",
        description=(
            "Serve the web app until it is interrupted, and print its address.\n"
            "Without an option, the environment decides: EARTHVLM_BRIDGE, EARTHVLM_EMBEDDINGS,\n"
            "EARTHVLM_SEARCH_ENGINE, GRADIO_SERVER_NAME and GRADIO_SERVER_PORT."
        ),
        epilog=(
            "examples:\n"
            "  earthvlm app\n"
            "  earthvlm app --model_path runs/first --index my_index --port 8000"
        ),
    )
    parser.add_argument(
        "--model_path",
        metavar="BRIDGE",
        help="a saved bridge's folder or Hub repository (default: the bundled one)",
    )
    parser.add_argument(
        "--index",
        metavar="DATASET",
        help="the folder of `earthvlm index`, or an embedding dataset on the Hub "
        "(default: the bundled one)",
    )
    parser.add_argument(
        "--search_engine",
        metavar="ENGINE",
        help="what searches, as in `earthvlm search --engine` (default: auto)",
    )
    parser.add_argument(
        "--host", help="the address to listen on; 0.0.0.0 for every one (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=whole_number(1, MAX_PORT), help="the port (default: 7860 or the next free)"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.set_defaults(run=run_app, quiet=False)


def run_app(arguments: argparse.Namespace) -> int:
    """Serve the page. Raises ValueError or OSError, in one sentence, where it cannot start."""
    given = {
        "EARTHVLM_SEARCH_ENGINE": arguments.search_engine,
        # Also read by the page's checks of hosts.
        "GRADIO_SERVER_NAME": arguments.host,
        "GRADIO_SERVER_PORT": arguments.port,
    }
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})

    from earthvlm.ui.launch import launch_app

    launch_app(arguments.model_path, arguments.index, open_browser=arguments.open)
    return 0
