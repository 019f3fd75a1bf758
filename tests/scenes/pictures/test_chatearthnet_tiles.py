"""ChatEarthNet images: three PNGs, and a name that gives the place."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from earthvlm.scenes.bands import (
    CHATEARTHNET_FOLDERS,
    EIGHT_BIT_SCALE,
)
from earthvlm.scenes.pictures.triplet_reader import locate_chatearthnet
from earthvlm.scenes.scene import Scene
from tests.support.made_rasters import band_of, write_triplet

DATA = os.environ.get("EARTHVLM_TEST_DATA", "")
needs_practice = pytest.mark.skipif(
    not (DATA and Path(DATA, "s2_practice").is_dir()),
    reason="EARTHVLM_TEST_DATA names no folder with s2_practice/",
)


@pytest.mark.parametrize("level", ["s2_images", ""])
@pytest.mark.parametrize("folder", CHATEARTHNET_FOLDERS)
def test_any_png_of_a_triplet_opens_nine_bands(tmp_path, folder, level):
    pixels = write_triplet(tmp_path, level=level)
    inside = level if folder == "s2_rgb_images" else ""
    scene = Scene.open(tmp_path / folder / inside / "s2eu_0001.png")
    assert set(scene.bands) == set(pixels) and len(scene.bands) == 9
    for band, values in pixels.items():
        np.testing.assert_allclose(band_of(scene, band), values * EIGHT_BIT_SCALE[band], rtol=1e-5)
    assert scene.name == "s2eu_0001"
    assert not scene.is_rgb_only


@pytest.mark.parametrize("name", ["s2eu_0001.png", "s2eu_0001"])
def test_a_folder_and_a_name_open_a_triplet(tmp_path, name):
    write_triplet(tmp_path)
    by_name = Scene.open(tmp_path, name)
    by_path = Scene.open(tmp_path / "s2_band_5_6_7_images" / "s2eu_0001.png")
    np.testing.assert_array_equal(by_name.reflectance, by_path.reflectance)


@pytest.mark.parametrize("folder", CHATEARTHNET_FOLDERS)
def test_a_missing_partner_is_named(tmp_path, folder):
    write_triplet(tmp_path)
    missing = next((tmp_path / folder).rglob("s2eu_0001.png"))
    missing.unlink()
    with pytest.raises(FileNotFoundError, match=str(missing)):
        Scene.open(tmp_path, "s2eu_0001")


def test_unequal_and_blank_triplets_are_refused(tmp_path):
    write_triplet(tmp_path)
    odd = tmp_path / "s2_band_8_11_12_images" / "s2eu_0001.png"
    Image.new("RGB", (32, 16), "green").save(odd)
    with pytest.raises(ValueError, match="32 x 16 pixels in s2_band_8_11_12_images and 16 x 16"):
        Scene.open(odd)
    for colour in ("black", "white"):
        for path in tmp_path.rglob("s2eu_0001.png"):
            Image.new("RGB", (16, 16), colour).save(path)
        with pytest.raises(ValueError, match="no data in it"):
            Scene.open(odd)


def test_image_names_cannot_leave_the_folder(tmp_path):
    write_triplet(tmp_path)
    (tmp_path / "inner").mkdir()
    with pytest.raises(ValueError, match="not a plain image name"):
        Scene.open(tmp_path / "inner", "../../s2eu_0001.png")
    with pytest.raises(FileNotFoundError, match="no ChatEarthNet folder"):
        Scene.open(tmp_path / "nowhere", "s2eu_0001.png")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("1908_3064_patch00", (-96.1, 41.3)),  # Omaha
        ("5107_3291_patch11", (44.4, 33.3)),  # Baghdad
        ("4134_2853_patch01", (1.7, 47.9)),  # the Loire near Orleans
    ],
)
def test_chatearthnet_names_give_the_place(tmp_path, name, place):
    assert locate_chatearthnet(name) == pytest.approx(place, abs=0.15)
    write_triplet(tmp_path, f"{name}.png")
    scene = Scene.open(tmp_path, name)
    assert (scene.longitude, scene.latitude) == locate_chatearthnet(name)


def test_patch_digits_give_the_quarter():
    west, south_east = (locate_chatearthnet(f"4134_2853_patch{digits}") for digits in ("00", "11"))
    assert south_east[0] - west[0] == pytest.approx(360 / 2**14)
    assert south_east[1] < west[1]
    assert locate_chatearthnet("s2eu_0001") is None
    assert locate_chatearthnet("9000_3000_patch00") is None


@needs_practice
def test_a_real_triplet_opens():
    folder = Path(DATA, "s2_practice")
    path = next((folder / "s2_band_8_11_12_images").glob("*.png"))
    scene = Scene.open(path)
    assert (scene.height, scene.width, len(scene.bands)) == (64, 64, 9)
    assert 0 < np.nanmedian(scene.reflectance) < 8000
    assert (scene.date, scene.longitude) == (None, None)
