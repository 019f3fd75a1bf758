"""SearchEngine: the protocol of the engines that find the nearest vectors.

An engine searches one space of a SceneTable, "scene" or "caption". Queries are vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from earthvlm.embeddings.filters import SceneFilter

# The order of a matrix product's additions depends on the machine and its threads. Similarities
# that agree to this many decimals count as equal, so that results have the same order everywhere.
SIMILARITY_DECIMALS = 6


@dataclass(frozen=True, eq=False)
class Hits:
    """Rows of a table, nearest first, and cosine similarities, rounded to SIMILARITY_DECIMALS."""

    rows: np.ndarray
    similarities: np.ndarray


class SearchEngine(Protocol):
    """Finds the nearest vectors."""

    name: str

    def search(self, space: str, queries: np.ndarray, k: int, where: SceneFilter) -> list[Hits]:
        """Find the k nearest rows that match `where`, or fewer, for each unit-length query.

        queries: `[Q, 384]`. The result may also hold rows that are as near as the k-th. Raises
        ConnectionError where the engine's server does not answer.
        """
        ...
