"""Labels follow their scenes through rotation, mosaics, clouds and other augmentation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from earthvlm.data.augmentation import add_clouds, augment, join_scenes, stain_water
from earthvlm.data.labels import QUARTERS
from earthvlm.scenes.bands import BANDS
from tests.conftest import random_scene
from tests.support.made_labels import MIXED, TOWN, WATER, make_labels


@pytest.mark.parametrize(
    ("turn", "place"),
    [
        (lambda f: f.flipped(1), "top right"),
        (lambda f: f.flipped(0), "bottom left"),
        (lambda f: f.rotated(1), "bottom left"),
        (lambda f: f.rotated(2), "bottom right"),
    ],
)
def test_quarters_follow_flips_and_rotations(turn, place):
    assert [name for name in QUARTERS if turn(MIXED).quarter(name).dominant == "water"] == [place]


def test_mosaics_have_quarters_and_halves():
    scene = (random_scene(16, 16), make_labels(*[WATER] * 4))
    other = (random_scene(16, 16), make_labels(*[TOWN] * 4))
    joined, labels = join_scenes([[scene, other], [scene, scene]])
    assert joined.reflectance.shape == (32, 32, 12)
    assert labels.quarter("top right").dominant == "built-up land"
    assert labels.quarter("left half").shares["water"] == 1
    assert labels.shares["water"] == 0.75


def test_augmented_pixels_and_labels_agree():
    """Water is made dark: after any variation, the dark quarters are those called water."""
    for seed in range(40):
        reflectance = np.full((64, 64, 12), 3000, np.float32)
        reflectance[:32, :32] = 100
        scene = replace(random_scene(), reflectance=reflectance)
        rng = np.random.default_rng(seed)
        varied, labels = augment(scene, MIXED, rng, zoom=1.5 if seed % 2 else 1)
        if labels.cloud_share + labels.haze_share > 0.02:
            continue
        red = varied.reflectance[..., 2]
        half = red.shape[0] // 2
        means = {
            "top left": red[:half, :half].mean(),
            "top right": red[:half, half:].mean(),
            "bottom left": red[half:, :half].mean(),
            "bottom right": red[half:, half:].mean(),
        }
        darkest = min(means, key=means.get)
        assert labels.quarter(darkest).dominant == "water", seed


def test_added_clouds_are_bright_and_labelled():
    dark = np.full((64, 64, 12), 200, np.float32)
    covered = []
    for seed in range(20):
        pixels, labels = add_clouds(dark, MIXED, np.random.default_rng(seed))
        blue = pixels[..., 0]
        covered.append((labels.cloud_share, (blue > 1800).mean()))
        assert labels.cloud_share + labels.haze_share <= 1.001
    shares, bright = np.array(covered).T
    assert shares.max() > 0.8 and shares.min() == 0
    assert np.corrcoef(shares, bright)[0, 1] > 0.8


def test_stain_water_darkens_water_alone():
    green, infrared = BANDS.index("B03"), BANDS.index("B08")
    pixels = np.full((8, 8, 12), 2000, np.float32)
    pixels[:4] = 250
    pixels[:4, :, infrared] = 200
    browner = 0
    for seed in range(20):
        stained = stain_water(pixels, np.random.default_rng(seed))
        np.testing.assert_array_equal(stained[4:], pixels[4:])
        assert (stained[:4] < pixels[:4]).all() and (stained > 50).all()
        browner += (stained[:4, :, green] < stained[:4, :, infrared]).all()
    assert browner > 10
