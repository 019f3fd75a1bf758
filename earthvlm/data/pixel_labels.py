"""Labels of pixels: for each the land covers that it can be, and shares of whole areas.

Few images have a certain land cover for every pixel. A mask says "forest or not", spectral indices
are sure of open water and of dense plants, and a rule knows the shares of a quarter but not where
they lie. A set of possible covers for each pixel and shares for areas hold all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from earthvlm.scenes.land_cover import COVERS

ANY = (1 << len(COVERS)) - 1
NO_AREA = -1


def cover_set(covers: Iterable[str]) -> int:
    """Return the bits of these covers, bit i for COVERS[i]. Raises ValueError for another name."""
    bits = 0
    for cover in covers:
        if cover not in COVERS:
            raise ValueError(f"'{cover}' is no land cover; known are {', '.join(COVERS)}")
        bits |= 1 << COVERS.index(cover)
    return bits


@dataclass(frozen=True)
class PixelLabels:
    """Knowledge of the land cover of each pixel of a scene.

    possible: uint16 `[H, W]`, the bits of the covers that a pixel can be, ANY where nothing is
        known.
    areas: int16 `[H, W]`, the area each pixel belongs to, or NO_AREA.
    shares: float32 `[areas, 9]`, the shares of the covers in each area, in the order of COVERS.
    """

    possible: np.ndarray
    areas: np.ndarray
    shares: np.ndarray

    @classmethod
    def of_sets(cls, possible: np.ndarray) -> PixelLabels:
        """Labels by sets of possible covers alone."""
        none = np.zeros((0, len(COVERS)), np.float32)
        return cls(possible.astype(np.uint16), np.full(possible.shape, NO_AREA, np.int16), none)

    def mapped(self, change: Callable[[np.ndarray], np.ndarray]) -> PixelLabels:
        """Turn, mirror or cut both grids alike."""
        return replace(self, possible=change(self.possible), areas=change(self.areas))

    def drawn(self, amount: np.ndarray, cover: str, least: float, sure: float) -> PixelLabels:
        """Return the labels after a cover was drawn over the scene.

        amount: `[H, W]`, the part of each pixel that is drawn over. From `least` on a pixel can be
        that cover too, and belongs to no area any more; from `sure` on it is that cover.
        """
        bit = np.uint16(cover_set([cover]))
        possible = np.where(amount > least, self.possible | bit, self.possible)
        possible = np.where(amount > sure, bit, possible).astype(np.uint16)
        return replace(self, possible=possible, areas=np.where(amount > least, NO_AREA, self.areas))

    @staticmethod
    def mosaic(rows: list[list[PixelLabels]]) -> PixelLabels:
        """Return the labels of scenes joined row by row."""
        shares, first = [], 0
        numbered: list[list[np.ndarray]] = []
        for row in rows:
            numbered.append([])
            for labels in row:
                areas = np.where(labels.areas == NO_AREA, NO_AREA, labels.areas + first)
                numbered[-1].append(areas.astype(np.int16))
                shares.append(labels.shares)
                first += len(labels.shares)
        possible = [np.concatenate([labels.possible for labels in row], 1) for row in rows]
        joined = np.concatenate([np.concatenate(row, 1) for row in numbered])
        return PixelLabels(np.concatenate(possible), joined, np.concatenate(shares))

    def halved(self) -> PixelLabels:
        """Return the labels of half the resolution: a pixel can be what any of its four can."""
        height, width = (side // 2 * 2 for side in self.possible.shape)
        four = self.possible[:height, :width].reshape(height // 2, 2, width // 2, 2)
        possible = np.bitwise_or.reduce(np.bitwise_or.reduce(four, 3), 1)
        return replace(self, possible=possible, areas=self.areas[:height:2, :width:2])
