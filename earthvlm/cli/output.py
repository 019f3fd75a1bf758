"""Print messages and errors on stderr, each on one line."""

from __future__ import annotations

import sys

# The exit code after invalid arguments or input.
USER_ERROR = 2


def print_message(message: str) -> None:
    """Print a message on stderr as one line."""
    print(f"earthvlm: {join_lines(message)}", file=sys.stderr, flush=True)


def print_error(error: Exception) -> None:
    """Print an error on stderr as one line; the system's errors as file and reason."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        print_message(f"{error.filename}: {error.strerror}.")
    else:
        print_message(str(error))


def join_lines(text: str) -> str:
    """Put a text on one line, with single spaces."""
    return " ".join(text.split())
