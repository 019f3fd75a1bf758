"""Torch's threads follow the cores that are free."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from earthvlm.models import threads
from earthvlm.models.threads import count_free_cores, fit_threads, fitting_threads, most_threads

CORES = 4


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """Four cores, on which nothing but this thread runs, and torch with as many threads."""
    monkeypatch.setattr(os, "cpu_count", lambda: CORES)
    monkeypatch.setattr(threads, "LOAD_FILE", tmp_path / "loadavg")
    monkeypatch.setattr(threads, "QUOTA_FILE", tmp_path / "cpu.max")
    set_running(1)
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    yield
    torch.set_num_threads(before)


def set_running(count: int) -> None:
    threads.LOAD_FILE.write_text(f"0.30 0.20 0.10 {count}/150 4321\n", "utf-8")


@pytest.mark.parametrize(("running", "expected"), [(1, 4), (2, 3), (4, 1), (9, 1)])
def test_threads_are_those_of_free_cores(running, expected):
    set_running(running)
    with fitting_threads():
        assert torch.get_num_threads() == expected
        assert most_threads() == CORES
    assert torch.get_num_threads() == most_threads() == CORES


def test_threads_change_while_it_computes():
    with fitting_threads():
        set_running(3)
        fit_threads()
        assert torch.get_num_threads() == 2
        set_running(1)
        fit_threads()
        assert torch.get_num_threads() == CORES


def test_a_container_takes_no_more_than_its_share():
    threads.QUOTA_FILE.write_text("150000 100000\n", "utf-8")
    assert count_free_cores() == 2
    threads.QUOTA_FILE.write_text("max 100000\n", "utf-8")
    assert count_free_cores() == CORES


def test_all_threads_where_the_system_tells_nothing():
    threads.LOAD_FILE.unlink()
    with fitting_threads():
        assert torch.get_num_threads() == CORES


def test_what_the_caller_has_set_is_the_limit():
    torch.set_num_threads(2)
    with fitting_threads():
        assert torch.get_num_threads() == 2
    torch.set_num_threads(3)
    fit_threads()  # outside it changes nothing
    assert torch.get_num_threads() == 3


def test_threads_that_overlap_leave_the_number_as_it_was():
    inside, leave = threading.Event(), threading.Event()

    def compute() -> None:
        with fitting_threads():
            inside.set()
            leave.wait()

    set_running(CORES)
    other = threading.Thread(target=compute)
    other.start()
    inside.wait()
    with fitting_threads():
        assert torch.get_num_threads() == 1
        leave.set()
        other.join()
    assert torch.get_num_threads() == CORES
    set_running(1)
    with fitting_threads():
        assert torch.get_num_threads() == CORES
