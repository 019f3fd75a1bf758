"""Statistics of training tiles, from the dataset to the bridge's configuration."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from earthvlm.data.captioned_scenes import Tile
from earthvlm.data.tile_statistics import summarize_tiles
from earthvlm.scenes.analysis.distribution_shift import TrainingStatistics, warn_out_of_distribution
from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.scene import Scene


class MadeScenes:
    """A dataset of flat tiles of four bands, the n-th with reflectance 100 n, one degree apart."""

    def __init__(self, count: int, places: bool = True) -> None:
        self.tiles = [Tile(str(number), ("A tile.",), None) for number in range(1, count + 1)]
        self.places, self.read_tiles = places, []

    def __len__(self) -> int:
        return len(self.tiles)

    def with_tiles(self, tiles: Sequence[Tile]) -> MadeScenes:
        other = copy.copy(self)
        other.tiles = list(tiles)
        return other

    def read(self, tile: Tile) -> Scene:
        self.read_tiles.append(tile.name)
        pixels = np.full((16, 16, len(BANDS)), np.nan, np.float32)
        pixels[:, :, :4] = 100 * int(tile.name)
        place = (float(tile.name), 50.0) if self.places else (None, None)
        return Scene(pixels, longitude=place[0], latitude=place[1])


def test_statistics_cover_bands_size_and_area():
    statistics = summarize_tiles(MadeScenes(11))
    assert set(statistics.mean_reflectance) == set(BANDS[:4])
    assert statistics.mean_reflectance["B02"] == (105, 1095)
    assert statistics.side == 16 and statistics.bbox == (1, 50, 11, 50)
    assert summarize_tiles(MadeScenes(3, places=False)).bbox is None


def test_large_datasets_are_sampled_evenly():
    dataset = MadeScenes(100)
    summarize_tiles(dataset, max_tiles=10)
    assert dataset.read_tiles == [str(n) for n in range(1, 101, 11)]


def test_scenes_outside_the_statistics_are_warned_about():
    dataset = MadeScenes(11)
    statistics = TrainingStatistics.from_entry(
        json.loads(json.dumps(asdict(summarize_tiles(dataset))))
    )
    assert statistics == summarize_tiles(dataset)
    assert warn_out_of_distribution(dataset.read(dataset.tiles[5]), None, statistics) == []
    strange = dataset.read(Tile("20", (), None))
    brightness, place = warn_out_of_distribution(strange, None, statistics)
    assert "brighter than nearly all tiles" in brightness
    assert "outside the area 1.00° E to 11.00° E" in place
