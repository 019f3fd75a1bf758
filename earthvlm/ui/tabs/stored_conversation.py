"""The conversation as a browser tab stores it, to restore it when the server has lost it.

The browser stores it (page.js), so anybody can change the text that comes back: it is checked.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass

from earthvlm.generation.sampling import MAX_PROMPT_CHARACTERS, check_prompt
from earthvlm.models.language.chat_templates import Message
from earthvlm.serving.service import OpenScene

MAX_MESSAGES = 40
MAX_CHARACTERS = 40_000  # of all messages; more than the context of any language model here
MAX_NAME_CHARACTERS = 200
# The JSON of that many characters. At worst each is written as two escapes (a surrogate pair).
MAX_STORED = 12 * (MAX_CHARACTERS + MAX_PROMPT_CHARACTERS + MAX_NAME_CHARACTERS) + 10_000
ROLES = ("user", "assistant")
# Runs in the browser before the page's first event. Each address has its own conversation.
RESTORE_SCRIPT = (
    "(session) => { let stored = null; try { stored = sessionStorage.getItem("
    "'earthvlm' + location.search); } catch {} return [session, stored ?? '']; }"
)
DAMAGED = "The conversation that this browser stored is damaged, and was not restored"


@dataclass(frozen=True)
class StoredConversation:
    """A conversation, the scene it is about, and a question that has no answer yet, if any.

    image_id: the scene's in the index, "" for a visitor's own file. name: the scene's, for people.
    """

    image_id: str
    name: str
    messages: tuple[Message, ...]
    question: str = ""


def store_conversation(opened: OpenScene, messages: list[Message], question: str = "") -> str:
    """Return HTML that page.js stores in the browser: the latest turns that fit the limits."""
    latest = list(messages)
    while len(latest) > MAX_MESSAGES or _count_characters(latest) > MAX_CHARACTERS:
        latest = latest[2:]
    values = {
        "image_id": opened.entry.image_id if opened.entry else "",
        "name": opened.scene.name[:MAX_NAME_CHARACTERS],
        "messages": latest,
        "question": question[:MAX_PROMPT_CHARACTERS],
    }
    return f"<span>{html.escape(json.dumps(values), quote=False)}</span>"


def read_stored(text: str) -> StoredConversation:
    """Read a conversation that a browser stored. Raises ValueError where it is damaged."""
    try:
        if len(text) > MAX_STORED:
            raise ValueError(DAMAGED)
        values = json.loads(text)
        image_id, name, question = (values[part] for part in ("image_id", "name", "question"))
        messages = tuple(_read_message(message) for message in values["messages"])
        roles = [message["role"] for message in messages]
        if (
            not all(isinstance(each, str) for each in (image_id, name, question))
            or max(len(image_id), len(name)) > MAX_NAME_CHARACTERS
            or len(question) > MAX_PROMPT_CHARACTERS
            or len(messages) > MAX_MESSAGES
            or roles != list(ROLES) * (len(roles) // 2)
            or _count_characters(messages) > MAX_CHARACTERS
        ):
            raise ValueError(DAMAGED)
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(DAMAGED) from None
    return StoredConversation(image_id, name, messages, question)


def _read_message(message: dict[str, str]) -> Message:
    role, content = message["role"], message["content"]
    if role not in ROLES or not isinstance(content, str) or not content.strip():
        raise ValueError(DAMAGED)
    if role == "user":
        check_prompt(content)
    return {"role": role, "content": content}


def _count_characters(messages: list[Message] | tuple[Message, ...]) -> int:
    return sum(len(message["content"]) for message in messages)
