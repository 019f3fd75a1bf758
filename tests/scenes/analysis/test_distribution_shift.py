"""Warnings about scenes that differ from the tiles a bridge was trained on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from earthvlm.scenes.analysis.distribution_shift import TrainingStatistics, warn_out_of_distribution
from earthvlm.scenes.analysis.spectral_indices import measure
from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.scene import Scene
from tests.support.made_spectra import paint

EUROPE = TrainingStatistics(
    {"B02": (126, 1373), "B11": (128, 3953)}, 64, (-11, 34, 42, 72), "Europe"
)


def test_scenes_like_the_training_tiles_give_no_warning():
    scene = paint(*(["dense vegetation"] * 4), longitude=10.0, latitude=50.0)
    assert warn_out_of_distribution(scene, measure(scene), EUROPE) == []


def test_cloud_light_size_and_place_are_warned_about():
    scene = paint(*(["cloud"] * 40), longitude=100.0, latitude=10.0)
    warnings = " ".join(warn_out_of_distribution(scene, measure(scene), EUROPE))
    for words in ("Cloud covers 100", "brighter", "far larger", "outside Europe"):
        assert words in warnings, (words, warnings)


def test_a_scene_that_is_mostly_hidden_is_said_so_first():
    scene = paint(*(["cloud"] * 96), *(["water"] * 4))
    first, *_ = warn_out_of_distribution(scene, measure(scene))
    assert first.startswith("Cloud covers 96\u00a0% of the scene, so most of the ground is hidden")
    scene = paint(*(["cloud"] * 30), *(["water"] * 70))
    assert "most of the ground" not in " ".join(warn_out_of_distribution(scene, measure(scene)))


@pytest.mark.parametrize(
    ("bands", "words"),
    [
        (("B02", "B03", "B04", "B08"), ["4 of 12 bands, without B01, B05,", "cloud and snow"]),
        (("B02", "B03", "B04"), ["3 of 12 bands", "no land cover is measured."]),
        (("B02", "B03", "B04", "B08", "B11"), []),
        (("B02", "B03", "B04", "B12"), ["no land cover is measured."]),
    ],
)
def test_missing_infrared_bands_are_warned_about(bands, words):
    whole = paint(*(["dense vegetation"] * 16)).reflectance
    scene = Scene.from_array(whole[:, :, [BANDS.index(band) for band in bands]], bands=bands)
    warnings = warn_out_of_distribution(scene, measure(scene))
    assert len(warnings) == bool(words)
    for word in words:
        assert word in warnings[0]


def test_a_photo_says_once_that_it_has_three_bands(tmp_path):
    colours = np.random.default_rng(0).integers(0, 200, (32, 32, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "photo.png")
    scene = Scene.open(tmp_path / "photo.png")
    assert "3 of 12 bands" in " ".join(scene.notes)
    assert warn_out_of_distribution(scene, measure(scene)) == []


def test_without_statistics_only_cloud_is_warned_about():
    scene = paint(*(["cloud"] * 40))
    assert len(warn_out_of_distribution(scene, measure(scene))) == 1
