"""Memory that is free in this process, given back to the system."""

from __future__ import annotations

import contextlib
import ctypes


def trim_memory() -> None:
    """Give free memory back to the system, where the C library can (glibc's malloc_trim)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
