"""Milvus, for real in its local form: the same client talks to a cluster."""

import datetime
import os
import signal
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec

import numpy as np
import pytest

from earthvlm.embeddings.dataset import write_embedding_dataset
from earthvlm.search.engines.exact import ExactEngine
from earthvlm.search.index import SceneFilter, SceneIndex
from tests.support.made_scenes import PROVENANCE, get_ids, make_rows, make_vectors
from tests.support.ports import free_port

pytestmark = pytest.mark.slow

if find_spec("milvus_lite") is None:  # whose import takes half a second in each process
    pytest.skip("the extra 'milvus' is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("milvus") / "data"
    rows = make_rows(40)
    for number, row in enumerate(rows):
        row["longitude"] = (150 + 60 / 39 * number + 180) % 360 - 180
        row["latitude"] = -60.0 + 3 * number
        row["date"] = datetime.date(1965 + 2 * number, 6, 15)
        row["source"] = 'ESA, "L2A"' if number % 2 else "Other\\more données"
    rows[39] |= {"longitude": None, "latitude": None, "date": None, "source": None}
    rows[7]["scene_embedding"] = None
    for row in rows:
        if row["image_id"] == "tile_08":
            row["caption"] = row["caption_embedding"] = None
    write_embedding_dataset(folder, rows, *PROVENANCE)
    return folder


@pytest.fixture(scope="module")
def index(dataset):
    index = SceneIndex.from_pretrained(dataset, engine=f"milvus:{dataset.parent / 'scenes.db'}")
    yield index
    index.engine.close()


FILTERS = [
    {},
    {"split": "examples"},
    {"bbox": (170, -90, -170, 90)},
    {"bbox": (-180, -30, 180, 10)},
    {"first_date": datetime.date(1969, 1, 1), "last_date": datetime.date(1999, 12, 31)},
    {"last_date": datetime.date(1969, 6, 15)},
    {"source": '"l2a"'},
    {"source": "\\more", "split": "tiles"},
    {"source": "données"},
    {"bbox": (0, 0, 1, 1)},
]


@pytest.mark.parametrize("where", FILTERS)
def test_milvus_finds_what_exact_search_finds(index, where):
    where = SceneFilter(**where)
    queries = make_vectors(3, 9)
    for space in ("scene", "caption"):
        for found, expected in zip(
            index.engine.search(space, queries, 8, where),
            ExactEngine(index.table).search(space, queries, 8, where),
            strict=True,
        ):
            assert found.rows.tolist() == expected.rows.tolist()
            np.testing.assert_allclose(found.similarities, expected.similarities, atol=2e-6)


def test_a_search_goes_through_milvus(index, dataset, embed_words, monkeypatch):
    embed_words(make_vectors(1, 9)[0])
    expected = SceneIndex.from_pretrained(dataset).search("a lake", k=5)
    monkeypatch.setattr(ExactEngine, "search", None)
    found = index.search("a lake", k=5)
    assert get_ids(found) == get_ids(expected)
    assert [r.caption_rank for r in found] == [r.caption_rank for r in expected]
    assert found.warning == ""
    with pytest.raises(ValueError, match="no split 'val'"):
        index.search("a lake", split="val")


def test_more_results_than_milvus_returns_are_refused(index):
    with pytest.raises(ValueError, match="at most 16,384 scenes for a search, and 16,385 were"):
        index.search(make_vectors(1, 9)[0], k=16_385)


def test_an_interrupted_collection_is_filled_again(dataset, index, tmp_path):
    from pymilvus import MilvusClient

    from earthvlm.search.engines.milvus_engine import MilvusEngine

    uri = str(tmp_path / "other.db")
    engine = MilvusEngine(index.table, uri)
    name = engine.collection("scene")
    client = MilvusClient(uri)
    client.delete(name, filter="row < 10")
    engine.close()
    engine = MilvusEngine(index.table, uri)
    (count,) = client.query(name, filter="", output_fields=["count(*)"])
    client.close()
    assert count["count(*)"] == 39  # one has no scene embedding
    engine.close()


def test_vectors_of_another_size_are_refused(index, tmp_path):
    from pymilvus import MilvusClient

    from earthvlm.search.engines.milvus_engine import MilvusEngine

    uri = str(tmp_path / "other.db")
    client = MilvusClient(uri)
    name = index.engine.collection("scene")
    client.create_collection(name, dimension=128, primary_field_name="row")
    client.close()
    with pytest.raises(ValueError, match="has vectors of 128 numbers, not 384"):
        MilvusEngine(index.table, uri)


def test_a_search_goes_on_when_milvus_goes_away(dataset, tmp_path):
    from pymilvus import MilvusClient

    index = SceneIndex.from_pretrained(dataset, engine=f"milvus:{tmp_path / 'gone.db'}")
    query = make_vectors(1, 9)[0]
    before = index.search(query)
    assert before.warning == ""
    client = MilvusClient(str(tmp_path / "gone.db"))
    client.drop_collection(index.engine.collection("scene"))
    client.close()
    found = index.search(query)
    assert get_ids(found) == get_ids(before)
    assert "gone.db does not answer" in found.warning and "\n" not in found.warning
    index.engine.close()


def test_a_server_that_is_not_there_is_named(dataset, monkeypatch):
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr("earthvlm.search.engines.milvus_engine.ANSWER_SECONDS", 1)
    with pytest.raises(ConnectionError, match=f"Milvus at {address} does not answer") as refusal:
        SceneIndex.from_pretrained(dataset, engine=f"milvus:{address}")
    assert "\n" not in str(refusal.value)


@pytest.fixture
def server(tmp_path) -> Iterator[tuple[str, subprocess.Popen]]:
    """Milvus in a process of its own, over the network; its address."""
    port = str(free_port())
    command = [sys.executable, "-u", "-m", "milvus_lite", "server", "--host", "127.0.0.1"]
    command += ["--data-dir", str(tmp_path / "server"), "--port", port]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert "listening" in process.stdout.readline()
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.communicate()


def test_search_is_exact_while_the_server_does_not_answer(dataset, server, monkeypatch):
    address, process = server
    index = SceneIndex.from_pretrained(dataset, engine=f"milvus:{address}")
    where, query = SceneFilter(split="examples"), make_vectors(1, 9)[0]
    before = index.search(query, where=where)
    assert before.warning == ""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)  # until then its threads can still answer
    with monkeypatch.context() as patch:
        patch.setattr("earthvlm.search.engines.milvus_engine.ANSWER_SECONDS", 0.5)
        silent = index.search(query, where=where)
    process.send_signal(signal.SIGCONT)
    back = index.search(query, where=where)
    process.kill()
    process.wait()
    monkeypatch.setattr("earthvlm.search.engines.milvus_engine.ANSWER_SECONDS", 0.5)
    gone = index.search(query, where=where)
    assert get_ids(before) == get_ids(silent) == get_ids(back) == get_ids(gone)
    assert back.warning == ""
    for found in (silent, gone):
        assert found.warning.startswith(f"Milvus at {address} does not answer (")
    index.engine.close()


