"""The encoder against the package it wraps, driven by hand."""

from __future__ import annotations

import datetime
from dataclasses import replace

import numpy as np
import pytest
import torch
from olmoearth_pretrain_minimal import NormalizerV1, NormalizerV1_1
from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.constants import Modality
from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.datatypes import MaskedOlmoEarthSample

from earthvlm.encoder import OlmoEarthEncoder
from earthvlm.sentinel2 import BANDS
from tests.conftest import random_scene

NINE = tuple(b for b in BANDS if b not in ("B8A", "B01", "B09"))


@pytest.mark.filterwarnings("ignore:Up to .* bands were:UserWarning")
@pytest.mark.parametrize(
    ("version", "normalizer", "band_sets"),
    [("v1", NormalizerV1, 3), ("v1.2", NormalizerV1_1, 1)],
)
@pytest.mark.parametrize("bands", [BANDS, NINE], ids=["12 bands", "9 bands"])
def test_tokens_equal_those_of_the_package(version, normalizer, band_sets, bands):
    encoder = OlmoEarthEncoder(f"random-{version}-nano", bands).eval()
    scene = replace(random_scene(64, 64), date=datetime.date(2021, 3, 5))
    values = scene.reflectance.copy()
    values[..., [i for i, b in enumerate(BANDS) if b not in bands]] = np.nan
    pixels = normalizer().normalize(Modality.SENTINEL2_L2A, values)
    sample = MaskedOlmoEarthSample(
        timestamps=torch.tensor([[[5, 2, 2021]]]),
        sentinel2_l2a=torch.tensor(pixels, dtype=torch.float32)[None, :, :, None],
        sentinel2_l2a_mask=torch.zeros(1, 64, 64, 1, band_sets),
    )
    with torch.no_grad():
        expected = encoder.network(sample, patch_size=8, fast_pass=True)["tokens_and_masks"]
        seen = encoder([encoder.prepare(scene)])
    expected = expected.sentinel2_l2a.flatten(1, -2)
    assert seen.tokens.shape == (1, 8 * 8 * band_sets, encoder.dim)
    torch.testing.assert_close(seen.tokens, expected)


def test_crops_are_encoded_alone_and_put_back_in_order():
    encoder = OlmoEarthEncoder("random-v1.2-nano").eval()
    scene = random_scene(160, 200)
    with torch.no_grad():
        whole = encoder([encoder.prepare(scene)])
        corner = replace(scene, reflectance=scene.reflectance[128:, 128:])
        alone = encoder([encoder.prepare(corner)])
    grid = whole.tokens[0].unflatten(0, whole.grids[0])
    torch.testing.assert_close(grid[16:, 16:].flatten(0, 1), alone.tokens[0])
    places = whole.positions[0].unflatten(0, whole.grids[0])
    assert torch.all(places[1:, :, 0] > places[:-1, :, 0])
    assert torch.all(places[:, 1:, 1] > places[:, :-1, 1])


def test_v1_takes_scenes_that_are_not_square():
    encoder = OlmoEarthEncoder("random-v1-nano").eval()
    scene = random_scene(64, 32)
    with torch.no_grad():
        seen = encoder([encoder.prepare(scene)])
        edge = scene.reflectance[:, -1:].repeat(32, axis=1)
        wide = replace(scene, reflectance=np.concatenate([scene.reflectance, edge], axis=1))
        square = encoder([encoder.prepare(wide)])
    assert seen.grids == ((8, 4),) and seen.tokens.shape[1] == 8 * 4 * 3
    expected = square.tokens[0].unflatten(0, (8, 8, 3))[:, :4].flatten(0, 2)
    torch.testing.assert_close(seen.tokens[0], expected)


def test_a_batch_of_unlike_sizes_equals_its_scenes_alone():
    encoder = OlmoEarthEncoder("random-v1.2-nano").eval()
    scenes = [random_scene(64, 64), random_scene(20, 36, seed=1)]
    prepared = [encoder.prepare(s) for s in scenes]
    with torch.no_grad():
        both = encoder(prepared)
        alone = encoder(prepared[1:])
    assert both.mask.sum(1).tolist() == [64, 3 * 5]
    torch.testing.assert_close(both.tokens[1][both.mask[1]], alone.tokens[0])


def test_bands_beyond_the_training_are_not_seen():
    encoder = OlmoEarthEncoder("random-v1.2-nano", NINE)
    scene = random_scene()
    changed = scene.reflectance.copy()
    changed[..., BANDS.index("B8A")] = 9999
    first, second = encoder.prepare(scene), encoder.prepare(replace(scene, reflectance=changed))
    assert torch.equal(first.pixels, second.pixels)


def test_an_unknown_model_is_refused_by_name():
    with pytest.raises(ValueError, match="'OlmoEarth-v9' is no OlmoEarth model"):
        OlmoEarthEncoder("OlmoEarth-v9")
