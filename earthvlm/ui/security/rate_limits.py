"""Limits on how often one address may call, and on how many requests it may hold open."""

from __future__ import annotations

import re
import time
from collections import Counter, OrderedDict
from typing import Any

from earthvlm.serving.address_factor import read_address_factor
from earthvlm.ui.security.asgi import App, Receive, Send, client_address, send_answer

# A visitor who clicks fast makes two calls a second, and a page makes a few when it opens.
CALLS_PER_SECOND, CALLS_AT_ONCE = 4.0, 60
# An open page holds two: its heartbeat, and the answers that stream to it.
MAX_OPEN = 120
MAX_ADDRESSES = 10_000
BUSY = "Busy: too many calls from your address; try again in a few seconds."
_CALLS = re.compile(r".*/(queue/join|(call|run|api)/.*|mcp(/.*)?)")


class RateLimits:
    """Middleware that answers 429 to an address with too many calls or open requests."""

    def __init__(self, app: App) -> None:
        self._app = app
        # For each address: the calls it may still make, and the time of that count.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._open: Counter[str] = Counter()
        self._factor = read_address_factor()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 429 when its address has too many."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = client_address(scope)
        is_call = scope["method"] == "POST" and _CALLS.fullmatch(scope["path"])
        is_open_full = self._open[address] >= MAX_OPEN * self._factor
        if is_open_full or (is_call and not self._allow_call(address)):
            await send_answer(send, 429, BUSY, headers=((b"retry-after", b"5"),))
            return
        self._open[address] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]

    def _allow_call(self, address: str) -> bool:
        """Take one of the calls that an address has left (a token bucket)."""
        now = time.monotonic()
        most = CALLS_AT_ONCE * self._factor
        left, since = self._left.pop(address, (most, now))
        left = min(most, left + (now - since) * CALLS_PER_SECOND * self._factor)
        allowed = left >= 1
        self._left[address] = (left - allowed, now)
        while len(self._left) > MAX_ADDRESSES:
            self._left.popitem(last=False)
        return allowed
