"""A conversation as the page shows it, and an answer as its text grows."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from earthvlm.models.language.chat_templates import Message
from earthvlm.scenes.places.formatting import describe_count
from earthvlm.serving.service import Waiting

_ENTITY = re.compile(r"&(?=[#\w])")
_TAG = re.compile(r"<(?=[a-zA-Z/!?])")
LOOKING = "Looking at the scene …"
NO_ANSWER = "(stopped before the first word)"
ANSWER_NOTE = (
    "<p>A model writes the answers, and they can be wrong. Values marked “measured” are computed "
    "from the bands.</p>"
)
# Words that are drawn more often look no smoother, and take time from the model.
SECONDS_BETWEEN_UPDATES = 0.05


def accumulate_text(
    pieces: Generator[Waiting | str, None, None],
) -> Generator[Waiting | str, None, None]:
    """Yield an answer's text so far, again and again as its pieces arrive, and whole at the end.

    Waiting is passed on. Closing this iterator closes `pieces`.
    """
    text, shown = "", 0.0
    with closing(pieces):
        for piece in pieces:
            if isinstance(piece, Waiting):
                yield piece
                continue
            text += piece
            if time.monotonic() - shown > SECONDS_BETWEEN_UPDATES:
                yield text
                shown = time.monotonic()
    yield text


def show_conversation(
    conversation: list[Message],
    pending: str = "",
    answer: str = "",
    checks: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return a conversation as the chatbot takes it, with a pending note or the answer so far.

    checks: HTML with what was measured, to stand below each answer.
    """
    messages: list[dict[str, Any]] = [
        {**message, "content": escape_message(message["content"])} for message in conversation
    ]
    for message, check in zip(messages[1::2], checks, strict=False):
        if check:
            message["content"] += f'<div class="compared">{check}</div>'
    if pending:
        waiting = {"title": pending, "status": "pending"}
        messages.append({"role": "assistant", "content": "", "metadata": waiting})
    if answer:
        messages.append({"role": "assistant", "content": escape_message(answer)})
    return messages


def escape_message(text: str) -> str:
    """Escape a text so that the chatbot, which reads messages as HTML, shows it literally.

    Only the start of a tag or an entity is escaped, because a question that is edited in place
    shows the escaped text.
    """
    return _TAG.sub("&lt;", _ENTITY.sub("&amp;", text))


def unescape_message(text: str) -> str:
    """Return the text of a message that was escaped."""
    return html.unescape(text)


def describe_wait(ahead: int) -> str:
    """Say how many questions are answered first."""
    return f"{describe_count(ahead, 'question')} before yours …"
