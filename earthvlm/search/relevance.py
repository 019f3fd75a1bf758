"""Search by a few examples: scenes that were wanted, and scenes that were not.

A logistic regression finds the direction that separates the wanted examples from the unwanted ones
and from a sample of the dataset, which stands for all that was not asked for: unlabelled scenes in
the place of negative ones (Elkan and Noto, "Learning classifiers from only positive and unlabeled
data", KDD 2008). Unwanted examples alone move the words of a search by Rocchio's formula (Rocchio
1971; Manning, Raghavan and Schütze 2008, section 9.1.1). All give one vector, which any engine can
search for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from earthvlm.search.one_product import ONE_PRODUCT

if TYPE_CHECKING:
    from earthvlm.embeddings.table import SceneTable

# The weight of the unwanted examples' mean, the query's being 1; 0.15 is usual for words in texts.
# Here it is more, because all scenes are alike.
NEGATIVE_WEIGHT = 0.5
# What the wanted examples weigh together in the regression, and the sample as much, an unwanted one
# weighing one and the penalty a half; found on training tiles.
EXAMPLE_WEIGHT = 36.0
BACKGROUND = 1000  # scenes in the sample
SAME = 1 - 1e-5  # from this cosine on, a scene of the sample is an example itself


def combine_examples(
    positives: np.ndarray, negatives: np.ndarray, sample: Callable[[], np.ndarray]
) -> np.ndarray:
    """Return the query vector of examples: float32 `[384]`, unit length.

    A single wanted example is its own.

    Args:
        positives: unit vectors of wanted scenes, `[P, 384]`, at least one.
        negatives: unit vectors of unwanted scenes, `[N, 384]`, or none.
        sample: returns unit vectors of the dataset's scenes, `[B, 384]`; called where they are
            needed. See `sample_background`.
    """
    if len(positives) == 1 and not len(negatives):
        return _normalise(positives[0])
    background = sample()
    with ONE_PRODUCT:
        similarities = background @ positives.T
    others = background[similarities.max(axis=1, initial=-1) < SAME]
    if not len(negatives) + len(others):
        return _normalise(positives.mean(axis=0))
    from sklearn.linear_model import LogisticRegression

    vectors = np.concatenate([positives, negatives, others])
    counts = len(positives), len(negatives), len(others)
    shares = EXAMPLE_WEIGHT / len(positives), 1.0, EXAMPLE_WEIGHT / max(len(others), 1)
    wanted = np.arange(len(vectors)) < len(positives)
    probe = LogisticRegression(max_iter=1000)
    with ONE_PRODUCT:
        probe.fit(vectors, wanted, np.repeat(shares, counts))
    return _normalise(probe.coef_[0])


def sample_background(table: SceneTable) -> np.ndarray:
    """Return the vectors of at most BACKGROUND of a dataset's scenes, spread evenly, `[B, 384]`."""
    rows = table.rows("scene")
    step = max(1, -(-len(rows) // BACKGROUND))
    return table.vectors("scene")[rows[::step]]


def move_away(query: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Move a query vector `[384]` away from unwanted examples `[N, 384]`, at least one."""
    return _normalise(query / np.linalg.norm(query) - NEGATIVE_WEIGHT * negatives.mean(axis=0))


def _normalise(vector: np.ndarray) -> np.ndarray:
    return (vector / np.linalg.norm(vector)).astype(np.float32)
