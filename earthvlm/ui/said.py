"""A conversation as the page shows it: what was said, and what is shown while nothing is."""

from __future__ import annotations

from typing import Any

from earthvlm.prompts import Message

LOOKING = "Looking at the scene …"
NOTHING_SAID = "(stopped before the first word)"
NEUTRAL = (
    "<p>The answers are a model's and can be wrong; what is marked as measured was computed.</p>"
)


def show_conversation(
    conversation: list[Message], pending: str = "", answer: str = ""
) -> list[dict[str, Any]]:
    """A conversation as the chatbot takes it, with a sign of waiting or an answer so far."""
    messages: list[dict[str, Any]] = [dict(message) for message in conversation]
    if pending:
        waiting = {"title": pending, "status": "pending"}
        messages.append({"role": "assistant", "content": "", "metadata": waiting})
    if answer:
        messages.append({"role": "assistant", "content": answer})
    return messages


def describe_wait(ahead: int) -> str:
    """What is shown while others are answered first."""
    return f"{ahead} question{'s' if ahead > 1 else ''} before yours …"
