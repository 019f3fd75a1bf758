"""A conversation as the page shows it: what was said, and what is shown while nothing is."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from earthvlm.models.chat_templates import Message
from earthvlm.serving.service import Waiting

_ENTITY = re.compile(r"&(?=[#\w])")
_TAG = re.compile(r"<(?=[a-zA-Z/!?])")
LOOKING = "Looking at the scene …"
NOTHING_SAID = "(stopped before the first word)"
NEUTRAL = (
    "<p>The answers are a model's and can be wrong; what is marked as measured was computed.</p>"
)
# Drawn more often than that, words look no smoother and take the model's time.
SECONDS_BETWEEN_WORDS = 0.05


def read_along(pieces: Iterator[Waiting | str]) -> Iterator[Waiting | str]:
    """The answer as far as it is known, again and again as its pieces come, and whole at the end.

    What is said while it waits is passed on. Closing this closes `pieces`.
    """
    text, shown = "", 0.0
    with closing(pieces):
        for piece in pieces:
            if isinstance(piece, Waiting):
                yield piece
                continue
            text += piece
            if time.monotonic() - shown > SECONDS_BETWEEN_WORDS:
                yield text
                shown = time.monotonic()
    yield text


def show_conversation(
    conversation: list[Message], pending: str = "", answer: str = ""
) -> list[dict[str, Any]]:
    """A conversation as the chatbot takes it, with a sign of waiting or an answer so far."""
    messages: list[dict[str, Any]] = [
        {**message, "content": escape_message(message["content"])} for message in conversation
    ]
    if pending:
        waiting = {"title": pending, "status": "pending"}
        messages.append({"role": "assistant", "content": "", "metadata": waiting})
    if answer:
        messages.append({"role": "assistant", "content": escape_message(answer)})
    return messages


def escape_message(text: str) -> str:
    """Text as the chatbot shows it literally; it takes messages for HTML, without Markdown too.

    Only what would begin a tag or an entity is escaped, as an edited question shows what is here.
    """
    return _TAG.sub("&lt;", _ENTITY.sub("&amp;", text))


def unescape_message(text: str) -> str:
    """The text of a message that was escaped."""
    return html.unescape(text)


def describe_wait(ahead: int) -> str:
    """What is shown while others are answered first."""
    return f"{ahead} question{'s' if ahead > 1 else ''} before yours …"
