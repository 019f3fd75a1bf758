"""The messages of OpenAI's API: reads those of requests, and writes answers as events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Any

from starlette.concurrency import iterate_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from earthvlm.models.language.chat_templates import Message

# Of a conversation, and of the texts to embed; the models read far less, and splitting takes time.
MAX_CHARACTERS = 50_000
ROLES = ("user", "assistant", "system", "developer")


def read_messages(value: object) -> tuple[list[str], list[Message]]:
    """Return the images and the turns of a conversation, without system messages."""
    if not isinstance(value, list) or not value:
        raise ValueError("messages is a list with at least one message.")
    images: list[str] = []
    messages: list[Message] = []
    for message in value:
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise ValueError(f"A message has one of the roles {', '.join(ROLES)}.")
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
            raise ValueError("The content of a message is a text or a list of parts.")
        images += [image for image in map(_image_of, parts) if image]
        if message["role"] in ("user", "assistant"):
            texts = [str(part.get("text", "")) for part in parts if part.get("type") == "text"]
            messages.append({"role": message["role"], "content": "\n".join(texts)})
    if sum(len(message["content"]) for message in messages) > MAX_CHARACTERS:
        raise ValueError(f"A conversation has at most {MAX_CHARACTERS:,} characters.")
    if not messages or messages[-1]["role"] != "user":
        raise ValueError("The last message is the user's question.")
    return images, messages


def _image_of(part: Mapping[str, Any]) -> str | None:
    """Return the data URI or file id of a part of a message, if it has one."""
    for name, key in (("image_url", "url"), ("file", "file_id")):
        if part.get("type") == name:
            value = part.get(name)
            found = value.get(key) if isinstance(value, Mapping) else value
            if not isinstance(found, str):
                raise ValueError(f"A part of type {name} has a text under {name}.{key}.")
            return found
    return None


def read_number(value: object, name: str, least: float, most: float | None) -> Any:
    """Return a number of a request. Raises ValueError outside of its bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is a number.")
    if not value >= least or (most is not None and value > most):
        upper = "" if most is None else f" and at most {most}"
        raise ValueError(f"{name} is at least {least}{upper}.")
    return value


class EventStream(StreamingResponse):
    """Sends events, and ends their generator when the client is gone, too.

    Left to the garbage collector, the generator could be ended in the model's own thread, for which
    it would wait for ever.
    """

    def __init__(self, events: Generator[str, None, None]) -> None:
        super().__init__(iterate_in_threadpool(events), media_type="text/event-stream")
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            loop = asyncio.get_running_loop()
            await asyncio.shield(loop.run_in_executor(None, self._events.close))


def stream_events(
    about: dict[str, Any], pieces: Generator[str, None, None], why_ended: Callable[[str], str]
) -> Generator[str, None, None]:
    """Write an answer as server-sent events; an error becomes the last one."""

    def event(delta: dict[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        chunk = about | {"object": "chat.completion.chunk", "choices": [choice]}
        return f"data: {json.dumps(chunk)}\n\n"

    text = ""
    try:
        with closing(pieces):
            yield event({"role": "assistant", "content": ""})
            for piece in pieces:
                text += piece
                yield event({"content": piece})
    except ValueError as error:
        yield f"data: {json.dumps(describe_error(str(error), 'invalid_request_error'))}\n\n"
        return
    yield event({}, why_ended(text))
    yield "data: [DONE]\n\n"


def describe_error(message: str, kind: str) -> dict[str, Any]:
    """Return an error in OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}
