"""What goes wrong between a bridge and the Hub: each leaves it whole, and is one sentence."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from earthvlm.bridge.config import BRIDGE_FILES
from earthvlm.bridge.hub.publish import publish_bridge
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.embeddings.dataset import write_embedding_dataset
from earthvlm.search.index import SceneIndex
from earthvlm.storage.hub import fetch
from tests.conftest import ask_hub_at, with_and_without_xet, without_xet
from tests.support.made_scenes import PROVENANCE, make_rows

pytestmark = pytest.mark.slow


@pytest.fixture
def impatient(monkeypatch):
    """The Hub's client tries again as often as ever, but does not wait."""
    import huggingface_hub.utils._http as http

    monkeypatch.setattr(http.time, "sleep", lambda seconds: None)


@without_xet
@pytest.mark.one_setting
@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_push_cut_at_any_request_is_atomic(hub, saved, impatient, cut):
    publish_bridge(saved, "owner/whole")
    needed, cuts, hub.cut = hub.requests, 0, cut
    whole = hub.repositories["owner/whole"].files
    for allowed in range(needed):
        hub.requests_left = allowed
        try:
            publish_bridge(saved, "owner/bridge")
            break  # what exists already needs fewer requests
        except ConnectionError:
            cuts += 1
            if "owner/bridge" in hub.repositories:
                for files in hub.repositories["owner/bridge"].commits.values():
                    # an answer that was lost was done
                    assert not files or (files.keys() == whole.keys() and cut == "after")
    assert cuts >= 5
    hub.requests_left = None
    publish_bridge(saved, "owner/bridge")
    newest = hub.repositories["owner/bridge"].files
    assert newest.keys() == whole.keys()
    assert all(newest[name] == whole[name] for name in whole if name.endswith(".safetensors"))


@without_xet
def test_an_upload_cut_at_random_bytes_is_atomic(hub, saved, tiny_bridge, impatient, tmp_path):
    publish_bridge(saved, "owner/bridge")
    repository = hub.repositories["owner/bridge"]
    old = repository.refs["main"]
    with torch.no_grad():
        for parameter in tiny_bridge.parameters():
            parameter.add_(0.01)  # so that every file of weights is another
    tiny_bridge.save_pretrained(tmp_path / "next")
    before = hub.received
    publish_bridge(tmp_path / "next", "owner/bridge")
    new, total = repository.files.digests, hub.received - before
    assert new["fusion.safetensors"] != repository.commits[old].digests["fusion.safetensors"]
    del repository.commits[repository.refs["main"]]
    repository.refs["main"] = old
    for point in random.Random(0).sample(range(total), 10):
        hub.upload_left = point
        with pytest.raises(ConnectionError):
            publish_bridge(tmp_path / "next", "owner/bridge")
        assert repository.refs["main"] == old and list(repository.commits)[-1] == old
    hub.upload_left = None
    publish_bridge(tmp_path / "next", "owner/bridge")
    assert repository.files.digests == new


@without_xet
@pytest.mark.parametrize("status", [404, 409, 429, 500, 503])
def test_each_refusal_of_a_push_is_one_sentence(hub, saved, impatient, status):
    hub.failing = status
    with pytest.raises(ConnectionError) as caught:
        publish_bridge(saved, "owner/bridge")
    said = f"The Hub, where owner/bridge would go, answered {status}: try again later."
    assert str(caught.value) == said
    hub.failing = None
    publish_bridge(saved, "owner/bridge")


@pytest.fixture
def silent(hub, impatient, monkeypatch) -> Iterator[list[socket.socket]]:
    """A Hub that takes a connection and says nothing; the connections, of which it closes others.

    Whoever asks again, to wait for longer, is thus found out and not waited for.
    """
    asked: list[socket.socket] = []
    monkeypatch.setattr("earthvlm.storage.hub_fetch.ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def listen() -> None:
            with suppress(OSError):  # when it is closed
                while True:
                    connection, _ = listening.accept()
                    asked.append(connection)
                    if len(asked) > 1:
                        connection.close()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        ask_hub_at(f"http://127.0.0.1:{listening.getsockname()[1]}", monkeypatch)
        yield asked
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_push_to_a_hub_that_says_nothing_ends(silent, saved):
    with pytest.raises(ConnectionError, match=r"would go, cannot be reached \(.+\)\.$"):
        publish_bridge(saved, "owner/bridge")


@pytest.mark.parametrize(
    ("token", "said"),
    [("", "log in with `hf auth login`"), ("hf_wrong", "does not let you write to owner/bridge")],
)
def test_who_may_not_write_is_told_so_in_one_sentence(hub, saved, monkeypatch, token, said):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ValueError, match=said) as caught:
        publish_bridge(saved, "owner/bridge")
    assert "hf_" not in str(caught.value) and "\n" not in str(caught.value)


def test_who_asks_with_a_token_and_has_none_is_told_so(hub, monkeypatch):
    hub.repository("owner/bridge").commit({"config.json": b"{}"})
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(ValueError, match=r"^owner/bridge needs a token: log in with `hf auth"):
        fetch("owner/bridge", ["*"], token=True)


def test_a_private_repository_is_as_none_to_others(hub, saved, monkeypatch):
    publish_bridge(saved, "owner/bridge", private=True)
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(ValueError, match="no Hub repository of that name that you may read"):
        OlmoEarthVLMBridge.from_pretrained("owner/bridge", device="cpu")


