"""The `earthvlm` command.

A user's mistake gives one sentence on stderr and exit code 2, without a traceback. Answers go to
stdout and messages to stderr, so that a pipe carries answers only. Arguments are checked before a
model is loaded, where possible.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from io import TextIOWrapper
from typing import Any, NoReturn

from earthvlm._version import __version__
from earthvlm.cli.app import add_app
from earthvlm.cli.doctor import add_doctor
from earthvlm.cli.output import USER_ERROR, print_error
from earthvlm.cli.publishing.embed_dataset import add_embed_dataset
from earthvlm.cli.publishing.publish_collection import add_publish_collection
from earthvlm.cli.publishing.publish_space import add_publish_space
from earthvlm.cli.publishing.push import add_push
from earthvlm.cli.scenes.classify import add_classify
from earthvlm.cli.scenes.compare import add_compare
from earthvlm.cli.scenes.describe import add_describe
from earthvlm.cli.scenes.fetch import add_fetch
from earthvlm.cli.scenes.index import add_index
from earthvlm.cli.scenes.search import add_search
from earthvlm.cli.scenes.segment import add_segment
from earthvlm.cli.serve import add_serve
from earthvlm.cli.training.download import add_download
from earthvlm.cli.training.evaluate import add_evaluate
from earthvlm.cli.training.train import add_train
from earthvlm.cli.training.validate_data import add_validate_data

# Each adds its parser, whose default `run` takes the parsed arguments and returns an exit code.
COMMANDS = (
    add_app,
    add_serve,
    add_describe,
    add_segment,
    add_compare,
    add_search,
    add_classify,
    add_fetch,
    add_index,
    add_download,
    add_validate_data,
    add_train,
    add_evaluate,
    add_push,
    add_embed_dataset,
    add_publish_space,
    add_publish_collection,
    add_doctor,
)

# What other programs call it, or people try first; nothing in the spelling leads to the right word.
OTHER_WORDS = {
    "ask": "describe",
    "chat": "describe",
    "caption": "describe",
    "info": "describe",
    "classes": "segment",
    "landcover": "segment",
    "change": "compare",
    "diff": "compare",
    "find": "search",
    "demo": "app",
    "ui": "app",
    "--question": "--prompt",
    "--query": "--prompt",
    "--out": "--output",
}

# Exit codes as shells know them: 128 + the number of the signal.
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (`sys.argv` where none is given) and return its exit code."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A letter that the terminal lacks, as many do on Windows, is no reason to give no answer.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            arguments = build_parser().parse_args(argv)
            with _quiet_libraries() if arguments.quiet else nullcontext():
                return arguments.run(arguments)
        finally:
            sys.stdout.flush()  # here, where a closed pipe can still be handled
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout again as it exits, and must not fail on the same closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (ValueError, OSError, MemoryError) as error:
        print_error(error)
        return USER_ERROR


class _Parser(argparse.ArgumentParser):
    """Raises ValueError for wrong arguments, so that all errors are printed in the same way.

    Where one resembles a command, an option or a choice, the error names that.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help.")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        # First, because argparse would name arguments that are missing instead, and for a command
        # leaves the options it lacks to the parser above, which does not know those it has.
        for option in self._list_options(sys.argv[1:] if args is None else args):
            if option not in self._option_string_actions:
                suggested = suggest(option, self._option_string_actions)
                self.error(f"unrecognized arguments: {option}{suggested}")
        return super().parse_known_args(args, namespace)

    def _list_options(self, args: Sequence[str]) -> Iterator[str]:
        """Yield the long options of a command line, those of a command's own parser left out."""
        for text in args:
            if text == "--" or (self._subparsers is not None and not text.startswith("-")):
                return
            if text.startswith("--") and " " not in text:  # else argparse takes it for a value
                yield text.partition("=")[0]

    def _match_argument(self, action: argparse.Action, arg_strings_pattern: str) -> int:
        try:
            return super()._match_argument(action, arg_strings_pattern)
        except argparse.ArgumentError as error:
            if isinstance(action.metavar, tuple):
                error.message += f": {' '.join(action.metavar)}"
            raise

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += suggest(str(value), map(str, action.choices or ()))
            raise


def suggest(given: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with what a word means or resembles; "" where nothing does."""
    choices = list(known)
    meant = OTHER_WORDS.get(given)
    found = [meant] if meant in choices else difflib.get_close_matches(given, choices, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def build_parser() -> argparse.ArgumentParser:
    """The parser of every `earthvlm` command."""
    parser = _Parser(
        prog="earthvlm",
        description="Chat with Sentinel-2 scenes and search among them.",
        epilog="'earthvlm COMMAND --help' explains a command and gives examples.",
    )
    parser.add_argument("--version", action="version", version=f"earthvlm {__version__}")
    # Libraries' own messages are wanted where a command runs for hours.
    parser.set_defaults(quiet=True)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add_command in COMMANDS:
        add_command(commands)
    return parser


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep warnings and log records of libraries off stderr, which holds this command's messages.

    `python -W default -m earthvlm` shows the warnings.
    """
    silent = logging.NullHandler()
    logging.getLogger().addHandler(silent)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().removeHandler(silent)
