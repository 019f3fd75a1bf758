"""Match: how well a scene fits a search, from 0 to 1, of cosine similarities.

A cosine of 0.5 is high for words and low for two scenes, so each is placed in a range. For words it
goes from what texts about other things reach to what the dataset's scenes reach with their own
captions; for examples, from the least similar tenth of the dataset to the examples themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from earthvlm.embeddings.table import SceneTable
from earthvlm.search.one_product import ONE_PRODUCT

SAMPLE_ROWS = 2000  # evenly spaced; ranges are measured on these
# The similarity of the bundled scenes and texts about other things: "pizza with cheese", "a car
# race", "stock market crash".
UNRELATED = 0.1
# Of scenes and their own captions, where a dataset has none; the bundled one has 0.64.
USUAL_OWN_CAPTION = 0.65
LEAST_SIMILAR = 0.1  # the share of a dataset's scenes that match an example by 0


@dataclass(frozen=True)
class Range:
    """A similarity that is a match of 0, and one that is a match of 1."""

    low: float
    high: float

    def place(self, similarity: float) -> float:
        """Return where a similarity lies between the two, 0 to 1."""
        width = max(self.high - self.low, 1e-6)
        return float(np.clip((similarity - self.low) / width, 0.0, 1.0))


class MatchScale:
    """The ranges of the similarities in a dataset."""

    def __init__(self, table: SceneTable) -> None:
        self._table = table

    def measure(self, vector: np.ndarray, full: float | None) -> Range:
        """Return the range of similarities to a query vector `[384]`.

        full: the similarity of the examples that the vector was made from; None for words.
        """
        if full is None:
            return Range(UNRELATED, max(self._own_caption, UNRELATED + 0.1))
        scenes = self._sample[0]
        with ONE_PRODUCT:
            similarities = scenes @ vector
        low = float(np.quantile(similarities, LEAST_SIMILAR)) if len(scenes) else 0.0
        return Range(min(low, full - 0.1), full)

    @cached_property
    def _sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Return embeddings of scenes and of their captions, float32 `[N, 384]` each."""
        rows = self._table.rows("scene")
        places = np.linspace(0, max(len(rows) - 1, 0), min(len(rows), SAMPLE_ROWS))
        chosen = rows[places.astype(np.int64)]
        return self._table.vectors("scene")[chosen], self._table.vectors("caption")[chosen]

    @cached_property
    def _own_caption(self) -> float:
        """The mean similarity of a scene and its own caption."""
        similarities = np.einsum("ij,ij->i", *self._sample)
        known = similarities[~np.isnan(similarities)]
        return float(known.mean()) if len(known) else USUAL_OWN_CAPTION
