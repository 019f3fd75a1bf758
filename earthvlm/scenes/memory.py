"""Return free memory of this process to the system."""

from __future__ import annotations

import contextlib
import ctypes


def trim_memory() -> None:
    """Return free memory to the system, where the C library can (glibc's malloc_trim)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