@dataclass
class Gate:
    """A server in front of Milvus that lets those pass who give a token, as Milvus's own does.

    seen: the tokens that were given, "" where there was none.
    """

    target: str
    token: str
    seen: set[str] = field(default_factory=set)

    def service(self, details):
        import grpc

        given = dict(details.invocation_metadata).get("authorization", "")
        self.seen.add(b64decode(given).decode())

        def forward(request: bytes, context: grpc.ServicerContext) -> bytes:
            if b64decode(given).decode() != self.token:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure")
            with grpc.insecure_channel(self.target) as channel:
                try:
                    return channel.unary_unary(details.method)(request, timeout=20)
                except grpc.RpcError as error:  # such as a call that Milvus Lite does not know
                    context.abort(error.code(), error.details())

        return grpc.unary_unary_rpc_method_handler(forward)


@pytest.fixture
def gate(server) -> Iterator[tuple[str, Gate]]:
    """That server behind a gate; the gate's address."""
    import grpc

    gate = Gate(server[0].removeprefix("http://"), "reader:s3cret word")
    front = grpc.server(ThreadPoolExecutor(4))
    front.add_generic_rpc_handlers([gate])
    port = front.add_insecure_port("127.0.0.1:0")
    front.start()
    yield f"http://127.0.0.1:{port}", gate
    front.stop(None).wait(20)


def test_the_token_of_the_environment_reaches_milvus(dataset, gate, monkeypatch, capfd):
    address, asked = gate
    for wrong in (None, "reader:wrong"):
        monkeypatch.delenv("EARTHVLM_MILVUS_TOKEN", raising=False)
        if wrong is not None:
            monkeypatch.setenv("EARTHVLM_MILVUS_TOKEN", wrong)
        with pytest.raises(ConnectionError, match="set EARTHVLM_MILVUS_TOKEN to an API key") as no:
            SceneIndex.from_pretrained(dataset, engine=f"milvus:{address}")
        assert "wrong" not in str(no.value) and "\n" not in str(no.value)
    monkeypatch.setenv("EARTHVLM_MILVUS_TOKEN", asked.token)
    index = SceneIndex.from_pretrained(dataset, engine=f"milvus:{address}")
    found = index.search(make_vectors(1, 9)[0])
    assert len(found) == 12 and found.warning == ""
    assert asked.seen == {"", "reader:wrong", asked.token}
    assert "s3cret" not in "".join(capfd.readouterr()) + str(index.engine.__dict__)
    index.engine.close()


def test_a_password_in_the_address_is_refused(index):
    from earthvlm.search.engines.factory import make_engine

    with pytest.raises(ValueError, match="EARTHVLM_MILVUS_TOKEN") as refusal:
        make_engine("milvus:http://reader:s3cret@127.0.0.1:1", index.table)
    assert "s3cret" not in str(refusal.value)
