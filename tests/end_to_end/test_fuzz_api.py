"""A few random calls to the app; `python -m tests.support.fuzz_api --calls 10000` makes more."""

from __future__ import annotations

import pytest

import earthvlm.ui.security.rate_limits as rate_limits
from tests.end_to_end.conftest import END_TO_END
from tests.support.fuzz_api import Fuzzer, find_wrong_lines

pytestmark = END_TO_END


@pytest.fixture(autouse=True)
def call_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lift the rate limit, because the checks behind it have to hold without it."""
    monkeypatch.setattr(rate_limits, "CALLS_PER_SECOND", 1e6)


def test_random_calls_get_sentences(app_url: str, capfd: pytest.CaptureFixture):
    findings = Fuzzer(app_url).run(150)
    assert findings.calls.total() == 150 and len(findings.statuses) > 3
    assert not findings.wrong
    printed = capfd.readouterr()
    assert not find_wrong_lines(printed.out + printed.err)


def test_fuzzer_finds_a_traceback_in_a_log():
    log = "fine\nWARNING x: y\nTraceback (most recent call last):\n  File\nKeyError: 'a'"
    assert len(find_wrong_lines(log)) == 1
    assert not find_wrong_lines("WARNING x: y\n127.0.0.1 GET / 200")
