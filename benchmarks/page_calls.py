"""Calls of the app without a browser: its endpoints for programs, and its own events."""

from __future__ import annotations

import uuid
from typing import Any

import httpx


async def call(client: httpx.AsyncClient, name: str, data: list) -> str:
    """Call an endpoint and return the last that it says: "data: [...]", or how it was refused."""
    try:
        return await _call(client, name, data)
    except httpx.HTTPError as error:
        return f"error {type(error).__name__}"


async def _call(client: httpx.AsyncClient, name: str, data: list) -> str:
    asked = await client.post(f"call/{name}", json={"data": data})
    if asked.status_code != 200:
        return f"{asked.status_code} {asked.text}"
    last, event = "", ""
    async with client.stream("GET", f"call/{name}/{asked.json()['event_id']}") as reply:
        async for line in reply.aiter_lines():
            event = line if line.startswith("event:") else event
            last = line or last
    return last if "complete" in event else f"error {last}"


async def send_event(client: httpx.AsyncClient, body: dict[str, Any]) -> str:
    """Send an event of the page and return the message of its end, or how it was refused."""
    asked = await client.post("queue/join", json=body)
    if asked.status_code != 200:
        return f"{asked.status_code} {asked.text}"
    session = {"session_hash": body["session_hash"]}
    async with client.stream("GET", "queue/data", params=session) as reply:
        async for line in reply.aiter_lines():
            if '"process_completed"' in line:
                return line.replace(" ", "")
    return "the stream ended"


class PageEvents:
    """The page's own events, which programs are not offered and an attacker can send all the same.

    config: what the page loads.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._events = {event["api_name"]: event for event in config["dependencies"]}
        self._components = {each["id"]: each for each in config["components"]}

    def body(self, name: str, words: str = "", file: dict[str, Any] | None = None) -> dict:
        """An event in a session that is made up, with the first text and the file given."""
        texts = [words]
        data: list[Any] = []
        for number in self._events[name]["inputs"]:
            component = self._components[number]
            if component["type"] in ("file", "uploadbutton"):
                data.append([file])
            elif component["type"] == "textbox" and texts:
                data.append(texts.pop())
            else:
                data.append(component["props"].get("value"))
        session = uuid.uuid4().hex
        return {"data": data, "fn_index": self._events[name]["id"], "session_hash": session}
