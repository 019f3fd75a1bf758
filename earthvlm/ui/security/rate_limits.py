"""Bounds on how often one address may call, and how many requests it may hold open."""

from __future__ import annotations

import re
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from earthvlm.serving.address_factor import read_address_factor

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

# A visitor who clicks fast makes two calls a second; a page makes a few when it opens.
CALLS_PER_SECOND, CALLS_AT_ONCE = 4.0, 60
# A page that is open holds two: its heartbeat, and the answers that stream to it.
MOST_OPEN = 120
ADDRESSES_KNOWN = 10_000
_CALLS = re.compile(r".*/(queue/join|(call|run|api)/.*|mcp(/.*)?)")


class RateLimits:
    """Middleware that answers 429 to an address that calls too often or holds too much open."""

    def __init__(self, app: App) -> None:
        self._app = app
        # By address: the calls it may still make, and when that was counted.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._open: Counter[str] = Counter()
        self._factor = read_address_factor()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 429 when its address has too many."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = (scope.get("client") or ("",))[0]
        is_call = scope["method"] == "POST" and _CALLS.fullmatch(scope["path"])
        is_open_full = self._open[address] >= MOST_OPEN * self._factor
        if is_open_full or (is_call and not self._allow_call(address)):
            await _refuse(send)
            return
        self._open[address] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]

    def _allow_call(self, address: str) -> bool:
        """Take one of the calls that an address has left; they come back with time."""
        now = time.monotonic()
        most = CALLS_AT_ONCE * self._factor
        left, since = self._left.pop(address, (most, now))
        left = min(most, left + (now - since) * CALLS_PER_SECOND * self._factor)
        allowed = left >= 1
        self._left[address] = (left - allowed, now)
        while len(self._left) > ADDRESSES_KNOWN:
            self._left.popitem(last=False)
        return allowed


async def _refuse(send: Send) -> None:
    text = b"Busy: too many calls from your address; try again in a few seconds."
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"5")]
    await send({"type": "http.response.start", "status": 429, "headers": headers})
    await send({"type": "http.response.body", "body": text})
