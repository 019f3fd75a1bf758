"""Which function answers which request."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.hub_server.messages import Answer, Request

NAME = r"(?P<full>(?:datasets/|spaces/)?[^/]+/[^/]+)"
API = r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
REVISION = r"(?P<revision>refs/(?:pr/\d+|convert/\w+)|[^/]+)"

Answerer = Callable[..., Answer]


@dataclass(frozen=True)
class Route:
    """A function for the requests of these methods whose path matches.

    The function takes the request, and the pattern's named groups by their names.
    """

    methods: str
    pattern: str
    answerer: Answerer


def find_answerer(routes: list[Route], request: Request) -> Callable[[], Answer] | None:
    for route in routes:
        match = re.fullmatch(route.pattern, request.path)
        if match and request.method in route.methods.split():
            return lambda: route.answerer(request, **match.groupdict())
    return None
