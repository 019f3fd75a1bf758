"""The policy of the page: the hashes of its inline scripts, and no leave for others."""

from __future__ import annotations

import base64
import hashlib

import pytest

from earthvlm.ui.security.middleware import HEADERS, Guard
from earthvlm.ui.security.page_policy import PagePolicy, find_scripts, make_policy
from tests.conftest import run_apart

PAGE = b"<html><script>one()</script><SCRIPT type=module>\r\ntwo()</SCRIPT><script src='/a.js'>"
PAGE += b"</script><p>text</p></html>"


def source(script: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"


def ask(path: str, pieces: list[bytes]) -> tuple[dict[bytes, list[bytes]], bytes]:
    """The headers and the body of a page that an application sends in pieces."""
    sent = []

    async def application(scope, receive, send):
        kind = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        for number, piece in enumerate(pieces, start=1):
            more = number < len(pieces)
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    app = Guard(PagePolicy(application, inserted=[b"later()"]))
    scope = {"type": "http", "path": path, "method": "GET", "client": ("10.0.0.1", 1)}
    run_apart(app({**scope, "headers": [(b"host", b"localhost")]}, receive, send))
    headers: dict[bytes, list[bytes]] = {}
    for name, value in sent[0]["headers"]:
        headers.setdefault(name, []).append(value)
    return headers, b"".join(message.get("body", b"") for message in sent[1:])


def test_inline_scripts_are_found():
    assert find_scripts(PAGE) == [b"one()", b"\ntwo()"]


@pytest.mark.parametrize("size", [1, 7, len(PAGE)])
def test_page_has_the_policy_of_its_scripts(size):
    pieces = [PAGE[start : start + size] for start in range(0, len(PAGE), size)]
    headers, body = ask("/", pieces)
    assert body == PAGE
    (policy,) = headers[b"content-security-policy"]
    for script in (b"one()", b"\ntwo()", b"later()"):
        assert source(script) in policy.decode()


def test_no_answer_lets_foreign_scripts_run():
    headers, _ = ask("/static/a.html", [PAGE])
    (policy,) = headers[b"content-security-policy"]
    assert policy.decode() == HEADERS["content-security-policy"] == make_policy()
    scripts = make_policy([b"one()"]).partition("script-src")[2].partition(";")[0]
    assert "'unsafe-inline'" not in scripts and source(b"one()") in scripts
