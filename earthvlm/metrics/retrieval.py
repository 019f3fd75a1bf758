"""Text-to-scene retrieval: ranks, recall@k and median rank."""

from __future__ import annotations

import numpy as np

from earthvlm.metrics.results import MetricResult, confidence_interval

RECALL_AT = (1, 5, 10)
# Queries compared together: the similarities of a large split, all at once, take gigabytes.
QUERIES_AT_ONCE = 256


def pair_ranks(sentences: np.ndarray, scenes: np.ndarray) -> np.ndarray:
    """Return the rank of each sentence's own scene among all scenes, `[N]`, from 1.

    Takes unit vectors `[N, D]` of sentences and of the scenes they describe. A tie counts against
    the scene.
    """
    ranks = []
    for start in range(0, len(sentences), QUERIES_AT_ONCE):
        block = sentences[start : start + QUERIES_AT_ONCE]
        similarity = block @ scenes.T
        own = similarity[np.arange(len(block)), start + np.arange(len(block))]
        ranks.append((similarity >= own[:, None]).sum(1))
    return np.concatenate(ranks)


def score_retrieval(ranks: np.ndarray, seed: int = 0) -> list[MetricResult]:
    """Return recall@1, @5, @10 and the median of ranks `[N]`, with those of a random order."""
    count = len(ranks)
    results = []
    for k in RECALL_AT:
        low, high = confidence_interval(ranks <= k, seed)
        name, random_recall = f"text to scene, recall@{k}", min(k / count, 1.0)
        recall = float((ranks <= k).mean())
        results.append(MetricResult(name, recall, low, high, random_recall, None, count))
    low, high = confidence_interval(ranks, seed, np.median)
    name, random_rank = "text to scene, median rank", (count + 1) / 2
    median = float(np.median(ranks))
    return [*results, MetricResult(name, median, low, high, random_rank, None, count)]
