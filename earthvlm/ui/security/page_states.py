"""What Gradio keeps of each session, forgotten minutes after nobody holds the session open.

Gradio keeps the last 1,000 sessions, and what 2,000 were sent and have not read. Every call of a
program, and every made-up session, is one. For each it would describe the whole page (250 KB, and
19 ms in which nobody else is answered).
"""

from __future__ import annotations

import datetime
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gradio.state_holder import SessionState, StateHolder

from earthvlm.scenes.memory import trim_memory

if TYPE_CHECKING:
    from gradio.routes import App

UNATTENDED_SECONDS = 300.0  # as a page that was closed; see CLOSED_SECONDS
SECONDS_BETWEEN_SWEEPS = 10.0
# The requests that a page, or a client, holds open.
_HELD = re.compile(r".*/heartbeat/([^/]+)/?|.*/queue/data\?.*?session_hash=([^&]+).*")


class PageStates(StateHolder):
    """The states of sessions; `attended` counts the requests that hold each session open."""

    def __init__(self) -> None:
        super().__init__()
        self.attended: Counter[str] = Counter()
        self._next_sweep = 0.0

    def __getitem__(self, session_id: str) -> SessionState:
        """Return a session's state, and make it where there is none.

        The page is not described in it: only deep links need that, which are not served here.
        """
        if session_id not in self.session_data:
            without_page = SimpleNamespace(default_config=self.blocks.default_config, blocks={})
            self.session_data[session_id] = SessionState(without_page)
        return super().__getitem__(session_id)

    def delete_all_expired_state(self) -> None:
        """Delete what has expired, which Gradio asks for every second."""
        if time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + SECONDS_BETWEEN_SWEEPS
        super().delete_all_expired_state()
        oldest = datetime.datetime.now() - datetime.timedelta(seconds=UNATTENDED_SECONDS)
        queue = self.blocks._queue  # noqa: SLF001  Gradio has no other way to it
        waiting = [
            event for each in queue.event_queue_per_concurrency_id.values() for event in each.queue
        ]
        working = [event for job in queue.active_jobs if job for event in job]
        kept = {event.session_hash for event in (*waiting, *working)} | set(self.attended)
        unused = [s for s, used in list(self.time_last_used.items()) if used < oldest]
        forgotten = [session for session in unused if session not in kept]
        for session in forgotten:
            self.delete_state(session)
            self.session_data.pop(session, None)
            self.time_last_used.pop(session, None)
            queue.pending_messages_per_session.pop(session, None)
            queue.pending_event_ids_session.pop(session, None)
        if forgotten:
            trim_memory()


class AttendedSessions:
    """Middleware that counts the requests that hold a session open."""

    def __init__(self, app: Callable[..., Awaitable[None]], attended: Counter[str]) -> None:
        self._app, self._attended = app, attended

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Pass a request on, and count it while it is held open."""
        target = ""
        if scope["type"] == "http" and scope["method"] == "GET":
            target = f"{scope['path']}?{scope.get('query_string', b'').decode('latin-1')}"
        held = _HELD.fullmatch(target.removesuffix("?"))
        if held is None:
            await self._app(scope, receive, send)
            return
        session = held[1] or held[2]
        self._attended[session] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._attended[session] -= 1
            if not self._attended[session]:
                del self._attended[session]


def forget_unattended(app: App) -> None:
    """Let an app that was made, and not started, forget sessions that nobody holds open."""
    states = PageStates()
    states.set_blocks(app.get_blocks())
    app.state_holder = states
    app.add_middleware(AttendedSessions, attended=states.attended)
