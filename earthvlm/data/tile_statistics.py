"""Statistics of a dataset's tiles, which a trained bridge keeps to recognise unusual scenes."""

from __future__ import annotations

from collections import Counter

import numpy as np

from earthvlm.data.captioned_scenes import CaptionedScenes
from earthvlm.scenes.analysis.distribution_shift import TrainingStatistics
from earthvlm.scenes.bands import BANDS

PERCENTILES = (0.5, 99.5)
MAX_TILES = 1000  # enough for these percentiles, and read in seconds


def summarize_tiles(dataset: CaptionedScenes, max_tiles: int = MAX_TILES) -> TrainingStatistics:
    """Read up to `max_tiles` tiles, spread over the dataset, and return their statistics.

    Tiles that cannot be read are left out: training reports them when it reaches them. Raises
    ValueError where none can be read.
    """
    count = len(dataset)
    chosen = np.unique(np.linspace(0, count - 1, min(count, max_tiles)).astype(int))
    # A copy, so that the images are not kept in memory after they were measured.
    sample = dataset.with_tiles([dataset.tiles[index] for index in chosen])
    means, sides, places = [], Counter[int](), []
    for tile in sample.tiles:
        try:
            scene = sample.read(tile)
        except (ValueError, FileNotFoundError):
            continue
        means.append(scene.reflectance.mean(axis=(0, 1)))
        sides[max(scene.width, scene.height)] += 1
        places.append((scene.longitude, scene.latitude))
    if not means:
        raise ValueError("no tile of the dataset can be read, so there are no statistics of them")
    ((side, _),) = sides.most_common(1)
    return TrainingStatistics(_bound_means(np.array(means)), side, _bound_places(places))


def _bound_means(means: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return the percentiles of `[N, 12]` means by band; a band that no tile has is left out."""
    bounds: dict[str, tuple[float, float]] = {}
    for index, band in enumerate(BANDS):
        present = means[:, index][~np.isnan(means[:, index])]
        if present.size:
            low, high = np.percentile(present, PERCENTILES)
            bounds[band] = (round(float(low)), round(float(high)))
    return bounds


def _bound_places(
    places: list[tuple[float | None, float | None]],
) -> tuple[float, float, float, float] | None:
    """Return west, south, east and north of all places, or None where one is not known."""
    if any(None in place for place in places):
        return None
    longitudes, latitudes = zip(*places, strict=True)
    bounds = (min(longitudes), min(latitudes), max(longitudes), max(latitudes))
    return tuple(round(degrees, 2) for degrees in bounds)
