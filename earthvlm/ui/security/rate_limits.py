"""Limits on how often one address may call, and on how many requests it may hold open."""

from __future__ import annotations

import re
import time
from collections import Counter, OrderedDict
from typing import Any

from earthvlm.serving.owner_limits import read_address_factor
from earthvlm.ui.security.asgi import App, Receive, Send, client_address, send_answer

# A visitor who clicks fast makes four calls a second, and a page makes a few when it opens.
CALLS_PER_SECOND, CALLS_AT_ONCE = 4.0, 60
# Gradio writes the page, its configuration and its list of endpoints for each request, which
# takes longer than a search. A class of 20 behind one address opens them at once.
PAGES_PER_SECOND, PAGES_AT_ONCE = 0.5, 40
# An open page holds two: its heartbeat, and the answers that stream to it.
MAX_OPEN = 120
MAX_ADDRESSES = 10_000
BUSY = "Busy: too many calls from your address; try again in a few seconds."
_CALLS = re.compile(r".*/(queue/join|(call|run|api)/.*|mcp(/.*)?)")
_PAGES = re.compile(r"/|.*/(config|info|openapi\.json)/?")


class TokenBuckets:
    """A token bucket for each address."""

    def __init__(self) -> None:
        # For each address: the requests it has left, and the time of that count.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str, per_second: float, at_once: float) -> bool:
        """Take one of the requests that an address has left; False where it has none.

        An address starts with `at_once` and gains `per_second` until it has as many again.
        """
        now = time.monotonic()
        left, since = self._left.pop(address, (at_once, now))
        left = min(at_once, left + (now - since) * per_second)
        allowed = left >= 1
        self._left[address] = (left - allowed, now)
        while len(self._left) > MAX_ADDRESSES:
            self._left.popitem(last=False)
        return allowed


class RateLimits:
    """Middleware that answers 429 to an address with too many calls, pages or open requests."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._factor = read_address_factor()
        self._calls, self._pages = TokenBuckets(), TokenBuckets()
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 429 when its address has too many."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = client_address(scope)
        if self._open[address] >= MAX_OPEN * self._factor or not self._allow(scope, address):
            await send_answer(send, 429, BUSY, headers=((b"retry-after", b"5"),))
            return
        self._open[address] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]

    def _allow(self, scope: Any, address: str) -> bool:
        buckets, rate = self._calls, (CALLS_PER_SECOND, CALLS_AT_ONCE)
        if scope["method"] in ("GET", "HEAD") and _PAGES.fullmatch(scope["path"]):
            buckets, rate = self._pages, (PAGES_PER_SECOND, PAGES_AT_ONCE)
        elif scope["method"] != "POST" or not _CALLS.fullmatch(scope["path"]):
            return True
        return buckets.take(address, *(self._factor * each for each in rate))
