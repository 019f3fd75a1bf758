"""Scenes drawn as composites and thumbnails."""

from __future__ import annotations

import numpy as np
import pytest

from earthvlm.scenes.bands import (
    FILE_ORDER_12,
)
from earthvlm.scenes.pictures.composites import STRETCHES
from earthvlm.scenes.scene import Scene
from tests.support.made_rasters import make_lake, make_values


@pytest.fixture
def lake() -> Scene:
    return make_lake()


def test_composites_have_the_expected_colours(lake):
    water, land = (slice(None), slice(0, 16)), (slice(None), slice(16, 32))
    true_colour, infrared, short_wave, ndvi = (
        np.asarray(lake.composite(name)).astype(float) for name in lake.available_composites()
    )
    assert true_colour.shape == (32, 32, 3)
    assert lake.composite().mode == "RGB"
    red, green, blue = (true_colour[:, :, channel] for channel in range(3))
    assert green[land].mean() > max(red[land].mean(), blue[land].mean())  # meadow is green
    assert blue[water].mean() > red[water].mean() + 10  # a lake is bluish
    assert true_colour[water].mean() < 60 < true_colour[land].mean()
    assert infrared[land][:, :, 0].mean() > infrared[land][:, :, 1].mean() + 50  # plants are red
    assert short_wave[water].mean() < 10  # water is black
    assert ndvi[land][:, :, 1].mean() > ndvi[land][:, :, 0].mean() + 30  # plants are green
    assert ndvi[water][:, :, 2].mean() > ndvi[water][:, :, 0].mean()  # water is bluish


def test_the_stretch_ignores_a_glint(lake):
    values = make_values()
    values[0, 0] = 15_000
    glint = Scene.from_array(values, FILE_ORDER_12)
    for scene in (lake, glint):
        picture = np.asarray(scene.composite())
        assert picture.min() < 40 and picture.max() > 200
        assert np.median(picture[:, 16:]) > 60


def test_any_three_bands_are_drawn_with_any_stretch(lake):
    name = "B11, b8a blue"
    pictures = {how: np.asarray(lake.composite(name, how)) for how in STRETCHES}
    assert len({picture.tobytes() for picture in pictures.values()}) == len(STRETCHES)
    expected = lake.find_band("B11") / 3000 * 255
    assert np.abs(pictures["0 to 0.3"][:, :, 0] - expected.clip(0, 255)).max() <= 1
    for wrong in ("B11 B08", "B11 B08 B10", "B11 B08 B02 B03", ""):
        with pytest.raises(ValueError, match="three bands such as"):
            lake.composite(wrong)
    with pytest.raises(ValueError, match="there is no stretch 'none'; known are balanced"):
        lake.composite(name, "none")


def test_noise_is_not_stretched_to_contrast():
    noise = np.random.default_rng(5).integers(300, 320, (32, 32, 12))
    picture = np.asarray(Scene.from_array(noise.astype(np.uint16), FILE_ORDER_12).composite())
    assert np.ptp(picture) < 40


def test_b08_replaces_b8a_in_composites(lake):
    nine = tuple(band for band in FILE_ORDER_12 if band not in ("B8A", "B01", "B09"))
    scene = Scene.from_array(make_values(nine), nine)
    assert "short-wave infrared" in scene.available_composites()
    assert scene.composite("short-wave infrared").size == (32, 32)


def test_impossible_composites_name_the_missing_bands():
    order = ("B02", "B03", "B04")
    scene = Scene.from_array(make_values(order), order)
    with pytest.raises(ValueError, match="lacks B08 for NDVI"):
        scene.composite("NDVI")
    with pytest.raises(ValueError, match="lacks B12, B8A for short-wave infrared"):
        scene.composite("short-wave infrared")
    with pytest.raises(ValueError, match="known are true colour"):
        scene.composite("thermal")


def test_thumbnails_keep_proportions():
    scene = Scene.from_array(make_values()[:16], FILE_ORDER_12)
    assert scene.thumbnail(16).size == (16, 8)
    order = ("B05", "B06", "B07")
    assert Scene.from_array(make_values(order), order).thumbnail().size == (32, 32)
