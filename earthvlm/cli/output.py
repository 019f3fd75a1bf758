"""Print messages and errors on stderr, each on one line; JSON for stdout."""

from __future__ import annotations

import json
import sys

# The exit code after invalid arguments or input.
USER_ERROR = 2


def print_message(message: str) -> None:
    """Print a message on stderr as one line."""
    print(f"earthvlm: {join_lines(message)}", file=sys.stderr, flush=True)


def write_json(value: object, indent: int | None = None) -> str:
    """Return JSON for stdout, with letters as they are where stdout has them, else escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def print_error(error: Exception) -> None:
    """Print an error on stderr as one line; the system's errors as file and reason."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        print_message(f"{error.filename}: {error.strerror}.")
    else:
        print_message(str(error))


def join_lines(text: str) -> str:
    """Put a text on one line, with single spaces."""
    return " ".join(text.split())
