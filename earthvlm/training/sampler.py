"""The order of samples in an epoch, balanced by class and sorted by length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from earthvlm.data.labels import SceneLabels

Layout = tuple[int, int, float]  # rows, columns, zoom


# How tiles are put together into larger scenes and zoomed, and how often.
LAYOUTS = {
    (1, 1, 1): 0.58,
    (1, 1, 0.75): 0.03,
    (1, 1, 1.5): 0.04,
    (2, 2, 1): 0.16,
    (1, 2, 1): 0.05,
    (2, 1, 1): 0.05,
    (3, 3, 1): 0.06,
    (4, 4, 1): 0.03,
}


# For the encoder alone, which never sees more than a crop: queries learn larger scenes later.
CROP_LAYOUTS = {
    (1, 1, 1): 0.75,
    (1, 1, 0.75): 0.03,
    (1, 1, 1.5): 0.04,
    (1, 2, 1): 0.04,
    (2, 1, 1): 0.04,
    (2, 2, 1): 0.1,
}


# Conversations are sorted by length among so many batches: enough for little padding, few enough
# that batches differ from epoch to epoch.
LENGTH_WINDOW = 16


@dataclass(frozen=True)
class SampleKey:
    """Which sample is wanted: its epoch, its place in the data, and its layout or None."""

    epoch: int
    index: int
    layout: Layout | None = None


class EpochSampler(Sampler[SampleKey]):
    """Every index once an epoch, shuffled by the seed; what shares a batch is of one size.

    Scenes of one layout need no padding, conversations of about one length little. The epoch
    travels with the index, so that workers draw new variations in each, the same ones whatever
    their number.

    weights: how often each index is drawn, beside the others; some then come twice, some not.
    length_of: about how long a sample's conversation is.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        layouts: Mapping[Layout, float] = LAYOUTS,
        weights: np.ndarray | None = None,
        length_of: Callable[[SampleKey], int] | None = None,
    ) -> None:
        self.length, self.batch_size, self.seed, self.epoch = length, batch_size, seed, 0
        self.layouts, self.length_of = layouts, length_of
        self.odds = None if weights is None else weights / weights.sum()
        # Of this epoch, by an earlier run that this one goes on from: how many samples were used,
        # and up to which of them batches had another size than now.
        self.used = 0
        self.earlier: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[SampleKey]:
        numbers = np.random.default_rng((self.seed, self.epoch))
        if self.odds is None:
            order = numbers.permutation(self.length)
        else:
            order = numbers.choice(self.length, self.length, p=self.odds)
        start = 0
        for used, size in (*self.earlier, (self.length, self.batch_size)):
            if self.length_of is not None:
                order[start:] = self._by_length(order[start:], size, numbers)
            first, start = start, used
        kinds, odds = tuple(self.layouts), np.array(tuple(self.layouts.values()))
        drawn = numbers.choice(len(odds), p=odds / odds.sum(), size=self.length)
        for place, index in tuple(enumerate(order))[self.used :]:
            layout = kinds[drawn[(place - first) // self.batch_size]]
            yield SampleKey(self.epoch, int(index), layout)

    def _by_length(self, order: np.ndarray, size: int, numbers: np.random.Generator) -> np.ndarray:
        """Sorted by length within windows of some batches; the batches then in any order."""
        batches = []
        for window in np.split(
            order, range(LENGTH_WINDOW * size, len(order), LENGTH_WINDOW * size)
        ):
            lengths = [self.length_of(SampleKey(self.epoch, int(index))) for index in window]
            window = window[np.argsort(lengths, kind="stable")]
            batches += np.split(window, range(size, len(window), size))
        # A last batch that is not full stays last.
        full = len(order) // size
        return np.concatenate(
            [batches[i] for i in (*numbers.permutation(full), *range(full, len(batches)))]
        )


def balancing_weights(labels: Sequence[SceneLabels]) -> np.ndarray:
    """Weights `[N]` that draw scenes of a rare dominant land cover more often.

    In inverse proportion to the square root of how many there are: what covers 3 percent of the
    scenes is then seen enough to be told apart, and what covers most still comes most.
    """
    dominants = [f.dominant for f in labels]
    counts = Counter(dominants)
    return np.array([counts[dominant] ** -0.5 for dominant in dominants])
