"""A flood of bad requests, and what it writes to the log."""

from __future__ import annotations

import io
import logging
import socket

import pytest

import earthvlm.ui.security.log_limits as log_limits
from earthvlm.ui.security.checked_page import CheckedPage
from earthvlm.ui.security.log_limits import LogLimit, limit_log
from tests.support.ports import free_port


@pytest.fixture
def log() -> logging.Logger:
    """A logger of its own whose lines go to `log.stream`, through the limit."""
    logger = logging.Logger("app")
    logger.stream = io.StringIO()
    handler = logging.StreamHandler(logger.stream)
    handler.addFilter(LogLimit())
    logger.addHandler(handler)
    return logger


def lines(logger: logging.Logger) -> list[str]:
    return logger.stream.getvalue().splitlines()


def test_one_place_writes_ten_records_a_minute(log: logging.Logger):
    for number in range(1000):
        log.warning(f"request {number} is bad")
    log.error("another place")
    assert lines(log) == [*(f"request {n} is bad" for n in range(10)), "another place"]


def test_next_minute_reports_dropped_records(log: logging.Logger, monkeypatch):
    for minute in range(3):
        monkeypatch.setattr(log_limits, "WINDOW_SECONDS", 0.0 if minute else 60.0)
        for number in range(20 if not minute else 1):
            log.warning("%s of %s is bad", number, minute)
    assert lines(log)[10:] == ["0 of 1 is bad (and 10 more like it before)", "0 of 2 is bad"]


def test_bad_requests_do_not_fill_the_log(capfd: pytest.CaptureFixture):
    logger = logging.getLogger("uvicorn.error")
    before = list(logger.filters)
    limit_log()
    with CheckedPage() as page:
        pass
    _, url, _ = page.launch(server_port=free_port(), prevent_thread_lock=True, quiet=True)
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    try:
        for _ in range(40):
            with socket.create_connection((host, int(port)), timeout=30) as connection:
                connection.sendall(b"\x00\x01\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.1 400")
    finally:
        page.close(verbose=False)
        logger.filters[:] = before
    assert capfd.readouterr().err.count("Invalid HTTP request") == 10
