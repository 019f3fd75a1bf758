"""What a command says to its user on stderr: always one line, always one sentence or two."""

from __future__ import annotations

import sys

# The exit code of a command whose user gave it something it cannot use.
USER_ERROR = 2


def print_message(message: str) -> None:
    """Print a message on stderr as one line."""
    print(f"earthvlm: {join_lines(message)}", file=sys.stderr, flush=True)


def print_error(error: Exception) -> None:
    """Print an error on stderr as one line; one of the operating system by its file and reason."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        print_message(f"{error.filename}: {error.strerror}.")
    else:
        print_message(str(error))


def join_lines(text: str) -> str:
    """The text on one line, runs of white space as one blank."""
    return " ".join(text.split())