def test_a_repository_of_something_else_is_no_bridge(hub):
    hub.repository("owner/other").commit({"config.json": b'{"model_type": "bert"}'})
    with pytest.raises(ValueError, match="is not a bridge's configuration"):
        OlmoEarthVLMBridge.from_pretrained("owner/other", device="cpu")
    hub.repository("owner/data").commit({"data.parquet": b"PAR1"})
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json: it is no bridge"):
        OlmoEarthVLMBridge.from_pretrained("owner/data", device="cpu")
    hub.repository("datasets/owner/scenes").commit({"data.parquet": b"PAR1"})
    with pytest.raises(
        ValueError, match=r"^There is no folder owner/scenes, and no Hub repository"
    ):
        OlmoEarthVLMBridge.from_pretrained("owner/scenes", device="cpu")


@with_and_without_xet
def test_a_damaged_bridge_is_not_used(hub, saved):
    publish_bridge(saved, "owner/bridge")
    repository = hub.repositories["owner/bridge"]
    short = repository.files["fusion.safetensors"][:-100]
    repository.commit({**repository.files, "fusion.safetensors": short})
    with pytest.raises(ValueError, match=r"fusion\.safetensors is damaged"):
        OlmoEarthVLMBridge.from_pretrained("owner/bridge", device="cpu")


def read_files(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@with_and_without_xet
def test_download_cut_at_a_request_ends_with_the_same_files(hub, saved, tmp_path, monkeypatch):
    publish_bridge(saved, "owner/bridge")
    hub.requests = 0
    whole = read_files(fetch("owner/bridge", BRIDGE_FILES).folder)
    needed = hub.requests
    assert len(whole) == 5 and needed > 10
    for allowed in (1, needed // 2, needed - 1):
        cache = {"cache_dir": tmp_path / str(allowed)}
        hub.requests_left = allowed
        with monkeypatch.context() as brief:
            brief.setattr("earthvlm.storage.hub_fetch.ANSWER_SECONDS", 3.0)
            brief.setattr("earthvlm.storage.hub_fetch.STALL_SECONDS", 3.0)
            with pytest.raises(ConnectionError):
                fetch("owner/bridge", BRIDGE_FILES, **cache)
        hub.requests_left = None
        assert read_files(fetch("owner/bridge", BRIDGE_FILES, **cache).folder) == whole


@with_and_without_xet
def test_download_cut_at_random_bytes_ends_with_the_same_files(hub, saved, tmp_path):
    publish_bridge(saved, "owner/bridge")
    whole = read_files(fetch("owner/bridge", BRIDGE_FILES).folder)
    for point in random.Random(0).sample(range(len(whole["fusion.safetensors"]) // 2), 3):
        hub.cut_after["fusion.safetensors"] = point
        cache = tmp_path / str(point)
        assert read_files(fetch("owner/bridge", BRIDGE_FILES, cache_dir=cache).folder) == whole
        assert not hub.cut_after


@with_and_without_xet
def test_damage_in_an_interrupted_download_is_not_used(hub, impatient):
    content = random.Random(0).randbytes(100_000)
    hub.repository("owner/name").commit({"model.safetensors": content, "config.json": b"{}"})
    hub.damaged["model.safetensors"] = 1
    hub.lost.add("config.json")
    with pytest.raises(ConnectionError, match="answered 500: try again later"):
        fetch("owner/name", ["*"])
    assert not hub.damaged["model.safetensors"]
    hub.lost.clear()
    assert (fetch("owner/name", ["*"]).folder / "model.safetensors").read_bytes() == content


def test_a_dataset_of_which_a_part_arrived_is_not_searched(hub, impatient, tmp_path):
    rows = make_rows(6)
    write_embedding_dataset(tmp_path, rows[:4], *PROVENANCE, name="a.parquet")
    write_embedding_dataset(tmp_path, rows[4:], *PROVENANCE, name="b.parquet")
    hub.repository("datasets/owner/scenes").commit(read_files(tmp_path))
    hub.lost.add("b.parquet")
    with pytest.raises(ConnectionError):
        SceneIndex.from_pretrained("owner/scenes")
    hub.failing = 503
    for options in ({}, {"local_files_only": True}):
        with pytest.raises(ConnectionError):
            SceneIndex.from_pretrained("owner/scenes", **options)
    hub.failing, hub.lost = None, set()
    assert len(SceneIndex.from_pretrained("owner/scenes")) == 6


def test_a_renamed_repository_is_pushed_to_by_its_old_name(hub, saved):
    publish_bridge(saved, "owner/new")
    hub.renamed["owner/old"] = "owner/new"
    first = OlmoEarthVLMBridge.from_pretrained("owner/old", device="cpu")
    repository = hub.repositories["owner/new"]
    assert first.commit == repository.refs["main"]
    assert publish_bridge(saved, "owner/old", revision="next").startswith(f"{hub.url}/owner/new/")
    assert "owner/old" not in hub.repositories  # it would hide the other from that name
    again = OlmoEarthVLMBridge.from_pretrained("owner/old", device="cpu", revision="next")
    assert again.commit == repository.refs["next"] != first.commit
    assert again.revision == first.revision


def test_without_any_network_what_was_fetched_still_answers(hub, saved, monkeypatch):
    publish_bridge(saved, "owner/bridge")
    first = OlmoEarthVLMBridge.from_pretrained("owner/bridge", device="cpu")
    with socket.socket() as closed:  # an address at which nobody listens
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        ask_hub_at(url, monkeypatch)
        again = OlmoEarthVLMBridge.from_pretrained("owner/bridge", device="cpu")
        assert (again.revision, again.commit) == (first.revision, first.commit)
        with pytest.raises(ConnectionError, match=r"cannot be reached \(ConnectError\)"):
            OlmoEarthVLMBridge.from_pretrained("owner/other", device="cpu")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert OlmoEarthVLMBridge.from_pretrained("owner/bridge", "cpu").commit == first.commit
