"""Sessions that nobody holds open are forgotten by a real server; open pages are kept."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import gradio as gr
import httpx
import pytest

from earthvlm.ui.security import page_states
from earthvlm.ui.security.checked_page import CheckedPage
from tests.support.ports import free_port

PATIENCE_SECONDS = 30.0


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[CheckedPage, str]]:
    """A page that counts its visitor's calls, and its address."""
    monkeypatch.setattr(page_states, "UNATTENDED_SECONDS", 0.5)
    monkeypatch.setattr(page_states, "SECONDS_BETWEEN_SWEEPS", 0.1)

    def count(calls: int) -> tuple[int, int]:
        return calls + 1, calls + 1

    with CheckedPage() as page:
        calls, shown, button = gr.State(0), gr.Number(), gr.Button()
        button.click(count, calls, [calls, shown], api_name="count")
    _, url, _ = page.launch(server_port=free_port(), prevent_thread_lock=True, quiet=True)
    yield page, f"{url}gradio_api/"
    page.close(verbose=False)


def join(client: httpx.Client, session: str) -> None:
    body = {"data": [None], "fn_index": 0, "session_hash": session}
    assert client.post("queue/join", json=body).status_code == 200


def wait_until(happened) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_made_up_sessions_are_forgotten(page):
    blocks, url = page
    states, queue = blocks.state_holder, blocks._queue
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:
        for _ in range(20):
            join(client, uuid.uuid4().hex)
        assert client.post("call/count", json={"data": []}).status_code == 200
        wait_until(lambda: not states.session_data)
        assert not states.time_last_used and not queue.pending_event_ids_session
        assert not queue.pending_messages_per_session


def test_a_session_does_not_describe_the_page(page):
    blocks, url = page
    with (
        httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client,
        client.stream("GET", "heartbeat/mine"),
    ):
        for _ in range(3):
            join(client, "mine")
        wait_until(lambda: 3 in blocks.state_holder["mine"].state_data.values())
        assert len(blocks.state_holder["mine"].config_values) < len(blocks.blocks)


def test_open_pages_are_kept(page):
    blocks, url = page
    states = blocks.state_holder
    with (
        httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client,
        client.stream("GET", "heartbeat/mine"),
    ):
        join(client, "mine")
        wait_until(lambda: "mine" in states)
        join(client, "other")
        wait_until(lambda: "other" in states)
        wait_until(lambda: "other" not in states)
        assert "mine" in states and states.attended == {"mine": 1}
    wait_until(lambda: not states.session_data and not states.attended)
