"""A conversation as the browser stores it, to continue it later or after the server has lost it.

The browser stores it (conversations.js), so anybody can change the text that comes back: it is
checked.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass

from earthvlm.generation.sampling import MAX_PROMPT_CHARACTERS, check_prompt
from earthvlm.models.language.chat_templates import Message
from earthvlm.serving.service import OpenScene
from earthvlm.ui.html.titles import make_title

MAX_MESSAGES = 40
MAX_CHARACTERS = 40_000  # of all messages; more than the context of any language model here
MAX_NAME_CHARACTERS = 200
# The JSON of that many characters. At worst each is written as two escapes (a surrogate pair).
MAX_STORED = 12 * (MAX_CHARACTERS + MAX_PROMPT_CHARACTERS + 2 * MAX_NAME_CHARACTERS) + 10_000
ROLES = ("user", "assistant")
TALK = re.compile(r"[0-9a-f]{16}")
# Runs in the browser before the events that restore: the conversation that the entry of the
# browser's history names, with its messages where they are stored, and else without.
RESTORE_SCRIPT = (
    "(session) => { const {talk, start} = history.state ?? {}; let stored = null; try { stored = "
    "localStorage.getItem('earthvlm.talk.' + talk); } catch {} "
    "return [session, stored ?? start ?? '']; }"
)
DAMAGED = (
    "The conversation that this browser stored is damaged and cannot be continued; begin a new one"
)


@dataclass(frozen=True)
class StoredConversation:
    """A conversation, the scene it is about, and a question that has no answer yet, if any.

    talk: its identifier. image_id: the scene's in the index, "" for a visitor's own file. name: the
    scene's, for people.
    """

    image_id: str
    name: str
    messages: tuple[Message, ...]
    question: str = ""
    talk: str = ""


def store_conversation(
    talk: str, opened: OpenScene, messages: list[Message], question: str = ""
) -> str:
    """Return HTML that the browser stores: the latest turns that fit the limits.

    talk: the conversation's identifier. question: without an answer so far.
    """
    latest = list(messages)
    while len(latest) > MAX_MESSAGES or _count_characters(latest) > MAX_CHARACTERS:
        latest = latest[2:]
    values = {
        "talk": talk,
        "title": make_title(opened.scene)[:MAX_NAME_CHARACTERS],
        "image_id": opened.entry.image_id if opened.entry else "",
        "name": opened.scene.name[:MAX_NAME_CHARACTERS],
        "messages": latest,
        "question": question[:MAX_PROMPT_CHARACTERS],
    }
    return f"<span data-talk>{html.escape(json.dumps(values), quote=False)}</span>"


def read_stored(text: str) -> StoredConversation:
    """Read a conversation that a browser stored. Raises ValueError where it is damaged."""
    try:
        if len(text) > MAX_STORED:
            raise ValueError(DAMAGED)
        values = json.loads(text)
        image_id, name, question = (values[part] for part in ("image_id", "name", "question"))
        talk = values["talk"]
        messages = tuple(_read_message(message) for message in values["messages"])
        roles = [message["role"] for message in messages]
        if (
            not all(isinstance(each, str) for each in (image_id, name, question, talk))
            or not TALK.fullmatch(talk)
            or max(len(image_id), len(name)) > MAX_NAME_CHARACTERS
            or len(question) > MAX_PROMPT_CHARACTERS
            or len(messages) > MAX_MESSAGES
            or roles != list(ROLES) * (len(roles) // 2)
            or _count_characters(messages) > MAX_CHARACTERS
        ):
            raise ValueError(DAMAGED)
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(DAMAGED) from None
    return StoredConversation(image_id, name, messages, question, talk)


def _read_message(message: dict[str, str]) -> Message:
    role, content = message["role"], message["content"]
    if role not in ROLES or not isinstance(content, str) or not content.strip():
        raise ValueError(DAMAGED)
    if role == "user":
        check_prompt(content)
    return {"role": role, "content": content}


def _count_characters(messages: list[Message] | tuple[Message, ...]) -> int:
    return sum(len(message["content"]) for message in messages)
