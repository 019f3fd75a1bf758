"""Scenes saved as GeoTIFFs open unchanged."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import rasterio

from earthvlm.scenes.bands import (
    BANDS,
)
from earthvlm.scenes.scene import Scene
from tests.support.made_rasters import NEW, band_of, make_lake, make_photo, make_values


@pytest.fixture
def lake() -> Scene:
    return make_lake()


def test_a_saved_scene_opens_unchanged(tmp_path, lake):
    lake = replace(lake, pixel_metres=20.0)
    lake.save(tmp_path / "lake.tif")
    again = Scene.open(tmp_path / "lake.tif")
    np.testing.assert_array_equal(again.reflectance, lake.reflectance)
    for attribute in ("date", "longitude", "latitude", "name", "bands", "notes", "pixel_metres"):
        assert getattr(again, attribute) == getattr(lake, attribute)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a saved scene has no grid
        file = rasterio.open(tmp_path / "lake.tif")
    with file:
        assert set(file.dtypes) == {"uint16"} and file.descriptions == BANDS


def test_saved_values_are_taken_as_they_are(tmp_path):
    order = ("B02", "B03", "B04", "B08")
    cloud = Scene.from_array(make_values(order, offset=1000), order, date=NEW, boa_offset=False)
    cloud.reflectance[0, 0, :4] = 0  # zero in every band, and a value all the same
    cloud.save(tmp_path / "cloud.tif")
    again = Scene.open(tmp_path / "cloud.tif")
    np.testing.assert_array_equal(again.reflectance, cloud.reflectance)
    assert again.bands == order and again.notes == ()


def test_scenes_without_visible_bands_can_be_saved(tmp_path):
    order = ("B05", "B06", "B07")
    scene = Scene.from_array(make_values(order), order)
    scene.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(Scene.open(tmp_path / "a.tif").reflectance, scene.reflectance)


def test_a_saved_photo_stays_a_photo(tmp_path):
    make_photo().save(tmp_path / "photo.png")
    Scene.open(tmp_path / "photo.png").save(tmp_path / "photo.tif")
    again = Scene.open(tmp_path / "photo.tif")
    assert again.is_rgb_only
    original = band_of(Scene.open(tmp_path / "photo.png"), "B03")
    assert np.abs(band_of(again, "B03") - original).max() <= 0.5


def test_saving_into_a_missing_folder_is_refused(tmp_path, lake):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        lake.save(tmp_path / "nowhere" / "lake.tif")
