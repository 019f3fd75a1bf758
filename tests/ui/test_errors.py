"""Errors as visitors read them."""

from __future__ import annotations

import logging

import pytest

from earthvlm.ui.errors import UNEXPECTED, report_error


def test_errors_become_one_sentence(caplog: pytest.LogCaptureFixture):
    error = report_error(ValueError("the file is empty; give another"))
    assert error.message == "The file is empty; give another." and not caplog.text
    with caplog.at_level(logging.ERROR):
        assert report_error(RuntimeError("secret detail")).message == UNEXPECTED
    assert "secret detail" in caplog.text
