"""Engines: the exact one is exact whatever the vectors."""

from itertools import product

import numpy as np
import pytest

import earthvlm.search_engines as engines
from earthvlm.byte_codes import ByteCodes, multiplies_bytes
from earthvlm.embedding_schema import EMBEDDING_SCHEMA
from earthvlm.principal_parts import (
    MOST_DIRECTIONS,
    PrincipalParts,
    encode_vectors,
    turn_directions,
)
from earthvlm.scene_table import SPACES, SceneTable
from earthvlm.search_engines import ExactEngine
from earthvlm.search_query import SceneFilter
from tests.made_scenes import make_vectors


def make_table(vectors: np.ndarray, **columns) -> SceneTable:
    """A table whose scene and caption embeddings are the same vectors."""
    import pyarrow as pa

    count = len(vectors)
    values = {"image_id": [f"tile_{n:06d}" for n in range(count)], "split": ["tiles"] * count}
    values |= columns
    fields = [field for field in EMBEDDING_SCHEMA if field.name not in SPACES.values()]
    arrays = [pa.array(values.get(field.name, [None] * count), field.type) for field in fields]
    rows = pa.table(arrays, schema=pa.schema(fields))
    return SceneTable(rows, {space: vectors for space in SPACES})


def crowd(count: int, spread: float, seed: int = 0, own: float = 0.1) -> np.ndarray:
    """Vectors close around one direction, as those of a trained bridge are."""
    axes = make_vectors(24, 98)  # in which they differ, few beside the 384 there are
    apart = np.random.default_rng(seed).standard_normal((count, 24)) @ axes / np.sqrt(24)
    vectors = make_vectors(1, 99) + spread * (apart + own * make_vectors(count, seed))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


KINDS = {
    "apart": make_vectors(6000),
    "close": crowd(6000, 0.3),
    "narrow": crowd(6000, 0.3, own=0.02),
    "nearly one": crowd(6000, 1e-4),
    "all one": np.repeat(make_vectors(1), 6000, axis=0),
    "some twice": np.concatenate([make_vectors(3000), make_vectors(3000)]),
}


