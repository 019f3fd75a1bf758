"""How often one address may call, on a clock that the tests turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace

import pytest

from earthvlm.ui.security import rate_limits
from earthvlm.ui.security.rate_limits import RateLimits
from tests.conftest import run_apart

CALL = "/gradio_api/queue/join"


class Clock:
    """Seconds that pass when a test says so, and the answers that calls get meanwhile."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.limits = RateLimits(self._app)

    async def _app(self, scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200})

    def call(self, address: str, times: int = 1, path: str = CALL, method: str = "POST") -> None:
        async def send(message) -> None:
            if "status" in message:
                self.statuses[address, message["status"]] += 1

        async def call_all() -> None:
            scope = {"type": "http", "method": method, "path": path, "client": (address, 1)}
            for _ in range(times):
                await self.limits(scope, None, send)

        run_apart(call_all())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate_limits, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    monkeypatch.setattr(rate_limits, "CALLS_AT_ONCE", 60)  # others lift it for their session
    return clock


def test_a_fast_visitor_is_never_refused(clock: Clock):
    for _ in range(2):  # two tabs
        clock.call("visitor", 4)
        clock.call("visitor", 12, "/gradio_api/file=/tmp/a.png", "GET")
    for _ in range(83):  # a scene opened by each click, and what follows it
        clock.seconds += 0.5
        clock.call("visitor", 2)
    for _ in range(30):  # filters typed, each with a search
        clock.seconds += 0.5
        clock.call("visitor")
    clock.call("visitor", path="/gradio_api/upload")
    assert set(clock.statuses) == {("visitor", 200)}


def test_a_flooder_gets_four_calls_a_second(clock: Clock):
    for _ in range(60 * 25):
        clock.seconds += 1 / 25
        clock.call("flooder")
    assert clock.statuses["flooder", 200] <= 60 + 4 * 60
    clock.call("visitor")
    assert clock.statuses["visitor", 200] == 1
    clock.seconds += 15
    clock.call("flooder", 61)
    assert clock.statuses["flooder", 200] <= 60 + 4 * 75


def test_held_requests_are_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rate_limits, "MAX_OPEN", 5)

    async def hold() -> list[int]:
        released, statuses = asyncio.Event(), []

        async def app(scope, receive, send) -> None:
            await released.wait()

        async def send(message) -> None:
            statuses.append(message.get("status"))

        limits = RateLimits(app)
        scope = {"type": "http", "method": "GET", "path": "/a", "client": ("a", 1)}
        held = [asyncio.create_task(limits(scope, None, send)) for _ in range(7)]
        await asyncio.sleep(0)
        released.set()
        await asyncio.gather(*held)
        await limits(scope, None, send)  # free again
        return [status for status in statuses if status]

    assert run_apart(hold()) == [429, 429]
