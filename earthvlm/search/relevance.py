"""Search by a few examples: scenes that were wanted, and scenes that were not.

With few of them, Rocchio's formula moves the query (Rocchio 1971; Manning, Raghavan and Schütze
2008, section 9.1.1). From five of each kind on, a logistic regression of their embeddings finds the
direction that separates them. Both give one vector, which any engine can search for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

# The weights of the wanted and the unwanted examples' means, the query's being 1; 0.75 and 0.15 are
# usual for words in texts. Here the unwanted ones count more, because all scenes are alike.
POSITIVE_WEIGHT = 0.75
NEGATIVE_WEIGHT = 0.5
PROBE_EXAMPLES = 5  # of each kind
# The inverse strength of the regression's penalty: unit vectors of 384 numbers are small.
PROBE_C = 10.0


def combine_examples(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Return the query vector of examples: float32 `[384]`, unit length.

    Args:
        positives: unit vectors of wanted scenes, `[P, 384]`, at least one.
        negatives: unit vectors of unwanted scenes, `[N, 384]`, or none.
    """
    if min(len(positives), len(negatives)) >= PROBE_EXAMPLES:
        return fit_probe(positives, negatives)
    return apply_rocchio(positives.mean(axis=0), positives, negatives)


def apply_rocchio(query: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Move a query vector `[384]` towards the wanted and away from the unwanted examples."""
    vector = query / np.linalg.norm(query)
    if len(positives):
        vector = vector + POSITIVE_WEIGHT * positives.mean(axis=0)
    if len(negatives):
        vector = vector - NEGATIVE_WEIGHT * negatives.mean(axis=0)
    return _normalise(vector)


def fit_probe(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Return the direction that separates the examples, by a regularised logistic regression."""
    vectors = np.concatenate([positives, negatives])
    wanted = np.arange(len(vectors)) < len(positives)
    return _normalise(make_probe().fit(vectors, wanted).coef_[0])


def make_probe() -> LogisticRegression:
    """Make the regularised linear classifier of examples."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=PROBE_C, class_weight="balanced", max_iter=1000)


def _normalise(vector: np.ndarray) -> np.ndarray:
    return (vector / np.linalg.norm(vector)).astype(np.float32)
