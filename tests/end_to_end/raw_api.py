"""The app's HTTP as a stranger speaks it, past what any client library would check."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import requests

SECONDS = 60
MCP_HEADERS = {"accept": "application/json, text/event-stream"}


@lru_cache
def read_config(app_url: str) -> dict[str, Any]:
    """What the app tells every page of its endpoints, private ones included."""
    return requests.get(f"{app_url}config", timeout=SECONDS).json()


def find_number(app_url: str, name: str) -> int:
    """The number of an endpoint, by its name."""
    dependencies = read_config(app_url)["dependencies"]
    return next(each["id"] for each in dependencies if each["api_name"] == name)


def call(app_url: str, name: str | int, data: Any, session: str = "test-abuse", **more: Any) -> str:
    """Call an endpoint by name or number, through the queue; return all that it answers."""
    number = find_number(app_url, name) if isinstance(name, str) else name
    body = {"data": data, "fn_index": number, "session_hash": session, **more}
    joined = requests.post(
        f"{app_url}gradio_api/queue/join",
        data=json.dumps(body),  # also what is no JSON: Infinity
        headers={"content-type": "application/json"},
        timeout=SECONDS,
    )
    if joined.status_code != 200:
        return joined.text
    stream = f"{app_url}gradio_api/queue/data?session_hash={session}"
    with requests.get(stream, stream=True, timeout=SECONDS) as events:
        said = []
        for line in events.iter_lines(decode_unicode=True):
            said.append(line)
            if "process_completed" in line or "unexpected_error" in line:
                break
    return "\n".join(said)


def read_error(said: str) -> str | None:
    """The error that `call` got, or None where the call went well."""
    for line in said.splitlines():
        if "process_completed" in line:
            event = json.loads(line.removeprefix("data: "))
            return None if event["success"] else event["output"].get("error")
    return said


class PageCalls:
    """Calls the page's own endpoints in one session, as its script does."""

    def __init__(self, app_url: str, session: str) -> None:
        self.app_url, self.session = app_url, session

    def upload(self, path: Path) -> dict[str, Any]:
        """Upload a file; return how a call names it."""
        with path.open("rb") as file:
            reply = requests.post(
                f"{self.app_url}gradio_api/upload", files={"files": file}, timeout=SECONDS
            )
        (stored,) = reply.json()
        return {"path": stored, "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}

    def stream(self, name: str, *arguments: Any) -> str:
        """Call an endpoint; return all that it answers."""
        said = call(self.app_url, name, list(arguments), self.session)
        assert read_error(said) is None, said
        return said

    def value(self, name: str, *arguments: Any) -> Any:
        """Call an endpoint; return its first result that is not the session."""
        lines = self.stream(name, *arguments).splitlines()
        done = next(line for line in lines if "process_completed" in line)
        data = json.loads(done.removeprefix("data: "))["output"]["data"]
        return next(value for value in data if value is not None)


def send_mcp(
    app_url: str, method: str, parameters: Any = None, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Send one MCP request without a client; return the JSON-RPC answer."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters or {}}
    reply = requests.post(
        f"{app_url}gradio_api/mcp/",
        data=json.dumps(message),
        headers={**MCP_HEADERS, "content-type": "application/json", **(headers or {})},
        timeout=SECONDS,
    )
    assert reply.status_code in (200, 202, 400), reply.text
    _, _, event = reply.text.rpartition("data: ")
    return json.loads(event or reply.text)
