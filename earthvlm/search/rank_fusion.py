"""Reciprocal rank fusion: join several rankings of the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from earthvlm.search.engines.engine import Hits

# Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
# Learning Methods", SIGIR 2009: a rank r adds 1 / (60 + r).
RANK_FUSION_K = 60


def rank_similarities(similarity: np.ndarray) -> np.ndarray:
    """Rank rows by similarity `[N]` from 1; ties share the better rank, and NaN stays NaN."""
    ranks = np.full(similarity.shape, np.nan)
    present = ~np.isnan(similarity)
    ascending = np.sort(similarity[present])
    ranks[present] = 1 + ascending.size - np.searchsorted(ascending, similarity[present], "right")
    return ranks


def fuse_ranks(similarities: Iterable[np.ndarray]) -> np.ndarray:
    """Join rankings of N rows by reciprocal rank fusion (SIGIR 2009, k = 60): float64 `[N]`.

    Each similarity array `[N]` ranks the rows; rows with NaN are not in that ranking. Ties share
    the better rank, so that equal rows have equal scores.
    """
    ranks = np.stack([rank_similarities(similarity) for similarity in similarities])
    return np.nansum(1.0 / (RANK_FUSION_K + ranks), axis=0)


@dataclass(frozen=True, eq=False)
class JoinedHits:
    """The rows that any of R rankings found, in the table's order.

    Attributes:
        rows: `[N]`.
        scores: of `fuse_ranks`, `[N]`.
        similarities: `[R, N]`, NaN where a ranking does not hold the row.
        ranks: `[R, N]`, NaN where a ranking does not hold the row.
    """

    rows: np.ndarray
    scores: np.ndarray
    similarities: np.ndarray
    ranks: np.ndarray


def join_hits(rankings: Sequence[Hits], left_out: Sequence[int] = ()) -> JoinedHits:
    """Join the hits of several searches of one table, without the rows in `left_out`."""
    rows = np.setdiff1d(np.concatenate([hits.rows for hits in rankings]), left_out).astype(int)
    similarities = np.full((len(rankings), len(rows)), np.nan)
    for similarity, hits in zip(similarities, rankings, strict=True):
        _, found, of_hits = np.intersect1d(rows, hits.rows, return_indices=True)
        similarity[found] = hits.similarities[of_hits]
    ranks = np.array([rank_similarities(similarity) for similarity in similarities])
    return JoinedHits(rows, fuse_ranks(similarities), similarities, ranks)
