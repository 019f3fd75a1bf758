"""The encoder against the package it wraps, driven by hand."""

from __future__ import annotations

import datetime
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from olmoearth_pretrain_minimal import ModelID, NormalizerV1, NormalizerV1_1
from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.nn.searchlight import embed_domain
from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.constants import Modality
from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.datatypes import MaskedOlmoEarthSample

from earthvlm.models.olmoearth import OlmoEarthEncoder
from earthvlm.models.olmoearth_loading import olmoearth_repository, resolve_model_id
from earthvlm.scenes.bands import BANDS
from tests.conftest import random_scene

NINE = tuple(b for b in BANDS if b not in ("B8A", "B01", "B09"))


VERSIONS = pytest.mark.parametrize(
    ("version", "normalizer", "band_sets"),
    [("v1", NormalizerV1, 3), ("v1.2", NormalizerV1_1, 1)],
)


def _by_hand(encoder, normalizer, band_sets, values, date=(5, 2, 2021), patch=8):
    """The package alone on reflectance `[H, W, 12]`: `[H/patch, W/patch, band sets, D]`."""
    height, width = values.shape[:2]
    pixels = normalizer().normalize(Modality.SENTINEL2_L2A, values)
    sample = MaskedOlmoEarthSample(
        timestamps=torch.tensor([[date]]),
        sentinel2_l2a=torch.tensor(pixels, dtype=torch.float32)[None, :, :, None],
        sentinel2_l2a_mask=torch.zeros(1, height, width, 1, band_sets),
    )
    with torch.no_grad():
        output = encoder.network(sample, patch_size=patch, fast_pass=True)
    return output["tokens_and_masks"].sentinel2_l2a[0, :, :, 0]


@pytest.mark.filterwarnings("ignore:Up to .* bands were:UserWarning")
@VERSIONS
@pytest.mark.parametrize("bands", [BANDS, NINE], ids=["12 bands", "9 bands"])
def test_tokens_match_the_package(version, normalizer, band_sets, bands):
    encoder = OlmoEarthEncoder(f"random-{version}-nano", bands).eval()
    scene = replace(random_scene(64, 64), date=datetime.date(2021, 3, 5))
    values = scene.reflectance.copy()
    values[..., [i for i, b in enumerate(BANDS) if b not in bands]] = np.nan
    with torch.no_grad():
        seen = encoder([encoder.prepare(scene)])
    expected = _by_hand(encoder, normalizer, band_sets, values).flatten(0, -2)
    assert seen.tokens.shape == (1, 8 * 8 * band_sets, encoder.dim)
    torch.testing.assert_close(seen.tokens[0], expected)


def test_missing_bands_cause_no_warning(monkeypatch):
    """One that is hidden shows again, and other filters are lost, where threads prepare scenes."""
    monkeypatch.setattr(warnings, "warn", lambda *told, **_: pytest.fail(str(told)))
    OlmoEarthEncoder("random-v1.2-nano", NINE).prepare(random_scene(8, 8))


@VERSIONS
def test_small_patches_match_the_package(version, normalizer, band_sets):
    encoder = OlmoEarthEncoder(f"random-{version}-nano", patch_size=4).eval()
    scene = replace(random_scene(32, 32), date=datetime.date(2021, 3, 5))
    with torch.no_grad():
        seen = encoder([encoder.prepare(scene)])
    expected = _by_hand(encoder, normalizer, band_sets, scene.reflectance, patch=4)
    assert seen.grids == ((8, 8),)
    torch.testing.assert_close(seen.tokens[0], expected.flatten(0, -2))


@VERSIONS
def test_patch_size_can_be_chosen_per_scene(version, normalizer, band_sets):
    encoder = OlmoEarthEncoder(f"random-{version}-nano", patch_size=4).eval()
    scene = replace(random_scene(28, 32), date=datetime.date(2021, 3, 5))
    assert (encoder.count_patches(scene), encoder.count_patches(scene, 8)) == (56, 16)
    prepared = encoder.prepare(scene, 8)
    with torch.no_grad():
        seen = encoder([prepared])
    whole = np.pad(scene.reflectance, ((0, 4), (0, 0), (0, 0)), mode="edge")
    expected = _by_hand(encoder, normalizer, band_sets, whole)
    assert seen.grids == ((4, 4),)
    torch.testing.assert_close(seen.tokens[0], expected.flatten(0, -2))


@VERSIONS
def test_each_scene_is_encoded_with_its_date(version, normalizer, band_sets):
    encoder = OlmoEarthEncoder(f"random-{version}-nano").eval()
    scene = random_scene(32, 32)
    dates = (datetime.date(2017, 1, 28), datetime.date(2023, 7, 2))
    prepared = [encoder.prepare(replace(scene, date=d)) for d in dates]
    with torch.no_grad():
        first, second = encoder(prepared).tokens
    for tokens, date in ((first, (28, 0, 2017)), (second, (2, 6, 2023))):
        expected = _by_hand(encoder, normalizer, band_sets, scene.reflectance, date)
        torch.testing.assert_close(tokens, expected.flatten(0, -2))
    assert not torch.allclose(first, second, atol=1e-3)


