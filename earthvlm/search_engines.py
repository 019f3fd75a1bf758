"""Engines that find the nearest vectors, behind one protocol, and the exact one.

An engine searches one space of a SceneTable, "scene" or "caption", and knows nothing of words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from earthvlm.scene_table import SceneTable
from earthvlm.search_query import SceneFilter

# A matrix product adds in an order that depends on the machine and its threads; similarities that
# agree to this many decimals count as equal, so that a search ranks alike everywhere.
SIMILARITY_DECIMALS = 6


@dataclass(frozen=True, eq=False)
class Hits:
    """Rows of a table, nearest first, and their cosines, rounded to SIMILARITY_DECIMALS."""

    rows: np.ndarray
    similarities: np.ndarray


class SearchEngine(Protocol):
    """What finds the nearest vectors."""

    name: str

    def search(self, space: str, queries: np.ndarray, k: int, where: SceneFilter) -> list[Hits]:
        """For each query `[Q, 384]` of unit length, the k nearest rows that fit `where`, or fewer.

        Rows as near as the k-th may come along. Raises ConnectionError, in one sentence, where the
        engine is elsewhere and does not answer.
        """
        ...


class ExactEngine:
    """Compares a query with every vector."""

    name = "exact"

    def __init__(self, table: SceneTable) -> None:
        self._table = table

    def search(self, space: str, queries: np.ndarray, k: int, where: SceneFilter) -> list[Hits]:
        """See SearchEngine."""
        vectors = self._table.vectors(space)
        selected = self._table.select(where)
        return [_take_nearest(vectors @ query, k, selected) for query in queries]


def _take_nearest(similarities: np.ndarray, k: int, selected: np.ndarray | None) -> Hits:
    takes_part = ~np.isnan(similarities)
    if selected is not None:
        takes_part &= selected
    rows = np.flatnonzero(takes_part)
    found = np.round(similarities[rows], SIMILARITY_DECIMALS)
    if len(rows) > k:
        near = found >= np.partition(found, len(rows) - k)[len(rows) - k]
        rows, found = rows[near], found[near]
    order = np.argsort(-found, kind="stable")
    return Hits(rows[order], found[order])
