"""An answer's text as it grows."""

from __future__ import annotations

import earthvlm.ui.tabs.streaming as streaming
from earthvlm.serving.service import Waiting


def test_text_accumulates_and_closes_its_source(monkeypatch):
    closed = []

    def speak():
        try:
            yield Waiting(1)
            yield from ("A ", "lake", ".")
        finally:
            closed.append(True)

    monkeypatch.setattr(streaming, "SECONDS_BETWEEN_UPDATES", 0)
    assert list(streaming.accumulate_text(speak())) == [
        Waiting(1),
        "A ",
        "A lake",
        "A lake.",
        "A lake.",
    ]
    monkeypatch.setattr(streaming, "SECONDS_BETWEEN_UPDATES", 3600)
    assert list(streaming.accumulate_text(speak()))[-1] == "A lake."
    reading = streaming.accumulate_text(speak())
    next(reading)
    reading.close()
    assert len(closed) == 3
