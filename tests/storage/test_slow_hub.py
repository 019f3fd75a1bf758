"""A Hub that is slow or down: one sentence in time, and no files given up that do move.

Measured with the limits of `earthvlm.storage.hub_fetch` (4.5 s for an answer, 30 s for the
next byte), on two cores at a load of 20, where a process that imports this takes 10 s to start,
which is included:

| the Hub | with Xet, the client alone | with Xet | plain HTTP, the client alone | plain HTTP |
|---|---|---|---|---|
| takes requests and never answers | 16 s | 15 s | 17 s | 15 s |
| storage takes requests and never answers | not ended after 1800 s | 51 s | 74 s | 49 s |
| storage answers 503 | 252 s, raw text | 50 s | 9 s | 12 s |
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from huggingface_hub import constants

from earthvlm.storage.hub import fetch, list_files
from tests.conftest import ask_hub_at, with_and_without_xet

pytestmark = pytest.mark.slow

NAME = "model.safetensors"


@pytest.fixture
def brief(monkeypatch) -> None:
    """Short limits, and the retries of hf_xet as they are by default."""
    monkeypatch.setattr(
        "earthvlm.storage.hub_fetch.ANSWER_SECONDS", 6.0
    )  # a process has to start within
    monkeypatch.setattr("earthvlm.storage.hub_fetch.STALL_SECONDS", 2.0)
    monkeypatch.delenv("HF_XET_CLIENT_RETRY_BASE_DELAY", raising=False)


def find_parts() -> list[Path]:
    return [*Path(constants.HF_HUB_CACHE).rglob("*.incomplete")]


@with_and_without_xet
def test_hanging_storage_is_given_up_in_one_sentence(hub, brief, monkeypatch):
    hub.repository("owner/name").commit({NAME: os.urandom(100_000), "config.json": b"{}"})
    hub.storage.hanging = True
    with pytest.raises(ConnectionError) as caught:
        fetch("owner/name", ["*"])
    assert str(caught.value) == (
        "The files of owner/name do not arrive: the Hub's storage sent nothing for 2 seconds. "
        "Try again later."
    )
    assert not find_parts()
    hub.storage.hanging = False
    monkeypatch.setattr("earthvlm.storage.hub_fetch.STALL_SECONDS", 60.0)  # of a busy machine
    assert (fetch("owner/name", ["*"]).folder / NAME).stat().st_size == 100_000


@with_and_without_xet
def test_failing_storage_is_one_sentence(hub, brief):
    hub.repository("owner/name").commit({NAME: os.urandom(100_000)})
    hub.storage.status = 503
    with pytest.raises(
        ConnectionError, match=r"^The (files|Hub's storage) of owner/name .+\.$"
    ) as e:
        fetch("owner/name", ["*"])
    assert "http" not in str(e.value) and "\n" not in str(e.value)
    assert not find_parts()


@with_and_without_xet
def test_slow_files_that_move_are_not_given_up(hub, monkeypatch):
    monkeypatch.setattr("earthvlm.storage.hub_fetch.STALL_SECONDS", 5.0)
    content = os.urandom(160_000)
    hub.repository("owner/name").commit({NAME: content})
    hub.storage.bytes_a_second = 20_000  # so 8 seconds, which is longer than the limit
    assert (fetch("owner/name", ["*"]).folder / NAME).read_bytes() == content


def test_hanging_hub_is_given_up_and_the_cache_is_used(hub, monkeypatch):
    hub.repository("owner/name").commit({NAME: os.urandom(1000)})
    first = fetch("owner/name", ["*"])
    hub.hanging = True
    monkeypatch.setattr("earthvlm.storage.hub_fetch.ANSWER_SECONDS", 0.5)
    assert fetch("owner/name", ["*"]) == first
    for ask in (fetch, list_files):
        with pytest.raises(ConnectionError, match=r"did not answer within 0\.5 seconds: try again"):
            ask("owner/other", ["*"])


@with_and_without_xet
def test_hub_that_hangs_after_it_named_the_commit_is_given_up(hub, brief):
    hub.repository("owner/name").commit({NAME: os.urandom(1000)})
    hub.hanging_paths = r".*/(tree|xet-read-token)/.*"
    with pytest.raises(ConnectionError, match=r"^The Hub did not list owner/name within 6 seconds"):
        fetch("owner/name", ["*"])
    hub.hanging_paths = r".*/(xet-read-token|resolve)/.*"
    with pytest.raises(ConnectionError, match=r"^The files of owner/name do not arrive"):
        fetch("owner/name", ["*"])


def test_no_server_is_one_sentence(hub, brief, monkeypatch):
    with socket.socket() as closed:  # an address at which nobody listens
        closed.bind(("127.0.0.1", 0))
        ask_hub_at(f"http://127.0.0.1:{closed.getsockname()[1]}", monkeypatch)
        with pytest.raises(ConnectionError, match=r"cannot be reached \(ConnectError\)\.$"):
            fetch("owner/name", ["*"])
