"""What a page keeps of its conversation, and gives back when the server has lost it.

The browser keeps it for one tab (page.js), so what comes back is anybody's text and is checked.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass

from earthvlm.generation.sampling import MAX_PROMPT_CHARACTERS, check_prompt
from earthvlm.models.chat_templates import Message
from earthvlm.serving.service import OpenScene

MOST_MESSAGES = 40
MOST_CHARACTERS = 40_000  # of all messages, more than a language model here can read
NAME_CHARACTERS = 200
# The JSON of that many characters, each written as an escape of a pair of surrogates at worst.
MOST_KEPT = 12 * (MOST_CHARACTERS + MAX_PROMPT_CHARACTERS + NAME_CHARACTERS) + 10_000
ROLES = ("user", "assistant")
# Runs in the browser before the page's first event; each address of a tab has its own.
GIVE_BACK = (
    "(session) => { let kept = null; try { kept = sessionStorage.getItem("
    "'earthvlm' + location.search); } catch {} return [session, kept ?? '']; }"
)
DAMAGED = "What this browser kept of the last conversation is damaged, and was left out"


@dataclass(frozen=True)
class KeptConversation:
    """A conversation, the scene it is about, and a question without an answer yet, if any.

    image_id: of the index, "" for a visitor's own file. name: the scene's, for people.
    """

    image_id: str
    name: str
    messages: tuple[Message, ...]
    question: str = ""


def keep_conversation(opened: OpenScene, messages: list[Message], question: str = "") -> str:
    """Return HTML that page.js keeps in the browser: the latest turns that may be given back."""
    kept = list(messages)
    while len(kept) > MOST_MESSAGES or _count_characters(kept) > MOST_CHARACTERS:
        kept = kept[2:]
    values = {
        "image_id": opened.entry.image_id if opened.entry else "",
        "name": opened.scene.name[:NAME_CHARACTERS],
        "messages": kept,
        "question": question[:MAX_PROMPT_CHARACTERS],
    }
    return f"<span>{html.escape(json.dumps(values), quote=False)}</span>"


def read_kept(text: str) -> KeptConversation:
    """Read what a browser gave back. Raises ValueError, in one sentence, for anything else."""
    try:
        if len(text) > MOST_KEPT:
            raise ValueError(DAMAGED)
        values = json.loads(text)
        image_id, name, question = (values[part] for part in ("image_id", "name", "question"))
        messages = tuple(_read_message(message) for message in values["messages"])
        roles = [message["role"] for message in messages]
        if (
            not all(isinstance(each, str) for each in (image_id, name, question))
            or max(len(image_id), len(name)) > NAME_CHARACTERS
            or len(question) > MAX_PROMPT_CHARACTERS
            or len(messages) > MOST_MESSAGES
            or roles != list(ROLES) * (len(roles) // 2)
            or _count_characters(messages) > MOST_CHARACTERS
        ):
            raise ValueError(DAMAGED)
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(DAMAGED) from None
    return KeptConversation(image_id, name, messages, question)


def _read_message(message: dict[str, str]) -> Message:
    role, content = message["role"], message["content"]
    if role not in ROLES or not isinstance(content, str) or not content.strip():
        raise ValueError(DAMAGED)
    if role == "user":
        check_prompt(content)
    return {"role": role, "content": content}


def _count_characters(messages: list[Message] | tuple[Message, ...]) -> int:
    return sum(len(message["content"]) for message in messages)
