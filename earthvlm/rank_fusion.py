"""Reciprocal rank fusion: several rankings of the same rows made one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
