"""Warnings about scenes that differ from the tiles a bridge was trained on."""

from __future__ import annotations

from earthvlm.scenes.analysis.distribution_shift import TrainingStatistics, warn_out_of_distribution
from earthvlm.scenes.analysis.spectral_indices import measure
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


def test_without_statistics_only_cloud_is_warned_about():
    scene = paint(*(["cloud"] * 40))
    assert len(warn_out_of_distribution(scene, measure(scene))) == 1
