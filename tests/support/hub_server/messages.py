"""A request and its response, independent of the HTTP server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.hub_server.state import LocalHub


@dataclass
class Request:
    """A client's request."""

    hub: LocalHub
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @cached_property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @cached_property
    def query(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """The response; upto: the bytes of the body after which the connection is cut."""

    status: int = 200
    content: bytes | dict | list = b""
    headers: dict[str, str] = field(default_factory=dict)
    upto: int | None = None

    @property
    def body(self) -> bytes:
        is_bytes = isinstance(self.content, bytes)
        return self.content if is_bytes else json.dumps(self.content).encode()


class Refusal(Exception):
    """Ends the handling of a request with a response."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def refuse(status: int, code: str = "") -> Refusal:
    """A refusal with an error code that utils/_http.py's `hf_raise_for_status` reads."""
    return Refusal(Answer(status, {}, {"X-Error-Code": code} if code else {}))
