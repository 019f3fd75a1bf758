"""The middleware without a server: hosts, origins, paths, sizes and MCP messages."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

import earthvlm.ui.security.middleware as middleware
from earthvlm.ui.page_parts import part_address, serve_parts
from earthvlm.ui.security.mcp_messages import (
    McpMessages,
    RefusedMessageError,
    check_messages,
    tool_names,
)
from earthvlm.ui.security.middleware import MAX_REQUEST_BYTES, Guard
from earthvlm.ui.security.origins import Access, name_caller
from tests.conftest import run_apart

JOIN = "/gradio_api/queue/join"
FILE = {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}


def ask_guard(
    path: str = JOIN,
    headers: dict[str, str] | None = None,
    chunks: tuple[bytes, ...] = (b"x",),
    method: str = "POST",
    client: str = "10.0.0.1",
) -> dict:
    """Send a request to an app behind the guard; return the answer, and what reached the app."""
    sent: list[dict] = []
    read: list[bytes] = []
    reached: dict = {}
    bodies = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    bodies[-1:] = [{**bodies[-1], "more_body": False}]

    async def app(scope, receive, send):
        reached.update(scope)
        for _ in chunks:
            read.append((await receive())["body"])
        cors = [(b"access-control-allow-origin", b"*")]
        await send({"type": "http.response.start", "status": 200, "headers": cors})
        await send({"type": "http.response.body", "body": b""})

    async def receive():
        return bodies.pop(0)

    async def send(message):
        sent.append(message)

    pairs = [
        (name.encode(), value.encode())
        for name, value in ({"host": "localhost:7860"} | (headers or {})).items()
        if value
    ]
    scope = {"type": "http", "path": path, "method": method, "client": (client, 1)}
    run_apart(Guard(McpMessages(app))({**scope, "headers": pairs}, receive, send))
    return {
        "status": sent[0]["status"],
        "headers": dict(sent[0]["headers"]),
        "text": sent[1]["body"].decode(),
        "read": read,
        "scope": reached,
    }


def test_large_requests_are_refused_before_they_are_read():
    declared = {"content-length": str(MAX_REQUEST_BYTES + 1)}
    assert ask_guard(JOIN, declared)["status"] == 413
    assert ask_guard("/gradio_api/upload", declared)["status"] == 200
    half = b"x" * (MAX_REQUEST_BYTES // 2 + 1)
    undeclared = ask_guard(JOIN, chunks=(half, half, half))
    assert undeclared["status"] == 413 and len(undeclared["read"]) == 1


@pytest.mark.parametrize("path", [JOIN, "/gradio_api/mcp/"])
def test_slow_bodies_are_refused(monkeypatch, path: str):
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.2)
    sent: list[dict] = []

    async def app(scope, receive, send):
        while (await receive())["more_body"]:
            pass
        raise AssertionError("the body was not whole")

    async def receive():
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "method": "POST", "client": ("10.0.0.1", 1)}
    headers = [(b"host", b"localhost")]
    run_apart(Guard(McpMessages(app))({**scope, "headers": headers}, receive, send))
    assert sent[0]["status"] == 408


def test_every_answer_has_security_headers():
    for answer in (ask_guard("/", method="GET"), ask_guard("/nothing", method="GET")):
        assert b"frame-ancestors" in answer["headers"][b"content-security-policy"]
        assert answer["headers"][b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:7860", "[::1]:7860", "192.168.1.5:80", "app.localhost"]
)
def test_own_names_and_addresses_are_answered(host: str):
    assert ask_guard(headers={"host": host})["status"] == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:7860", "localhost.evil"])
def test_unknown_host_name_is_refused(host: str):
    answer = ask_guard("/", {"host": host}, method="GET")
    assert answer["status"] == 403 and not answer["read"]
    assert "EARTHVLM_ALLOWED_HOSTS=" + host.partition(":")[0] in answer["text"]


def test_request_without_a_host_is_refused():
    assert ask_guard(headers={"host": ""})["status"] == 403


def test_hosts_are_added_by_the_environment(monkeypatch):
    monkeypatch.setenv("EARTHVLM_ALLOWED_HOSTS", "earth.example, Other.Example")
    assert ask_guard(headers={"host": "EARTH.example:443"})["status"] == 200
    assert ask_guard(headers={"host": "other.example"})["status"] == 200
    assert ask_guard(headers={"host": "x.other.example"})["status"] == 403


def test_space_is_served_under_its_own_name(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "owner/earth")
    monkeypatch.setenv("SPACE_HOST", "owner-earth.hf.space")
    own = {"host": "owner-earth.hf.space"}
    assert ask_guard(headers=own)["status"] == 200
    assert ask_guard(headers=own | {"origin": "https://owner-earth.hf.space"})["status"] == 200
    assert ask_guard(headers=own | {"origin": "https://huggingface.co"})["status"] == 200
    assert ask_guard(headers=own | {"origin": "https://evil.hf.space"})["status"] == 403
    assert ask_guard(headers={"host": "evil.example"})["status"] == 403


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:9999", "http://localhost"]
)
@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
def test_other_origins_cannot_change_anything(origin: str, method: str):
    answer = ask_guard(headers={"origin": origin}, method=method)
    assert answer["status"] == 403 and not answer["read"]


def test_other_origins_cannot_read_answers():
    answer = ask_guard("/config", {"origin": "https://evil.example"}, method="GET")
    assert not any(name.startswith(b"access-control") for name in answer["headers"])
    own = ask_guard("/config", {"origin": "http://localhost:7860"}, method="GET")
    assert own["status"] == 200 and b"access-control-allow-origin" in own["headers"]


def test_origins_are_added_by_the_environment(monkeypatch):
    asked = {"origin": "https://lab.example"}
    assert ask_guard(headers=asked)["status"] == 403
    monkeypatch.setenv("EARTHVLM_ALLOWED_ORIGINS", "https://lab.example/")
    assert ask_guard(headers=asked)["status"] == 200


def test_requests_without_an_origin_are_answered():
    assert ask_guard()["status"] == 200


@pytest.mark.parametrize(
    "path",
    [
        "component_server",
        "deep_link",
        "proxy=https://x.hf.space/a",
        "file=https://example.org/a.png",
        "file=file:///etc/passwd",
        "file/etc/passwd",
        "stream/a/close",
        "run-history/buckets",
        "vibe-code",
        "process_recording",
        "dev/reload",
        "api/ask",
    ],
)
def test_unused_gradio_routes_are_not_found(path: str):
    for method in ("GET", "POST"):
        answer = ask_guard(f"/gradio_api/{path}", method=method)
        assert answer["status"] == 404 and not answer["read"]


def test_parts_of_the_page_are_read_by_name_alone():
    assert ask_guard("/parts/leaflet.js", method="GET")["status"] == 200
    for path in ("/parts/../pyproject.toml", "/parts/a/b.js", "/parts/", "/parts/%2e%2e"):
        assert ask_guard(path, method="GET")["status"] == 404
    served = Starlette()
    serve_parts(served)
    with TestClient(served) as client:
        assert "Leaflet" in client.get("/parts/leaflet.js").text
        assert "export function showScene" in client.get(part_address("viewer.js")).text
        assert client.get("/parts/viewer.html").status_code == 404


def test_forwarded_address_needs_a_trusted_proxy(monkeypatch):
    forged = {"x-forwarded-for": "198.51.100.7, 203.0.113.9"}
    assert ask_guard(headers=forged)["scope"]["client"][0] == "10.0.0.1"
    for name, value in (("SPACE_ID", "owner/space"), ("EARTHVLM_TRUSTED_PROXY", "1")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert ask_guard(headers=forged)["scope"]["client"][0] == "203.0.113.9"
            assert ask_guard()["scope"]["client"][0] == "10.0.0.1"


def test_headers_that_claim_an_address_are_removed(monkeypatch):
    monkeypatch.setenv("EARTHVLM_TRUSTED_PROXY", "1")
    sent = {
        "x-forwarded-for": "203.0.113.9",
        "x-forwarded-host": "evil.example",
        "x-earthvlm-caller": "0 198.51.100.7",
    }
    scope = ask_guard(headers=sent)["scope"]
    assert scope["client"][0] == "203.0.113.9"
    assert not {name.decode() for name, _ in scope["headers"]} & set(sent)


def test_inner_mcp_calls_keep_the_callers_address():
    call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    scope = ask_guard("/gradio_api/mcp/", chunks=(call,), client="198.51.100.7")["scope"]
    inner = {name: value for name, value in scope["headers"] if name == b"x-earthvlm-caller"}
    assert inner == dict([name_caller("198.51.100.7")])
    headers = {name: [value] for name, value in inner.items()}
    assert Access().find_address("127.0.0.1", headers) == "198.51.100.7"


def call_tool(name: object, arguments: object = None) -> dict:
    parameters = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": parameters}


@pytest.mark.parametrize(
    "message",
    [
        call_tool("open_named", {"image_id": "a"}),
        call_tool("save_chat", {}),
        call_tool(["ask_scene"], {}),
        call_tool("describe_scene", {"image_id": FILE}),
        call_tool("describe_scene", {"image_id": [FILE]}),
        call_tool("describe_scene", [FILE]),
        {"id": 7, "method": "prompts/get", "params": {"name": "a", "arguments": {"words": "b"}}},
        {"id": 7, "method": "resources/read", "params": {"uri": "a://b"}},
        {"id": 7, "method": "tasks/get"},
        {"id": 7, "method": ["tools/call"]},
        {"id": 7, "result": {}},
    ],
)
def test_mcp_accepts_public_tools_and_flat_arguments(message: dict):
    fine = call_tool("search_scenes", {"words": "a lake"})
    with pytest.raises(RefusedMessageError) as refused:
        check_messages(json.dumps(message).encode())
    answer = json.loads(refused.value.to_json())
    assert answer["id"] == 7 and answer["error"]["message"].endswith(".")
    assert json.loads(check_messages(json.dumps(fine).encode())) == fine
    with pytest.raises(RefusedMessageError):  # several at once, as MCP has them no more
        check_messages(json.dumps([fine, fine]).encode())


def test_mcp_messages_are_passed_on_as_parsed():
    twice = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "method": "ping"}'
    assert check_messages(twice) == b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}'
    wide = json.dumps(call_tool("open_named", {})).encode("utf-16")
    for body in (wide, b"", b"not json", b'{"method": NaN}', b'"\\ud800"', b"[" * 100_000):
        with pytest.raises(RefusedMessageError):
            check_messages(body)


def test_refused_tool_name_is_cut():
    with pytest.raises(RefusedMessageError) as refused:
        check_messages(json.dumps(call_tool("x" * 5000, {})).encode())
    assert len(str(refused.value)) < 250


def test_space_prefixes_its_tools(monkeypatch):
    assert "ask_scene" in tool_names()
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("SPACE_ID", "owner/my-earth")
    assert "my_earth_ask_scene" in tool_names() and "ask_scene" not in tool_names()
