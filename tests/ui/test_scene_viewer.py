"""What the viewer of a scene is given: coordinates, pixels, bands to choose, maps, plain texts."""

from __future__ import annotations

import base64
from types import SimpleNamespace

import numpy as np
import pytest

from earthvlm.bridge.attention_maps import AnswerAttention
from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.scene import Scene
from earthvlm.ui.scene_viewer import (
    BLOCK_SIDE,
    NO_VALUE,
    get_chosen_bands,
    read_block,
    show_viewer,
)
from tests.ui.opened_scenes import make_photo, open_scene

NAME = "<img src=x onerror=alert(1)>"


def make_placed() -> Scene:
    """A scene of 100 x 70 pixels in UTM zone 33, with pixels without data."""
    array = np.random.default_rng(0).integers(100, 4000, (70, 100, 12)).astype(np.float32)
    array[69, 99] = 0
    grid = Grid("EPSG:32633", (10.0, 0.0, 400_000.0, 0.0, -10.0, 5_300_000.0))
    return Scene.from_array(array, BANDS, grid=grid, pixel_metres=10.0)


def test_names_and_words_reach_the_page_as_text():
    attention = AnswerAttention((NAME,), np.full((1, 2, 2), 0.25), np.full((2, 2), 0.25), 8)
    value = show_viewer(open_scene(make_photo(NAME)), "true colour", attention)
    assert value["name"] == NAME and value["attention"]["words"] == [NAME]
    assert "<img" not in value["caption"]  # which the page writes as HTML
    assert value["metres"] is value["lattice"] is value["north"] is None


def test_lattice_and_north_are_those_of_the_grid():
    scene = make_placed()
    value = show_viewer(open_scene(scene), "B11 B08 B02", stretch="high contrast")
    assert value["lattice"][0][0] == pytest.approx(scene.grid.locate(0, 0), abs=1e-6)
    assert value["lattice"][-1][-1] == pytest.approx(scene.grid.locate(70, 100), abs=1e-6)
    # West of the zone's meridian grid north lies left of north, here by 1.0 degrees.
    assert value["north"] == pytest.approx(1.0, abs=0.1)
    assert value["choice"]["shown"] == ["B11", "B08", "B02"]
    assert value["choice"]["stretch"] == "high contrast"


def test_blocks_hold_the_reflectance_of_their_pixels():
    scene = make_placed()
    block = read_block(scene, 3)  # the last, in the lower right corner
    values = np.frombuffer(base64.b64decode(block["values"]), "<i2")
    values = values.reshape(70 - BLOCK_SIDE, 100 - BLOCK_SIDE, 12)
    assert block["width"] == 100 - BLOCK_SIDE
    b01, b12 = (scene.reflectance[64:, 64:, BANDS.index(band)] for band in ("B01", "B12"))
    known = scene.valid[64:, 64:]
    assert np.array_equal(values[:, :, 0][known], b01[known])
    assert np.array_equal(values[:, :, -1][known], b12[known])
    assert (values[-1, -1] == NO_VALUE).all()
    for wrong in (-1, 4, 1.0, "1", None, True):
        with pytest.raises(ValueError, match="blocks of pixels from 0 to 3"):
            read_block(scene, wrong)


def test_chosen_bands_are_checked():
    def choose(bands: object, stretch: object = "balanced"):
        return get_chosen_bands(SimpleNamespace(bands=bands, stretch=stretch))

    assert choose(["B12", "B8A", "B04"]) == ("short-wave infrared", "balanced")
    assert choose(["B11", "B08", "B02"]) == ("B11 B08 B02", "balanced")
    for bands, stretch in (("B11", "balanced"), (["B11", "B08", "B02"], 3), (None, None)):
        with pytest.raises(ValueError, match="no three bands"):
            choose(bands, stretch)
    for bands in (["B11"], ["B11", "B08", "B10"], ["B02"] * 100, [{}, 1, None]):
        with pytest.raises(ValueError, match="there is no composite"):
            choose(bands)
