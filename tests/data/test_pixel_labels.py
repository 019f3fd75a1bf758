"""Sets of possible covers, areas with shares, and how they follow what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from earthvlm.data.pixel_labels import ANY, NO_AREA, PixelLabels, cover_set

WATER, TREES, SNOW = (cover_set([c]) for c in ("water", "tree cover", "snow or ice"))


def make(possible: int, side: int = 4) -> PixelLabels:
    shares = np.zeros((1, 9), np.float32)
    shares[0, 0] = 1
    grid = np.full((side, side), possible, np.uint16)
    return PixelLabels(grid, np.zeros((side, side), np.int16), shares)


def test_unknown_covers_are_refused():
    with pytest.raises(ValueError, match="'sea' is no land cover; known are water, tree cover"):
        cover_set(["sea"])


def test_mosaics_keep_the_areas_of_their_parts():
    joined = PixelLabels.mosaic([[make(WATER), make(TREES)], [make(TREES), make(ANY)]])
    assert joined.areas[0, 0] == 0 and joined.areas[0, 4] == 1 and joined.areas[7, 7] == 3
    assert joined.shares.shape == (4, 9)
    assert joined.possible[0, 0] == WATER and joined.possible[7, 0] == TREES


def test_drawn_covers_replace_labels_where_they_are_thick():
    amount = np.array([[0.0, 0.1, 0.4, 0.9]] * 4)
    drawn = make(TREES).drawn(amount, "snow or ice", least=0.2, sure=0.6)
    assert drawn.possible[0].tolist() == [TREES, TREES, TREES | SNOW, SNOW]
    assert drawn.areas[0].tolist() == [0, 0, NO_AREA, NO_AREA]


def test_halved_pixels_can_be_what_their_four_can():
    labels = PixelLabels.of_sets(np.array([[WATER, TREES, TREES], [WATER, WATER, TREES]]))
    assert labels.halved().possible.tolist() == [[WATER | TREES]]
