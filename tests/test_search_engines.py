"""Engines: the exact one is exact whatever the vectors."""

import numpy as np
import pytest

import earthvlm.search_engines as engines
from earthvlm.byte_codes import ByteCodes, multiplies_bytes
from earthvlm.embedding_dataset import EMBEDDING_SCHEMA
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


def crowd(count: int, spread: float, seed: int = 0) -> np.ndarray:
    """Vectors close around one direction, as those of a trained bridge are."""
    vectors = make_vectors(1, 99) + spread * make_vectors(count, seed)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


KINDS = {
    "apart": make_vectors(6000),
    "close": crowd(6000, 0.3),
    "nearly one": crowd(6000, 1e-4),
    "all one": np.repeat(make_vectors(1), 6000, axis=0),
    "some twice": np.concatenate([make_vectors(3000), make_vectors(3000)]),
}


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


@pytest.mark.parametrize("kind", KINDS)
def test_estimates_are_never_farther_off_than_they_say(kind):
    vectors = KINDS[kind]
    queries = np.concatenate([make_vectors(4, 5), vectors[:4]])
    estimates, off = ByteCodes.encode(vectors).compare(queries)
    true = queries.astype(np.float64) @ vectors.T
    assert (np.abs(estimates - true) <= off).all()
    # The bound is worth something: it is small beside how the similarities differ.
    if kind in ("apart", "close"):
        assert off.mean() < 0.5 * true.std(axis=1).mean()


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
