"""The exact search engine: one matrix product over all vectors."""

from __future__ import annotations

import numpy as np

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.embeddings.table import SceneTable
from earthvlm.search.engines.engine import SIMILARITY_DECIMALS, Hits
from earthvlm.search.one_product import ONE_PRODUCT

SIMILARITIES_AT_ONCE = 2**24  # queries are split into groups whose similarities take 64 MB
ROWS_AT_ONCE = 2**17  # of which a filter has 200 MB copied


class ExactEngine:
    """Compares each query with every vector that matches the filter."""

    name = "exact"

    def __init__(self, table: SceneTable) -> None:
        self._table = table

    def search(self, space: str, queries: np.ndarray, k: int, where: SceneFilter) -> list[Hits]:
        """See SearchEngine."""
        vectors, rows = self._table.vectors(space), select_rows(self._table, space, where)
        group = max(1, SIMILARITIES_AT_ONCE // max(1, len(rows)))
        groups = [queries[first : first + group] for first in range(0, len(queries), group)]
        return [hits for each in groups for hits in compare_rows(vectors, rows, each, k)]


def select_rows(table: SceneTable, space: str, where: SceneFilter) -> np.ndarray:
    """Return the rows that match a filter and have a vector of a space, in order."""
    selected = table.select(where)
    return (
        table.rows(space) if selected is None else np.flatnonzero(table.present(space) & selected)
    )


def compare_rows(vectors: np.ndarray, rows: np.ndarray, queries: np.ndarray, k: int) -> list[Hits]:
    """Find the k of some rows that are nearest to each query `[Q, 384]`, with ties of the k-th."""
    everywhere = len(rows) == len(vectors)
    similarities = np.empty((len(queries), len(rows)), np.float32)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        block = slice(first, first + ROWS_AT_ONCE)
        with ONE_PRODUCT:  # the copy too, so that there is one at a time
            compared = vectors[block] if everywhere else vectors[rows[block]]
            # For one query, a product with a vector is faster: it is limited by memory alone.
            product = (compared @ queries[0])[None] if len(queries) == 1 else queries @ compared.T
        similarities[:, block] = product
    return [_select_nearest(rows, each, k) for each in similarities]


def _select_nearest(rows: np.ndarray, similarities: np.ndarray, k: int) -> Hits:
    similarities = np.round(similarities, SIMILARITY_DECIMALS)
    if len(rows) > k:
        near = similarities >= np.partition(similarities, len(rows) - k)[len(rows) - k]
        rows, similarities = rows[near], similarities[near]
    order = np.argsort(-similarities, kind="stable")
    return Hits(rows[order], similarities[order])
