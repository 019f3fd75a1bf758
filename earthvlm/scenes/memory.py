"""How this process uses memory, where the C library lets a program choose (glibc alone)."""

from __future__ import annotations

import contextlib
import ctypes

# glibc's mallopt(M_ARENA_MAX): by default it makes up to eight heaps a processor, and one heap
# cannot use memory that is free in another.
M_ARENA_MAX, HEAPS = -8, 2


def trim_memory() -> None:
    """Return free memory to the system, where the C library can (malloc_trim)."""
    _call("malloc_trim", 0)


def limit_heaps() -> None:
    """Let all threads share two heaps, where the C library has several (mallopt)."""
    _call("mallopt", M_ARENA_MAX, HEAPS)


def _call(name: str, *arguments: int) -> None:
    """Call a function of the C library; do nothing where it has none of that name."""
    # Windows has no library without a name (TypeError), macOS no such functions (AttributeError).
    with contextlib.suppress(AttributeError, OSError, TypeError):
        getattr(ctypes.CDLL(None), name)(*arguments)
