"""`earthvlm serve`: answer the clients of OpenAI's API."""

from __future__ import annotations

import argparse
import os

from earthvlm.cli.options import (
    add_bridge_options,
    check_model_path,
    load_bridge,
    whole_number,
)
from earthvlm.cli.output import print_message

MAX_PORT = 65535
API_KEY = "EARTHVLM_API_KEY"
ENDING_SECONDS = 5  # for answers that are being written when the server is interrupted


def add_serve(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "serve",
        help="answer the clients of OpenAI's API",
        description=(
            "Serve /v1/chat/completions, /v1/embeddings and /v1/files until interrupted.\n"
            f"Where {API_KEY} is set, clients have to send it as their API key."
        ),
        epilog="example:\n  earthvlm serve --model_path runs/first --port 8000",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=whole_number(1, MAX_PORT), default=8000, help="(default: %(default)s)"
    )
    parser.add_argument("--name", default="earthvlm", help="the model's name in answers")
    add_bridge_options(parser)
    parser.set_defaults(run=run_serve)


def run_serve(arguments: argparse.Namespace) -> int:
    """Serve until interrupted. Raises ValueError or OSError where it cannot start."""
    check_model_path(arguments.model_path)
    import uvicorn

    from earthvlm.serving.openai_api import OpenAIServer

    bridge = load_bridge(arguments.model_path, arguments.device)
    server = OpenAIServer(bridge, arguments.name, os.environ.get(API_KEY))
    print_message(f"http://{arguments.host}:{arguments.port}/v1 answers as {arguments.name!r}.")
    uvicorn.run(
        server.build_app(),
        host=arguments.host,
        port=arguments.port,
        log_level="warning",
        timeout_graceful_shutdown=ENDING_SECONDS,
    )
    return 0
