"""What malformed MCP messages write to the log of a real server, and what well-formed ones get."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import gradio as gr
import httpx
import pytest

from earthvlm.ui.security.checked_page import CheckedPage
from tests.support.ports import free_port

pytest.importorskip("mcp", reason="MCP is an extra")

HEADERS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
WHOLE = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "a", "version": "1"},
}


@pytest.fixture(scope="module")
def mcp() -> Iterator[httpx.Client]:
    """A client of a page with one tool."""

    def search_scenes(words: str) -> str:
        """Find scenes.

        Args:
            words: what to find
        """
        return words

    with CheckedPage() as page:
        gr.api(search_scenes)
    _, url, _ = page.launch(
        server_port=free_port(), prevent_thread_lock=True, quiet=True, mcp_server=True
    )
    with httpx.Client(base_url=f"{url}gradio_api/mcp/", headers=HEADERS, timeout=30) as client:
        yield client
    page.close(verbose=False)


@pytest.mark.parametrize(
    "message",
    [
        WHOLE | {"params": {"cursor": {}}},
        WHOLE | {"jsonrpc": "1.0"},
        WHOLE | {"id": {}},
        WHOLE | {"id": None},
        WHOLE | {"method": "initialize"},
        WHOLE | {"method": "initialize", "params": {"protocolVersion": []}},
        WHOLE | {"method": "tools/call", "params": {"name": "search_scenes", "arguments": []}},
        WHOLE | {"method": "tools/call", "params": {"name": "search_scenes", "_meta": 1}},
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": []},
        {"jsonrpc": "2.0", "method": "notifications/none"},
        {"jsonrpc": "2.0", "method": "tools/list"},
        [WHOLE] * 1000,
    ],
    ids=lambda message: str(message)[:60],
)
def test_malformed_messages_fill_no_log(mcp: httpx.Client, caplog, capfd, message: object):
    caplog.set_level(logging.INFO)
    reply = mcp.post("", json=message)
    assert reply.json()["error"]["message"]
    own = ("httpx", "httpcore", "asyncio")
    lines = [r.getMessage() for r in caplog.records if r.name not in own]
    assert sum(len(line.splitlines()) for line in lines) < 3, lines
    printed = capfd.readouterr()
    assert len((printed.out + printed.err).splitlines()) < 3


@pytest.mark.parametrize(
    "message",
    [
        WHOLE | {"method": "initialize", "params": INITIALIZE},
        WHOLE,
        WHOLE | {"id": "text", "method": "ping", "params": {}},
        WHOLE | {"params": {"_meta": {"progressToken": 1}, "unknown": 1}},
    ],
    ids=lambda message: message["method"],
)
def test_whole_messages_are_answered(mcp: httpx.Client, message: dict):
    assert '"result"' in mcp.post("", json=message).text


def test_notifications_are_taken(mcp: httpx.Client):
    message = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert mcp.post("", json=message).status_code == 202
