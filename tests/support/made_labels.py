"""Labels of scenes, given cell by cell."""

from __future__ import annotations

import numpy as np

from earthvlm.data.labels import LAND_COVER, SceneLabels


def make_labels(*cells: dict[str, float], scene_class: str | None = None) -> SceneLabels:
    """Return labels of 2 x 2 cells, each given as shares by name."""
    grid = [[cell.get(cover, 0.0) for cover in LAND_COVER] for cell in cells]
    sky = np.zeros((2, 2), np.float32)
    return SceneLabels(np.array(grid, np.float32).reshape(2, 2, -1), sky, sky, scene_class)


WATER, TREES, TOWN = {"water": 1.0}, {"tree cover": 1.0}, {"built-up land": 1.0}
MIXED = make_labels(WATER, TREES, TREES, TREES)
