"""Ranks of searches, and recall@k, median rank and MRR from them."""

from __future__ import annotations

import numpy as np

from earthvlm.metrics.results import SENTENCES_AT_ONCE, MetricResult, interval

RECALL_AT = (1, 5, 10)


def pair_ranks(sentences: np.ndarray, scenes: np.ndarray) -> np.ndarray:
    """For each sentence `[N, D]`, the rank of its own scene among all scenes `[N, D]`, from 1."""
    ranks = []
    for start in range(0, len(sentences), SENTENCES_AT_ONCE):  # all similarities are gigabytes
        block = sentences[start : start + SENTENCES_AT_ONCE]
        similarity = block @ scenes.T
        own = similarity[np.arange(len(block)), start + np.arange(len(block))]
        # A tie counts against the scene: ranks are of the worst place it may have.
        ranks.append((similarity >= own[:, None]).sum(1))
    return np.concatenate(ranks)


def score_retrieval(ranks: np.ndarray, seed: int = 0) -> list[MetricResult]:
    """Recall and median rank from what `pair_ranks` returned."""
    count = len(ranks)
    figures = []
    for k in RECALL_AT:
        low, high = interval(ranks <= k, seed)
        name, chance = f"sentence to scene, recall@{k}", min(k / count, 1.0)
        figures.append(
            MetricResult(name, float((ranks <= k).mean()), low, high, chance, None, count)
        )
    low, high = interval(ranks, seed, np.median)
    median = float(np.median(ranks))
    chance = (count + 1) / 2
    name = "sentence to scene, median rank"
    return [*figures, MetricResult(name, median, low, high, chance, None, count)]