def find_all_directions(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = vectors.mean(axis=0)
    return mean, np.linalg.svd(vectors - mean, full_matrices=False)[2]


def encode_as_bytes(vectors: np.ndarray) -> ByteCodes:
    """In all directions, as a search takes them of vectors that are far apart."""
    mean, directions = find_all_directions(vectors)
    out = np.empty(vectors.shape, np.int8)
    return ByteCodes.encode(vectors, mean, turn_directions(directions), out)


def encode_as_some_bytes(vectors: np.ndarray) -> ByteCodes:
    """In half of the directions."""
    mean, directions = find_all_directions(vectors)
    out = np.empty((len(vectors), 192), np.int8)
    return ByteCodes.encode(vectors, mean, turn_directions(directions[:192]), out)


def encode_as_parts(vectors: np.ndarray) -> PrincipalParts:
    """In as many directions as a search would take at most, whether it would take them or not."""
    mean, directions = find_all_directions(vectors)
    out = np.empty((len(vectors), MOST_DIRECTIONS), np.float32)
    return PrincipalParts.encode(vectors, mean, directions[:MOST_DIRECTIONS], out)


def find_nearest(vectors: np.ndarray, query: np.ndarray, k: int, rows: np.ndarray) -> set[int]:
    """Rows among the k nearest, and those as near as the k-th, by plain float64 arithmetic."""
    similarity = np.round((vectors[rows].astype(np.float64) @ query), 6)
    return set(rows[similarity >= np.sort(similarity)[-k] - 2e-6])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("queries", [1, 5])
def test_exact_search_is_exact(kind, queries, monkeypatch):
    vectors = KINDS[kind].copy()
    vectors[::7] = np.nan
    splits = ["tiles" if number % 3 else "val" for number in range(len(vectors))]
    engine = ExactEngine(make_table(vectors, split=splits))
    monkeypatch.setattr(engines, "FIRST_PASS_FROM", 100)
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


class Doubtful:
    """Estimates that are off by all they may be: too low for the nearest, too high for others."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def compare(self, queries: np.ndarray):
        for query in queries:
            true = self.vectors @ query
            nearest = true >= np.sort(true)[-10]
            yield true + np.where(nearest, -0.2, 0.2).astype(np.float32), np.full(len(true), 0.2)


def test_whoever_may_be_among_the_nearest_is_compared():
    vectors, query = make_vectors(6000), make_vectors(1, 5)
    table = make_table(vectors)
    table._codes["scene"] = Doubtful(vectors)
    hits = ExactEngine(table).search("scene", query, 10, SceneFilter())[0]
    assert set(hits.rows) == find_nearest(vectors, query[0], 10, np.arange(len(vectors)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encode", [encode_as_bytes, encode_as_some_bytes, encode_as_parts])
def test_estimates_are_never_farther_off_than_they_say(kind, encode):
    vectors = KINDS[kind]
    queries = np.concatenate([make_vectors(4, 5), vectors[:4], vectors.mean(axis=0)[None]])
    estimates, off = map(np.array, zip(*encode(vectors).compare(queries), strict=True))
    true = queries.astype(np.float64) @ vectors.T
    assert (np.abs(estimates - true) <= off).all()
    # The bound is worth something: it is small beside how the similarities differ.
    if (encode, kind) in (
        (encode_as_bytes, "apart"),
        (encode_as_bytes, "close"),
        (encode_as_parts, "narrow"),
    ):
        assert off.mean() < 0.5 * true.std(axis=1).mean()


def test_bytes_keep_their_bound_for_queries_made_to_break_it():
    vectors = make_vectors(50)
    size = vectors.shape[1]
    codes = ByteCodes.encode(
        vectors,
        np.zeros(size, np.float32),
        np.eye(size, dtype=np.float32),
        np.empty(vectors.shape, np.int8),
    )
    for row, vector in enumerate(vectors):
        code = codes.codes[row].astype(np.float32)
        unsaid = vector - codes.bounds[0, row] * code
        # Along what the code leaves out, in steps that bytes say whole.
        along = np.rint(127 * unsaid / np.abs(unsaid).max())
        # One part so large that bytes leave all others out, which lie along the code.
        coarse = 0.45 * np.sign(code)
        coarse[np.abs(code).argmin()] = 127
        for query in (along, coarse):
            query /= np.linalg.norm(query)
            estimate, off = (each[row] for each in next(codes.compare(query[None])))
            wrong = abs(estimate - query.astype(np.float64) @ vector)
            assert 0.6 * off < wrong <= off


def test_narrow_vectors_are_read_by_their_parts_and_broad_ones_by_bytes():
    kinds = {kind: type(encode_vectors(vectors)) for kind, vectors in KINDS.items()}
    assert kinds == {
        "apart": ByteCodes,
        "close": ByteCodes,
        "narrow": PrincipalParts,
        "nearly one": PrincipalParts,
        "all one": PrincipalParts,
        "some twice": ByteCodes,
    }
    assert encode_vectors(KINDS["narrow"]).parts.shape == (6000, 32)


def test_this_machine_multiplies_bytes_or_says_so(monkeypatch):
    import torch

    expected = multiplies_bytes()
    assert isinstance(expected, bool)
    product = torch._int_mm
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: product(a, b).clamp(-32768, 32767))
    assert multiplies_bytes.__wrapped__() is False
    monkeypatch.setattr(engines, "multiplies_bytes", lambda: False)
    vectors = make_vectors(6000)
    hits = ExactEngine(make_table(vectors)).search("scene", vectors[:1], 3, SceneFilter())[0]
    assert hits.rows[0] == 0


def test_engines_have_names():
    table = make_table(make_vectors(20))
    assert engines.make_engine("auto", table).name == "exact"
    for name in ("hnsw", "milvus", "milvus:", "faiss"):
        with pytest.raises(ValueError, match="there is no engine .*; choose auto, exact"):
            engines.make_engine(name, table)


def test_beyond_a_million_rows_the_default_is_approximate(monkeypatch):
    pytest.importorskip("faiss")
    table = make_table(make_vectors(20))
    monkeypatch.setattr(engines, "EXACT_UP_TO", 10)
    assert engines.make_engine("auto", table).name == "faiss-ivf"
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert engines.make_engine("auto", table).name == "exact"


# faiss


@pytest.mark.parametrize(("kind", "own"), [("sq8", 0.1), *product(("ivf", "hnsw"), (0.1, 0.02))])
def test_faiss_finds_nearly_all(kind, own):
    pytest.importorskip("faiss")
    vectors = crowd(6000, 0.5, own=own)
    vectors[::7] = np.nan
    splits = ["tiles" if number % 3 else "val" for number in range(len(vectors))]
    table = make_table(vectors, split=splits)
    engine, exact = engines.make_engine(f"faiss-{kind}", table), ExactEngine(table)
    assert isinstance(table.codes("scene"), ByteCodes if own == 0.1 else PrincipalParts)
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


@pytest.mark.parametrize("kind", ["sq8", "ivf", "hnsw"])
def test_a_faiss_index_is_kept_and_built_again_when_damaged(kind, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    from earthvlm.faiss_engine import FaissEngine

    vectors = make_vectors(2000)
    table = make_table(vectors)
    built = []
    build = FaissEngine._build
    monkeypatch.setattr(FaissEngine, "_build", lambda *a: built.append(a) or build(*a))

    def find() -> list[int]:
        engine = FaissEngine(table, kind, tmp_path)
        return engine.search("scene", vectors[7:8], 3, SceneFilter())[0].rows.tolist()

    expected = find()
    assert expected[0] == 7
    assert find() == expected and len(built) == 1
    path = tmp_path / f"faiss-{kind}-scene.index"
    whole = path.read_bytes()
    damaged = (whole[:-100], whole[:5000] + b"\0" * 64 + whole[5064:], b"")
    for count, content in enumerate(damaged, start=2):
        path.write_bytes(content)
        assert find() == expected and len(built) == count
        assert path.read_bytes() == whole or kind == "hnsw"
    # One of other vectors is not used, whole as it is.
    other = FaissEngine(make_table(make_vectors(2000, 3)), kind, tmp_path)
    assert other.search("scene", vectors[7:8], 1, SceneFilter())[0].similarities[0] < 0.9
    assert len(built) == 5
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".index", ".json"]


def test_a_graph_over_other_directions_is_not_used(tmp_path):
    """Directions that are found anew may differ, and points with them."""
    pytest.importorskip("faiss")
    from earthvlm.faiss_engine import FaissEngine

    vectors, query = KINDS["narrow"], KINDS["narrow"][7:8]
    FaissEngine(make_table(vectors), "hnsw", tmp_path).search("scene", query, 3, SceneFilter())
    table = make_table(vectors)
    parts = table.codes("scene")
    parts.directions[:] = parts.directions[::-1].copy()
    parts.parts[:] = parts.parts[:, ::-1].copy()
    found = FaissEngine(table, "hnsw", tmp_path).search("scene", query, 3, SceneFilter())[0]
    assert found.rows[0] == 7
