"""The order of samples in an epoch, balanced by class and sorted by length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from earthvlm.data.labels import SceneLabels

Layout = tuple[int, int, float]  # rows, columns, zoom

# The layouts of training scenes, as joined and zoomed tiles, with their shares.
LAYOUTS: dict[Layout, float] = {
    (1, 1, 1): 0.58,
    (1, 1, 0.75): 0.03,
    (1, 1, 1.5): 0.04,
    (2, 2, 1): 0.16,
    (1, 2, 1): 0.05,
    (2, 1, 1): 0.05,
    (3, 3, 1): 0.06,
    (4, 4, 1): 0.03,
}

# For the encoder's stage: an encoder sees one crop at a time, so it needs few larger scenes.
CROP_LAYOUTS: dict[Layout, float] = {
    (1, 1, 1): 0.75,
    (1, 1, 0.75): 0.03,
    (1, 1, 1.5): 0.04,
    (1, 2, 1): 0.04,
    (2, 1, 1): 0.04,
    (2, 2, 1): 0.1,
}

# Batches whose samples are sorted by length together: enough for little padding, few enough that
# batches differ from epoch to epoch.
LENGTH_WINDOW = 16
# Files that are drawn from at a time: few enough to begin early, enough to mix their samples.
SHARDS_AT_ONCE = 4


@dataclass(frozen=True)
class SampleKey:
    """Identifies a sample by epoch, tile and layout; a layout of None leaves the tile as it is."""

    epoch: int
    index: int
    layout: Layout | None = None


class EpochSampler(Sampler[SampleKey]):
    """Draws every index once an epoch, shuffled, in batches of one layout and similar length.

    The epoch is part of each key, so that workers draw new augmentations in every epoch, and the
    same ones whatever the number of workers.

    Args:
        weights: relative frequencies of the indices, some of which are then drawn several times.
        length_of: the approximate length of a sample's conversation, to sort by; None does not.
        shards: the file of each index; only SHARDS_AT_ONCE of them are then drawn from at a time,
            because each has to be fetched first.

    Attributes:
        used: the samples of this epoch that a resumed run has used already.
        earlier: pairs of a sample count and a batch size: up to that sample of this epoch, batches
            had that size.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        layouts: Mapping[Layout, float] = LAYOUTS,
        weights: np.ndarray | None = None,
        length_of: Callable[[SampleKey], int] | None = None,
        shards: Sequence[int] | None = None,
    ) -> None:
        self.shards = None if shards is None else np.array(shards)
        self.length, self.batch_size, self.seed, self.epoch = length, batch_size, seed, 0
        self.layouts, self.length_of = layouts, length_of
        self.shares = None if weights is None else weights / weights.sum()
        self.used = 0
        self.earlier: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[SampleKey]:
        numbers = np.random.default_rng((self.seed, self.epoch))
        if self.shares is None:
            order = numbers.permutation(self.length)
        else:
            order = numbers.choice(self.length, self.length, p=self.shares)
        if self.shards is not None:
            order = self._by_shard(order, self.shards, numbers)
        start = 0
        for used, size in (*self.earlier, (self.length, self.batch_size)):
            if self.length_of is not None:
                order[start:] = self._by_length(order[start:], size, numbers, self.length_of)
            first, start = start, used
        layouts, shares = tuple(self.layouts), np.array(tuple(self.layouts.values()))
        drawn = numbers.choice(len(shares), p=shares / shares.sum(), size=self.length)
        for position, index in tuple(enumerate(order))[self.used :]:
            layout = layouts[drawn[(position - first) // self.batch_size]]
            yield SampleKey(self.epoch, int(index), layout)

    @staticmethod
    def _by_shard(
        order: np.ndarray, shards: np.ndarray, numbers: np.random.Generator
    ) -> np.ndarray:
        """Keep the order within groups of shards, which are drawn from one after another."""
        names = numbers.permutation(np.unique(shards))
        groups = {name: place // SHARDS_AT_ONCE for place, name in enumerate(names)}
        return order[np.argsort([groups[shards[index]] for index in order], kind="stable")]

    def _by_length(
        self,
        order: np.ndarray,
        size: int,
        numbers: np.random.Generator,
        length_of: Callable[[SampleKey], int],
    ) -> np.ndarray:
        """Sort indices by length within windows of some batches, then shuffle the batches."""
        batches = []
        for window in np.split(
            order, range(LENGTH_WINDOW * size, len(order), LENGTH_WINDOW * size)
        ):
            lengths = [length_of(SampleKey(self.epoch, int(index))) for index in window]
            window = window[np.argsort(lengths, kind="stable")]
            batches += np.split(window, range(size, len(window), size))
        # A smaller last batch stays last.
        full = len(order) // size
        return np.concatenate(
            [batches[i] for i in (*numbers.permutation(full), *range(full, len(batches)))]
        )


def balancing_weights(labels: Sequence[SceneLabels]) -> np.ndarray:
    """Weights `[N]` that draw scenes of a rare dominant land cover more often.

    Each is the inverse square root of the number of scenes of its land cover: rare covers are then
    drawn often enough to be learned, and frequent ones still more often.
    """
    dominants = [f.dominant for f in labels]
    counts = Counter(dominants)
    return np.array([counts[dominant] ** -0.5 for dominant in dominants])
