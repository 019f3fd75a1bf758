"""A bound on the log, which strangers' requests would fill otherwise."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

RECORDS_PER_WINDOW, WINDOW_SECONDS = 10, 60.0  # of one place in the code


class LogLimit(logging.Filter):
    """Pass a bounded number of records a minute from each place in the code that logs."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: Counter[tuple[str, int]] = Counter()
        self._left_out: Counter[tuple[str, int]] = Counter()
        self._since = time.monotonic()
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written, after it says how many like it were left out."""
        place = (record.pathname, record.lineno)
        with self._lock:
            if time.monotonic() - self._since > WINDOW_SECONDS:
                self._seen.clear()
                self._since = time.monotonic()
            self._seen[place] += 1
            if self._seen[place] > RECORDS_PER_WINDOW:
                self._left_out[place] += 1
                return False
            left_out = self._left_out.pop(place, 0)
        if left_out:
            record.msg = f"{record.getMessage()} (and {left_out:,} more like it before)"
            record.args = ()
        return True


def limit_log() -> None:
    """Bound what the root logger's handlers and uvicorn write; call it once they are set up."""
    limit = LogLimit()
    for handler in logging.getLogger().handlers:
        handler.addFilter(limit)
    # Uvicorn has handlers of its own, which it sets up later.
    logging.getLogger("uvicorn.error").addFilter(limit)
