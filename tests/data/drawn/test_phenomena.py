"""Drawn phenomena look as the spectral indices expect, and their labels say where they are."""

from __future__ import annotations

import numpy as np
import pytest

from earthvlm.data.drawn import phenomena as drawn
from earthvlm.data.drawn.scenes import draw_scene
from earthvlm.data.drawn.spectra import CURVES, draw_spectrum
from earthvlm.data.pixel_labels import ANY, PixelLabels, cover_set
from earthvlm.data.spectral_consensus import looks_burnt
from earthvlm.scenes.analysis.spectral_indices import find_cloud
from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.reflectance import normalized_difference
from earthvlm.scenes.scene import Scene
from tests.support.labelled_patches import draw_halves

GREEN, SHORT_WAVE, INFRARED = (BANDS.index(band) for band in ("B03", "B11", "B08"))


def fields_and_trees() -> tuple[np.ndarray, PixelLabels]:
    possible = np.full((48, 48), cover_set(["tree cover", "cropland or grass"]))
    return draw_halves("cropland or grass", "tree cover"), PixelLabels.of_sets(possible)


def covered(draw, cover: str, seed: int) -> tuple[Scene, np.ndarray]:
    pixels, labels = draw(*fields_and_trees(), np.random.default_rng(seed))
    return Scene(pixels.astype(np.float32)), labels.possible == cover_set([cover])


@pytest.mark.parametrize("cover", CURVES)
def test_spectra_vary_and_stay_between_nothing_and_all(cover):
    rng = np.random.default_rng(0)
    spectra = np.stack([draw_spectrum(cover, rng) for _ in range(50)])
    assert spectra.shape == (50, 12)
    assert spectra.min() > 0 and spectra.max() < 15_000
    assert (spectra.std(0) / spectra.mean(0)).min() > 0.1


def test_drawn_snow_has_the_index_of_snow():
    seen = 0
    for seed in range(8):
        scene, where = covered(drawn.draw_snow, "snow or ice", seed)
        seen += where.sum()
        green, short_wave = scene.reflectance[..., GREEN], scene.reflectance[..., SHORT_WAVE]
        if where.any():
            assert (normalized_difference(green, short_wave)[where] > 0.4).mean() > 0.9
    assert seen > 1000


def test_drawn_clouds_are_found_as_clouds():
    found = []
    for seed in range(12):
        scene, where = covered(drawn.draw_clouds, "cloud", seed)
        found.append(find_cloud(scene)[where])
    assert np.concatenate(found).mean() > 0.8


def test_drawn_water_is_dark_in_the_infrared():
    for seed in range(8):
        scene, where = covered(drawn.draw_water, "water", seed)
        assert not where.any() or np.median(scene.reflectance[where][:, INFRARED]) < 1500


def test_drawn_fire_scars_lower_the_burn_ratio():
    agreed = []
    for seed in range(12):
        scene, where = covered(drawn.draw_burnt, "burnt land", seed)
        burnt = looks_burnt(scene)
        if 0.05 < where.mean() < 0.4:
            agreed.append(burnt[where].mean())
    assert agreed and np.mean(agreed) > 0.8


def test_photos_have_visible_bands_in_256_levels():
    pixels, _ = fields_and_trees()
    photo = drawn.make_photo(pixels, np.random.default_rng(0))
    assert Scene(photo).is_rgb_only
    levels = photo[..., :3] / 3558 * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)


def test_variations_repeat_and_keep_missing_bands_missing():
    pixels, labels = fields_and_trees()
    pixels[..., SHORT_WAVE] = np.nan
    for seed in range(30):
        varied, changed = drawn.vary(pixels, labels, np.random.default_rng(seed))
        again, _ = drawn.vary(pixels, labels, np.random.default_rng(seed))
        np.testing.assert_array_equal(varied, again)
        assert np.isnan(varied[..., SHORT_WAVE]).all()
        assert not np.isnan(varied[..., GREEN]).any()
        assert changed.possible.min() > 0


def test_drawn_scenes_know_the_cover_of_every_pixel():
    sets = set()
    for seed in range(20):
        pixels, labels = draw_scene(32, np.random.default_rng(seed))
        assert pixels.shape == (32, 32, 12) and pixels.min() > 0
        assert labels.possible.min() > 0 and labels.possible.max() < ANY
        sets |= set(labels.possible.ravel().tolist())
    assert {cover_set([c]) for c in ("water", "snow or ice", "burnt land", "bare soil")} <= sets
