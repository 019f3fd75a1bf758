"""Scene: made from arrays, and described."""

from __future__ import annotations

import numpy as np
import pytest

from earthvlm.scenes.bands import (
    FILE_ORDER_12,
)
from earthvlm.scenes.scene import Scene
from tests.support.made_rasters import NEW, OLD, band_of, make_lake, make_values


@pytest.fixture
def lake() -> Scene:
    return make_lake()


def test_from_array_places_bands_and_copies():
    order = ("B8A", "B4", "b03", "B02")
    values = make_values(("B8A", "B04", "B03", "B02"))
    scene = Scene.from_array(values, order, date=OLD, longitude=1.5, latitude=-2.5, name="x")
    assert scene.bands == ("B02", "B03", "B04", "B8A")
    np.testing.assert_array_equal(band_of(scene, "B8A"), values[:, :, 0])
    assert (scene.date, scene.longitude, scene.latitude, scene.name) == (OLD, 1.5, -2.5, "x")
    before = band_of(scene, "B8A").copy()
    values[:] = 0
    np.testing.assert_array_equal(band_of(scene, "B8A"), before)


def test_from_array_scales_fractions_in_a_copy():
    values = (make_values() / 10_000).astype(np.float32)
    original = values.copy()
    scene = Scene.from_array(values, FILE_ORDER_12)
    assert band_of(scene, "B08").max() > 2500
    assert any("multiplied by 10000" in note for note in scene.notes)
    np.testing.assert_array_equal(values, original)


def test_from_array_removes_the_offset_on_request():
    values = make_values(offset=1000)
    asked = Scene.from_array(values, FILE_ORDER_12)
    assert band_of(asked, "B08").max() > 4000
    assert any("boa_offset=True" in note for note in asked.notes)
    assert Scene.from_array(values, FILE_ORDER_12, boa_offset=False).notes == ()
    taken = Scene.from_array(values, FILE_ORDER_12, boa_offset=True)
    assert band_of(asked, "B08").max() - band_of(taken, "B08").max() == 1000
    assert Scene.from_array(make_values(), FILE_ORDER_12, date=NEW).notes == ()


@pytest.mark.parametrize(
    ("values", "bands", "words"),
    [
        (make_values(), ("B02", "B03", "B04"), "12 band names|3 band names"),
        (make_values()[:, :, 0], ("B02",), "shape"),
        (make_values()[:, :, :3], ("B02", "B03", "B13"), "'B13' is no band"),
        (make_values()[:, :, :3], ("B02", "B03", "B2"), "at least 3 different"),
        (make_values()[:, :, :2], ("B02", "B03"), "at least 3 different"),
        (make_values() * 0, FILE_ORDER_12, "no data in it"),
        (make_values() * np.nan, FILE_ORDER_12, "no data in it"),
        (make_values()[:4], FILE_ORDER_12, "at least 8 x 8"),
        (np.zeros((2048, 2056, 3)), ("B02", "B03", "B04"), "at most 2048"),
        (make_values().astype(str), FILE_ORDER_12, "not numbers"),
    ],
)
def test_bad_arrays_are_refused(values, bands, words):
    with pytest.raises(ValueError, match=words):
        Scene.from_array(values, bands)


def test_the_constructor_checks_its_array():
    with pytest.raises(ValueError, match="Scene.from_array"):
        Scene(np.zeros((16, 16, 3), np.float32))
    with pytest.raises(ValueError, match="Scene.from_array"):
        Scene(np.zeros((16, 16, 12)))
    values = np.ones((16, 16, 12), np.float32)
    values[3, 3, 5] = np.nan
    with pytest.raises(ValueError, match="NaN in part of a band"):
        Scene(values)


def test_summary_gives_size_bands_date_and_place(lake):
    words = "32 x 32 pixels, all 12 bands, 1 July 2021, 42.350° S 2.815° E"
    assert lake.summary() == words
    order = ("B02", "B03", "B04", "B08")
    partial = Scene.from_array(make_values(order), order).summary()
    assert "4 of 12 bands (without B05" in partial and "date unknown" in partial