@VERSIONS
def test_crops_are_independent_and_joined_in_order(version, normalizer, band_sets):
    encoder = OlmoEarthEncoder(f"random-{version}-nano").eval()
    scene = replace(random_scene(208, 312), date=datetime.date(2021, 3, 5))  # six of 104 x 104
    with torch.no_grad():
        whole = encoder([encoder.prepare(scene)])
    grid = whole.tokens[0].unflatten(0, (*whole.grids[0], band_sets))
    corner, last = scene.reflectance[:104, :104], scene.reflectance[104:, 208:]
    torch.testing.assert_close(grid[:13, :13], _by_hand(encoder, normalizer, band_sets, corner))
    torch.testing.assert_close(grid[13:, 26:], _by_hand(encoder, normalizer, band_sets, last))
    places = whole.positions[0].unflatten(0, (*whole.grids[0], band_sets))
    assert torch.all(places[1:, ..., 0] > places[:-1, ..., 0])
    assert torch.all(places[:, 1:, :, 1] > places[:, :-1, :, 1])


@pytest.mark.parametrize("model_id", ModelID)
def test_every_model_id_has_its_width(model_id):
    """The published network's shape; its weights need the Hub."""
    _, version, size = model_id.value.lower().split("-")
    with torch.device("meta"):  # shapes without 300 million random numbers
        encoder = OlmoEarthEncoder(f"random-{version.replace('_', '.')}-{size}").eval()
    widths = {"nano": 128, "tiny": 192, "small": 384, "base": 768, "large": 1024}
    assert encoder.dim == widths[size]
    with torch.no_grad():
        tokens = encoder([encoder.prepare(random_scene(16, 16))]).tokens
    count = {"v1": 4 * 3, "v1_3": 64}.get(version, 4)
    assert tokens.shape == (1, count, encoder.dim)
    assert olmoearth_repository(model_id.value) == f"allenai/{model_id.value}"


@pytest.mark.slow
def test_v1_3_uses_location_tokens():
    """In windows of 16 pixels, each as the package's own code for v1.3 embeds it."""
    encoder = OlmoEarthEncoder("random-v1.3-base").eval()
    scene = replace(random_scene(16, 32), date=datetime.date(2021, 3, 5))
    with torch.no_grad():
        seen = encoder([encoder.prepare(scene)])
    assert seen.grids == ((8, 16),) and encoder.patch_size == 2
    pixels = NormalizerV1_1().normalize(Modality.SENTINEL2_L2A, scene.reflectance)
    sample = MaskedOlmoEarthSample(
        timestamps=torch.tensor([[(5, 2, 2021)]]),
        sentinel2_l2a=torch.tensor(pixels, dtype=torch.float32)[None, :, :, None],
        sentinel2_l2a_mask=torch.zeros(1, 16, 32, 1, 1),
    )
    windows = {"crop_px": 16, "overlap_px": 0, "output_key": "location_tokens"}
    expected = embed_domain(encoder.network, sample, 2, None, **windows)
    torch.testing.assert_close(seen.tokens[0], expected.flatten(0, 1), atol=1e-4, rtol=1e-4)
    with pytest.raises(
        ValueError, match=r"random-v1\.3-base takes patches of 1 or 2 pixels.* not 8"
    ):
        encoder.check_patch_size(8)


def test_v1_encodes_non_square_scenes():
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


def test_batch_of_mixed_sizes_equals_single_scenes():
    encoder = OlmoEarthEncoder("random-v1.2-nano").eval()
    scenes = [random_scene(64, 64), random_scene(20, 36, seed=1)]
    prepared = [encoder.prepare(s) for s in scenes]
    with torch.no_grad():
        both = encoder(prepared)
        alone = encoder(prepared[1:])
    assert both.mask.sum(1).tolist() == [64, 3 * 5]
    torch.testing.assert_close(both.tokens[1][both.mask[1]], alone.tokens[0])


def test_untrained_bands_are_ignored():
    encoder = OlmoEarthEncoder("random-v1.2-nano", NINE)
    scene = random_scene()
    changed = scene.reflectance.copy()
    changed[..., BANDS.index("B8A")] = 9999
    first, second = encoder.prepare(scene), encoder.prepare(replace(scene, reflectance=changed))
    assert torch.equal(first.pixels, second.pixels)


def test_unknown_model_id_is_rejected():
    with pytest.raises(ValueError, match="'OlmoEarth-v9' is no OlmoEarth model"):
        OlmoEarthEncoder("OlmoEarth-v9")


@pytest.mark.parametrize(
    "name",
    [
        ModelID.OLMOEARTH_V1_NANO,
        "OlmoEarth-v1-Nano",
        "olmoearth-v1-nano",
        "OLMOEARTH_V1_NANO",
        "olmoearth_v1_nano",
        "allenai/OlmoEarth-v1-Nano",
    ],
)
def test_model_id_spellings_resolve_to_one(name):
    resolved = resolve_model_id(name)
    assert resolved == "OlmoEarth-v1-Nano" and type(resolved) is not ModelID
    assert olmoearth_repository(name) == "allenai/OlmoEarth-v1-Nano"


@VERSIONS
def test_batch_can_mix_patch_sizes(version, normalizer, band_sets):
    encoder = OlmoEarthEncoder(f"random-{version}-nano").eval()
    scenes = [random_scene(64, 64, seed=1), random_scene(40, 136, seed=2), random_scene(32, 32)]
    prepared = [encoder.prepare(s, p) for s, p in zip(scenes, (8, 4, 4), strict=True)]
    with torch.no_grad():
        together = encoder(prepared)
        alone = [encoder([each]) for each in prepared]
    assert together.grids == ((8, 8), (10, 34), (8, 8))
    for tokens, positions, mask, one in zip(
        together.tokens, together.positions, together.mask, alone, strict=True
    ):
        torch.testing.assert_close(tokens[mask], one.tokens[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(positions[mask], one.positions[0])
