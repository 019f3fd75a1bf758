"""Choosing torch's threads by the cores that are free.

Torch's threads spin while they wait for each other. On idle cores that is the fastest way; where
other programs use the cores, a thread that waits its turn keeps all others spinning, and two
threads take longer than one.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

# Linux writes how many threads run or wait for a core into the first, and into the second how much
# processor time a container may take of each period.
LOAD_FILE = Path("/proc/loadavg")
QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")

_lock = threading.Lock()
_users = 0
# What torch had before, and what was chosen last. torch keeps a number for each of Python's
# threads, so one of them may still have a number that was chosen for another.
_limit = _chosen = torch.get_num_threads()


@contextmanager
def fitting_threads() -> Iterator[None]:
    """Compute with as many of torch's threads as there are free cores, at least one.

    Never more than torch had before; outside of the context it has them all again. Where the system
    does not tell how busy it is, their number stays as it is.
    """
    global _users, _limit
    with _lock:
        if torch.get_num_threads() not in (_limit, _chosen):
            _limit = torch.get_num_threads()  # somebody else has set it
        _users += 1
    try:
        fit_threads()
        yield
    finally:
        with _lock:
            _users -= 1
        _set(_limit)


def fit_threads() -> None:
    """Choose again, inside of `fitting_threads`."""
    global _chosen
    if _users:
        _chosen = max(1, min(_limit, count_free_cores()))
        _set(_chosen)


def most_threads() -> int:
    """Torch's threads where all cores are free."""
    return _limit if _users else torch.get_num_threads()


def count_free_cores() -> int:
    """Count the cores that no other thread of the machine is using now, at most the container's."""
    cores = os.cpu_count() or 1
    try:
        running = int(LOAD_FILE.read_text("utf-8").split()[3].partition("/")[0])
        free = cores - (running - 1)  # this thread is one of them
    except (OSError, ValueError, IndexError):
        free = cores
    return min(free, _count_allowed_cores(cores))


def _count_allowed_cores(cores: int) -> int:
    try:
        quota, period = (int(number) for number in QUOTA_FILE.read_text("utf-8").split())
        return math.ceil(quota / period)
    except (OSError, ValueError):  # no file where there are no containers, "max" without a limit
        return cores


def _set(count: int) -> None:
    if count != torch.get_num_threads():
        torch.set_num_threads(count)
