"""Engines: the exact one is exact whatever the vectors."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.embeddings.schema import EMBEDDING_SCHEMA
from earthvlm.embeddings.table import SPACES, SceneTable
from earthvlm.search.engines import exact, factory
from earthvlm.search.engines.exact import ExactEngine, compare_rows
from tests.support.made_scenes import make_vectors


def make_table(vectors: np.ndarray, **columns) -> SceneTable:
    """A table whose scene and caption embeddings are the same vectors."""
    import pyarrow as pa

    count = len(vectors)
    values = {"image_id": [f"tile_{n:06d}" for n in range(count)], "split": ["tiles"] * count}
    values |= columns
    fields = [field for field in EMBEDDING_SCHEMA if field.name not in SPACES.values()]
    arrays = [pa.array(values.get(field.name, [None] * count), field.type) for field in fields]
    rows = pa.table(arrays, schema=pa.schema(fields))
    return SceneTable(rows, dict.fromkeys(SPACES, vectors))


def crowd(count: int, spread: float, seed: int = 0, own: float = 0.1) -> np.ndarray:
    """Vectors close around one direction, as those of a trained bridge are."""
    axes = make_vectors(24, 98)  # in which they differ, of 384
    apart = np.random.default_rng(seed).standard_normal((count, 24)) @ axes / np.sqrt(24)
    vectors = make_vectors(1, 99) + spread * (apart + own * make_vectors(count, seed))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


KINDS = {
    "apart": lambda: make_vectors(6000),
    "close": lambda: crowd(6000, 0.3),
    "narrow": lambda: crowd(6000, 0.3, own=0.02),
    "nearly one": lambda: crowd(6000, 1e-4),
    "all one": lambda: np.repeat(make_vectors(1), 6000, axis=0),
    "some twice": lambda: np.concatenate([make_vectors(3000), make_vectors(3000)]),
}


def find_nearest(vectors: np.ndarray, query: np.ndarray, k: int, rows: np.ndarray) -> set[int]:
    """Rows among the k nearest, and those as near as the k-th, by plain float64 arithmetic."""
    similarity = np.round((vectors[rows].astype(np.float64) @ query), 6)
    return set(rows[similarity >= np.sort(similarity)[-k] - 2e-6])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("queries", [1, 5])
def test_exact_search_is_exact(kind, queries, monkeypatch):
    vectors = KINDS[kind]()
    vectors[::7] = np.nan
    splits = ["tiles" if number % 3 else "val" for number in range(len(vectors))]
    engine = ExactEngine(make_table(vectors, split=splits))
    # Several blocks of rows, and of queries.
    monkeypatch.setattr(exact, "ROWS_AT_ONCE", 1000)
    monkeypatch.setattr(exact, "SIMILARITIES_AT_ONCE", 15_000)
    wanted = np.concatenate([vectors[1:2], make_vectors(queries, 5)])[:queries]
    present = np.arange(len(vectors)) % 7 != 0
    for where, rows in (
        (SceneFilter(), np.flatnonzero(present)),
        (SceneFilter(split="val"), np.flatnonzero(present & (np.array(splits) == "val"))),
    ):
        for query, hits in zip(wanted, engine.search("scene", wanted, 10, where), strict=True):
            assert len(hits.rows) >= 10
            assert set(hits.rows) <= find_nearest(vectors, query, 10, rows)
            certain = vectors[hits.rows].astype(np.float64) @ query
            np.testing.assert_allclose(hits.similarities, certain, atol=2e-6)
            assert (np.diff(hits.similarities) <= 0).all()


def test_engines_have_names():
    table = make_table(make_vectors(20))
    assert factory.make_engine("auto", table).name == "exact"
    for name in ("hnsw", "milvus", "milvus:", "faiss"):
        with pytest.raises(ValueError, match="there is no engine .*; choose auto, exact"):
            factory.make_engine(name, table)


def test_beyond_a_million_rows_the_default_is_approximate(monkeypatch):
    pytest.importorskip("faiss")
    table = make_table(make_vectors(20))
    monkeypatch.setattr(factory, "EXACT_UP_TO", 10)
    assert factory.make_engine("auto", table).name == "faiss-ivf"
    monkeypatch.setattr(factory, "find_spec", lambda name: None)
    assert factory.make_engine("auto", table).name == "exact"


# faiss


@pytest.mark.parametrize("own", [0.1, 0.02])
@pytest.mark.parametrize("kind", ["sq8", "ivf", "hnsw"])
def test_faiss_finds_nearly_all(kind, own):
    pytest.importorskip("faiss")
    vectors = crowd(6000, 0.5, own=own)
    vectors[::7] = np.nan
    splits = ["tiles" if number % 3 else "val" for number in range(len(vectors))]
    table = make_table(vectors, split=splits)
    engine, exact = factory.make_engine(f"faiss-{kind}", table), ExactEngine(table)
    queries = crowd(40, 0.5, seed=5, own=own)
    for where in (SceneFilter(), SceneFilter(split="val")):
        found = engine.search("scene", queries, 10, where)
        expected = exact.search("scene", queries, 10, where)
        shared = [len(set(a.rows) & set(b.rows)) for a, b in zip(found, expected, strict=True)]
        assert np.mean(shared) >= 9.5
        for hits in found:
            assert len(hits.rows) == 10
            certain = vectors[hits.rows] @ queries[0] if hits is found[0] else None
            if certain is not None:
                np.testing.assert_allclose(hits.similarities, certain, atol=2e-6)
            assert all(splits[row] == "val" for row in hits.rows) or where == SceneFilter()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sq8", "ivf", "hnsw"])
def test_a_faiss_index_is_kept_and_built_again_when_damaged(kind, tmp_path):
    pytest.importorskip("faiss")
    from earthvlm.search.engines.faiss_engine import FaissEngine

    vectors = make_vectors(2000)
    table = make_table(vectors)
    path = tmp_path / f"faiss-{kind}-scene.index"

    def find() -> list[int]:
        engine = FaissEngine(table, kind, tmp_path)
        return engine.search("scene", vectors[7:8], 3, SceneFilter())[0].rows.tolist()

    expected = find()
    assert expected[0] == 7
    whole, built = path.read_bytes(), path.stat().st_ino
    assert find() == expected and path.stat().st_ino == built
    damaged = (whole[:-100], whole[:5000] + b"\0" * 64 + whole[5064:], b"")
    for content in damaged:
        path.write_bytes(content)
        assert find() == expected
        assert path.read_bytes() == whole or kind == "hnsw"
        assert path.stat().st_size == len(whole)
    # One of other vectors is not used, whole as it is.
    built = path.stat().st_ino
    other = FaissEngine(make_table(make_vectors(2000, 3)), kind, tmp_path)
    assert other.search("scene", vectors[7:8], 1, SceneFilter())[0].similarities[0] < 0.9
    assert path.stat().st_ino != built
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".index", ".json"]


class Watched(np.ndarray):
    """Vectors that count how many products with them are computed at the same time."""

    running, most = 0, 0

    def __matmul__(self, other):
        Watched.running += 1
        Watched.most = max(Watched.most, Watched.running)
        time.sleep(0.02)
        Watched.running -= 1
        return np.asarray(self) @ other


def test_products_of_several_clients_take_turns():
    """Their BLAS threads would wait for one another, at a twentieth of the speed."""
    vectors = np.eye(384, dtype=np.float32)
    queries = [vectors[row : row + 1] for row in range(6)]

    def search(query: np.ndarray) -> int:
        return compare_rows(vectors.view(Watched), np.arange(384), query, 1)[0].rows[0]

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(search, queries)) == list(range(6))
    assert Watched.most == 1
