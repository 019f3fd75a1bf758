"""Overviews of large scenes."""

from __future__ import annotations

import dataclasses

import numpy as np

from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.overview import shrink_scene
from earthvlm.scenes.scene import Scene


def numbered_scene(height: int, width: int, **fields) -> Scene:
    values = np.arange(height * width * len(BANDS), dtype=np.float32)
    return Scene(values.reshape(height, width, len(BANDS)), **fields)


def test_each_pixel_is_the_mean_of_a_square():
    grid = Grid("EPSG:32633", (10, 0, 5, 0, -10, 7))
    scene = numbered_scene(33, 41, pixel_metres=10.0, grid=grid)
    small = shrink_scene(scene, 11 * 14)
    assert small.reflectance.shape == (11, 13, 12)
    assert np.allclose(small.reflectance[2, 3], scene.reflectance[6:9, 9:12].mean((0, 1)))
    assert small.pixel_metres == 30 and small.grid.transform == (30, 0, 5, 0, -30, 7)


def test_small_scenes_stay_as_they_are():
    scene = numbered_scene(16, 20)
    assert shrink_scene(scene, 16 * 20) is scene


def test_pixels_without_data_do_not_count():
    valid = np.ones((32, 32), bool)
    valid[:2, :3] = False  # the first square, and half of the second
    scene = dataclasses.replace(numbered_scene(32, 32), valid=valid)
    small = shrink_scene(scene, 16 * 16)
    assert small.valid.sum() == 16 * 16 - 2 and not small.valid[0, :2].any()
    assert np.allclose(small.reflectance[0, 1], scene.reflectance[:2, 3].mean(0))
    assert np.isfinite(small.reflectance).all()


def test_missing_bands_stay_missing():
    scene = numbered_scene(32, 32)
    scene.reflectance[..., 3] = np.nan
    assert shrink_scene(scene, 256).bands == scene.bands


def test_long_strips_keep_enough_pixels():
    assert shrink_scene(numbered_scene(16_384, 17), 512 * 512).reflectance.shape[:2] == (8192, 8)
