"""Reciprocal rank fusion: several rankings of the same rows made one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from earthvlm.search.engines import Hits

# Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
# Learning Methods", SIGIR 2009: a rank r adds 1 / (60 + r).
RANK_FUSION_K = 60


def rank_similarities(similarity: np.ndarray) -> np.ndarray:
    """Rank rows by similarity `[N]` from 1, equals sharing the better rank; NaN stays NaN."""
    ranks = np.full(similarity.shape, np.nan)
    present = ~np.isnan(similarity)
    ascending = np.sort(similarity[present])
    ranks[present] = 1 + ascending.size - np.searchsorted(ascending, similarity[present], "right")
    return ranks


def fuse_ranks(similarities: Sequence[np.ndarray]) -> np.ndarray:
    """Join rankings of N rows by reciprocal rank fusion (SIGIR 2009, k = 60): float64 `[N]`.

    Each similarity array `[N]` ranks the rows, NaN being absent from that ranking. Equal
    similarities share the better rank, so that rows that say the same score the same.
    """
    ranks = np.stack([rank_similarities(similarity) for similarity in similarities])
    return np.nansum(1.0 / (RANK_FUSION_K + ranks), axis=0)


@dataclass(frozen=True, eq=False)
class JoinedHits:
    """Rows that any ranking found, in order: `[N]`, and what of them each ranking says: `[R, N]`.

    similarities and ranks are NaN where a ranking did not reach the row. scores: of `fuse_ranks`.
    """

    rows: np.ndarray
    scores: np.ndarray
    similarities: np.ndarray
    ranks: np.ndarray


def join_hits(rankings: Sequence[Hits], left_out: Sequence[int] = ()) -> JoinedHits:
    """Join what several searches of one table found, but for the rows to be left out."""
    rows = np.setdiff1d(np.concatenate([hits.rows for hits in rankings]), left_out).astype(int)
    similarities = np.full((len(rankings), len(rows)), np.nan)
    for similarity, hits in zip(similarities, rankings, strict=True):
        _, found, of_hits = np.intersect1d(rows, hits.rows, return_indices=True)
        similarity[found] = hits.similarities[of_hits]
    ranks = np.array([rank_similarities(similarity) for similarity in similarities])
    return JoinedHits(rows, fuse_ranks(similarities), similarities, ranks)
