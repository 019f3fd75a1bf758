"""The variables that raise the bounds of one address and of uploads."""

from __future__ import annotations

import pytest

from earthvlm.serving.owner_limits import (
    ADDRESS_FACTOR,
    UPLOAD_MB,
    read_address_factor,
    read_upload_mb,
)
from earthvlm.serving.service import SceneService
from earthvlm.ui.security import rate_limits, upload_limits
from earthvlm.ui.security.middleware import Guard
from earthvlm.ui.security.upload_limits import UploadLimits, UploadRefusedError, Uploads
from tests.conftest import run_apart


@pytest.mark.parametrize("text", ["0", "-5", "many", "nan", "inf"])
def test_a_wrong_factor_is_refused(monkeypatch, text: str):
    monkeypatch.setenv(ADDRESS_FACTOR, text)
    with pytest.raises(ValueError, match=f"{ADDRESS_FACTOR} is '{text}'; give a number"):
        read_address_factor()


@pytest.mark.parametrize(("factor", "calls"), [("", 3), ("5", 15)])
def test_the_factor_raises_the_bounds(monkeypatch, factor: str, calls: int):
    monkeypatch.setenv(ADDRESS_FACTOR, factor)
    monkeypatch.setattr(rate_limits, "CALLS_AT_ONCE", 3)
    monkeypatch.setattr(rate_limits, "CALLS_PER_SECOND", 0.0)
    statuses: list[int] = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})

    async def send(message):
        statuses.append(message.get("status", 0))

    async def call_often() -> None:
        limits = rate_limits.RateLimits(app)
        scope = {"type": "http", "method": "POST", "path": "/queue/join", "client": ("a", 1)}
        for _ in range(20):
            await limits(scope, None, send)

    run_apart(call_often())
    assert statuses.count(200) == calls


def test_a_class_behind_one_address_asks_and_uploads_at_once(monkeypatch):
    monkeypatch.setattr(upload_limits, "UPLOADS_AT_ONCE", 100)
    monkeypatch.setenv(ADDRESS_FACTOR, "5")
    service, uploads = SceneService(None, None), Uploads()
    for number in range(16):
        service.question_queue.join(f"student {number}", "10.0.0.1")
    for _ in range(10):
        uploads.begin("10.0.0.1", 1000)
    with pytest.raises(UploadRefusedError):
        uploads.begin("10.0.0.1", 1000)


@pytest.mark.parametrize("text", ["0", "63", "-5", "64.5", "many"])
def test_a_wrong_size_of_uploads_is_refused(monkeypatch, text: str):
    monkeypatch.setenv(UPLOAD_MB, text)
    with pytest.raises(ValueError, match=f"{UPLOAD_MB} is '{text}'; give a whole number from 64"):
        read_upload_mb()


@pytest.mark.parametrize(("size", "allowed"), [("", False), ("2000", True)])
def test_whole_products_are_taken_where_the_owner_wants(monkeypatch, size: str, allowed: bool):
    monkeypatch.setenv(UPLOAD_MB, size)
    statuses: list[int] = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        statuses.append(message.get("status", statuses[-1] if statuses else 0))

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/gradio_api/upload",
        "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"127.0.0.1"), (b"content-length", str(10**9).encode())],
    }
    run_apart(Guard(UploadLimits(app, Uploads()))(scope, None, send))
    assert (statuses[0] == 200) == allowed
