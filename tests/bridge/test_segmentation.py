"""Land-cover maps of a bridge: any size, any bands, saved with it."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.bridge.scene_context import shorten_cover
from earthvlm.scenes.analysis.spectral_indices import (
    COVER_CLASSES,
    MEASURED_AS,
    classify_pixels,
)
from earthvlm.scenes.bands import VISIBLE_BANDS
from earthvlm.scenes.land_cover import COVERS
from earthvlm.scenes.overview import shrink_scene
from earthvlm.scenes.scene import Scene
from tests.conftest import random_scene
from tests.support.made_spectra import paint


@pytest.fixture
def mapping_bridge(tiny_bridge):
    torch.manual_seed(0)
    tiny_bridge.add_segmentation_head()
    return tiny_bridge.eval()


@pytest.mark.parametrize(("height", "width"), [(9, 30), (64, 64), (150, 257)])
def test_map_has_the_size_of_its_scene(mapping_bridge, height, width):
    found = mapping_bridge.segment(random_scene(height, width))
    assert found.cover_map.classes.shape == (height, width)
    assert found.probabilities.shape == (9, height, width)
    np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(found.probabilities.argmax(0), found.cover_map.classes)


def test_windows_do_not_change_a_map(mapping_bridge, monkeypatch):
    scene = random_scene(100, 150)
    whole = mapping_bridge.segment(scene).probabilities
    monkeypatch.setattr("earthvlm.bridge.segmentation.WINDOW", 32)
    np.testing.assert_allclose(mapping_bridge.segment(scene).probabilities, whole, atol=1e-5)


def test_map_shows_what_indices_are_sure_of(mapping_bridge):
    """The head's weights are random, so it knows nothing of these covers."""
    scene = paint("cloud", "snow", "water", "dense vegetation")
    classified = classify_pixels(scene)
    assert classified is not None
    found = mapping_bridge.segment(scene)
    for cover, name in MEASURED_AS.items():
        sure = (classified.covers == COVER_CLASSES.index(name)) & ~classified.doubtful
        assert sure.any()
        assert (found.cover_map.classes[sure] == COVERS.index(cover)).all()
    np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("ground", "sure", "is_believed"),
    [("sparse vegetation", 0, False), ("bare or built", 0, True), ("sparse vegetation", 2, True)],
)
def test_houses_are_bare_or_the_head_is_sure(mapping_bridge, ground, sure, is_believed):
    """The borders of fields look like houses to the head, but are green throughout."""
    houses = COVERS.index("built-up land")
    classify = mapping_bridge.segmentation_head.classify
    with torch.no_grad():
        classify.weight.zero_()
        classify.bias.zero_()
        classify.bias[houses] = 1.0 + sure
    found = mapping_bridge.segment(paint(ground))
    assert (found.cover_map.classes == houses).all() == is_believed
    assert (found.cover_map.classes == houses).any() == is_believed
    np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-5)


def test_prompt_uses_the_tokens_of_the_map(mapping_bridge):
    scene = random_scene()
    alone = mapping_bridge.scene_prefix([scene])
    mapping_bridge.segment(scene)
    with torch.no_grad():
        mapping_bridge.encoder.network.norm.weight.zero_()  # what is encoded again is lost
    assert torch.equal(mapping_bridge.scene_prefix([scene]), alone)
    assert not torch.equal(mapping_bridge.scene_prefix([scene]), alone)


def test_missing_bands_do_not_read_as_black(mapping_bridge):
    scene = random_scene()
    pixels = scene.reflectance[..., [2, 1, 0]]
    photo = Scene.from_array(pixels, VISIBLE_BANDS)
    black = scene.reflectance.copy()
    black[..., 3:] = 1
    found = mapping_bridge.segment(photo).probabilities
    assert np.isfinite(found).all()
    assert np.abs(found - mapping_bridge.segment(Scene(black)).probabilities).max() > 1e-3


def test_head_is_saved_and_changes_the_revision(mapping_bridge, tmp_path):
    scene = random_scene()
    mapping_bridge.save_pretrained(tmp_path / "with")
    loaded = OlmoEarthVLMBridge.from_pretrained(tmp_path / "with", "cpu", torch.float32)
    np.testing.assert_allclose(
        loaded.segment(scene).probabilities, mapping_bridge.segment(scene).probabilities, atol=1e-6
    )
    torch.nn.init.zeros_(mapping_bridge.segmentation_head.classify.weight)
    first = mapping_bridge.revision
    mapping_bridge.save_pretrained(tmp_path / "other")
    assert mapping_bridge.revision != first
    (tmp_path / "with" / "segmentation.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks its segmentation\.safetensors"):
        OlmoEarthVLMBridge.from_pretrained(tmp_path / "with", device="cpu")


def test_bridge_without_a_head_refuses_to_map(tiny_bridge):
    with pytest.raises(ValueError, match="it has no segmentation head"):
        tiny_bridge.map_land_cover(random_scene())


def test_map_is_kept_while_the_scene_is_in_use(mapping_bridge):
    scene = random_scene()
    first = mapping_bridge.map_land_cover(scene)
    assert mapping_bridge.map_land_cover(scene) is first
    mapping_bridge.train()
    mapping_bridge.eval()
    assert mapping_bridge.map_land_cover(scene) is not first  # weights may have changed
    del scene
    gc.collect()
    assert len(mapping_bridge.memory.cover_maps) == 0


def test_context_holds_the_map(mapping_bridge):
    mapping_bridge.set_prompts(scene_context=True)
    scene = random_scene()
    largest = next(iter(mapping_bridge.segment(scene).cover_map.shares))
    context = mapping_bridge.write_context(scene)
    assert shorten_cover(largest) in context.split("Map:")[1]


def test_large_scenes_are_answered_from_an_overview(mapping_bridge, monkeypatch):
    monkeypatch.setattr("earthvlm.bridge.scene_memory.OVERVIEW_PIXELS", 64 * 64)
    scene = random_scene(128, 128)
    assert mapping_bridge.map_land_cover(scene).classes.shape == (64, 64)
    assert mapping_bridge.segment(scene).cover_map.classes.shape == (128, 128)
    seen = shrink_scene(scene, 64 * 64)
    assert torch.equal(mapping_bridge.scene_prefix([scene]), mapping_bridge.scene_prefix([seen]))
