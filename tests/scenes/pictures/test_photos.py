"""RGB, grey and palette pictures read as three bands."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from PIL import Image

from earthvlm.scenes.scene import Scene
from tests.support.made_rasters import band_of, make_photo, write_tiff


@pytest.mark.parametrize(
    ("suffix", "mode"), [("png", "RGB"), ("png", "RGBA"), ("tif", "RGB"), ("webp", "RGB")]
)
def test_photos_have_three_bands_and_a_note(tmp_path, suffix, mode):
    path = tmp_path / f"photo.{suffix}"
    photo = make_photo(mode=mode)
    photo.save(path, **({"lossless": True} if suffix == "webp" else {}))
    scene = Scene.open(path)
    assert scene.is_rgb_only and set(scene.bands) == {"B02", "B03", "B04"}
    for index, band in enumerate(("B04", "B03", "B02")):
        expected = np.asarray(photo)[:, :, index] * (3558 / 255)
        np.testing.assert_allclose(band_of(scene, band), expected, rtol=1e-5)
    assert any("3 of 12 bands" in note for note in scene.notes)
    assert "3 of 12 bands" in scene.summary()
    assert scene.available_composites() == ("true colour",)


def test_exif_orientation_is_applied(tmp_path):
    photo = Image.new("RGB", (40, 24), "black")
    photo.paste("white", (0, 0, 20, 24))  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter to the right: the top half is white
    photo.save(tmp_path / "a.jpg", exif=exif)
    scene = Scene.open(tmp_path / "a.jpg")
    assert (scene.width, scene.height) == (24, 40)
    assert band_of(scene, "B03")[:15].min() > 3000 > 500 > band_of(scene, "B03")[25:].max()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_palettes_become_colours(tmp_path, suffix):
    photo = Image.new("P", (20, 20), 0)
    photo.putpalette([255, 0, 0, 0, 0, 255, *range(60)])
    photo.paste(1, (0, 0, 10, 20))
    for colour in range(2, 20):  # fewer would be a map of classes
        photo.putpixel((colour, 0), colour)
    photo.save(tmp_path / f"a.{suffix}")
    scene = Scene.open(tmp_path / f"a.{suffix}")
    assert (band_of(scene, "B02")[1:, :10] == 3558).all()
    assert (band_of(scene, "B04")[1:, 10:] == 3558).all()
    assert not any("grey" in note for note in scene.notes)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_grey_photos_are_read_with_a_note(tmp_path, suffix):
    make_photo(mode="L").save(tmp_path / f"a.{suffix}")
    scene = Scene.open(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(band_of(scene, "B02"), band_of(scene, "B04"))
    assert any("grey" in note for note in scene.notes)


def test_transparent_pixels_are_no_data(tmp_path):
    photo = make_photo(40, 40, "RGBA")
    photo.paste((9, 9, 9, 0), (0, 0, 40, 10))
    photo.save(tmp_path / "a.png")
    scene = Scene.open(tmp_path / "a.png")
    assert any(note.startswith("25% ") for note in scene.notes)
    assert band_of(scene, "B04")[0, 0] == np.median(band_of(scene, "B04")[10:])


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_large_photos_are_shrunk_with_a_note(tmp_path, suffix):
    make_photo(2000, 1000).save(tmp_path / f"a.{suffix}")
    scene = Scene.open(tmp_path / f"a.{suffix}")
    assert (scene.width, scene.height) == (1024, 512)
    assert any("2000 x 1000" in note for note in scene.notes)


def test_8_bit_geotiffs_keep_place_and_date(tmp_path):
    path = tmp_path / "T31TDG_20210308T105111_TCI.tif"
    scene = Scene.open(write_tiff(path, np.asarray(make_photo()), photometric="RGB"))
    assert scene.is_rgb_only
    assert scene.longitude == pytest.approx(3.0, abs=1e-6)
    assert scene.date == datetime.date(2021, 3, 8)
