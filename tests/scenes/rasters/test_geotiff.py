"""GeoTIFFs: bands by name or order, units, pixels without data, place and date."""

from __future__ import annotations

import datetime
import warnings

import numpy as np
import pytest
import rasterio

from earthvlm.scenes.bands import (
    BANDS,
    FILE_ORDER_12,
    FILE_ORDER_13,
)
from earthvlm.scenes.scene import Scene
from tests.support.made_rasters import band_of, make_values, write_tiff


def test_bands_are_found_by_description_in_any_order(tmp_path):
    order = tuple(reversed(FILE_ORDER_12))
    values = make_values(order)
    scene = Scene.open(write_tiff(tmp_path / "a.tif", values, order))
    for index, band in enumerate(order):
        np.testing.assert_array_equal(band_of(scene, band), values[:, :, index])
    assert scene.bands == BANDS
    assert scene.reflectance.dtype == np.float32
    assert scene.notes == ()
    assert (scene.height, scene.width, scene.name) == (32, 32, "a")


@pytest.mark.parametrize("order", [FILE_ORDER_12, FILE_ORDER_13])
@pytest.mark.parametrize("numbered", [False, True])
def test_unnamed_bands_are_read_in_esa_order_with_a_note(tmp_path, order, numbered):
    values = make_values(order)
    names = [f"Band {number}" for number in range(1, len(order) + 1)] if numbered else None
    scene = Scene.open(write_tiff(tmp_path / "a.tif", values, names))
    for band in BANDS:
        np.testing.assert_array_equal(band_of(scene, band), values[:, :, order.index(band)])
    assert ", ".join(order) in scene.notes[0]


def test_absent_bands_are_missing(tmp_path):
    order = ("B02", "B03", "B04", "B08")
    names = ["Blue", "Green", "Red", "NIR"]
    scene = Scene.open(write_tiff(tmp_path / "a.tif", make_values(order), names))
    assert scene.bands == order
    assert np.isnan(band_of(scene, "B11")).all()
    assert not scene.is_rgb_only


def test_other_bands_are_ignored_with_a_note(tmp_path):
    values = np.dstack([make_values(), np.full((32, 32, 2), 4, np.uint16)])
    names = [*FILE_ORDER_12, "WVP", "AOT"]
    scene = Scene.open(write_tiff(tmp_path / "a.tif", values, names))
    assert scene.bands == BANDS
    assert any("WVP, AOT" in note for note in scene.notes)


def test_bands_of_zeros_are_missing(tmp_path):
    values = make_values()
    for band in ("B01", "B09"):
        values[:, :, FILE_ORDER_12.index(band)] = 0
    scene = Scene.open(write_tiff(tmp_path / "a.tif", values, FILE_ORDER_12))
    assert set(BANDS) - set(scene.bands) == {"B01", "B09"}
    assert any("B01, B09" in note for note in scene.notes)


def test_fractions_are_scaled_with_a_note(tmp_path):
    values = make_values()
    path = write_tiff(tmp_path / "a.tif", (values / 10_000).astype(np.float32), FILE_ORDER_12)
    scene = Scene.open(path)
    expected = values[:, :, FILE_ORDER_12.index("B08")]
    np.testing.assert_allclose(band_of(scene, "B08"), expected, rtol=1e-5)
    assert any("multiplied by 10000" in note for note in scene.notes)


def test_declared_scale_and_offset_are_applied(tmp_path):
    values = make_values(offset=1000)
    path = write_tiff(tmp_path / "a_20230601T105031.tif", values, FILE_ORDER_12)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [1e-4] * 12, [-0.1] * 12
    expected = values[:, :, FILE_ORDER_12.index("B08")] - 1000.0
    np.testing.assert_allclose(band_of(Scene.open(path), "B08"), expected, atol=0.1)


def test_nodata_pixels_are_filled_with_the_median(tmp_path):
    values = make_values()
    values[:8, :, :] = 65_535  # a quarter
    path = write_tiff(tmp_path / "a.tif", values, FILE_ORDER_12, nodata=65_535)
    scene = Scene.open(path)
    red = values[:, :, FILE_ORDER_12.index("B04")]
    assert (band_of(scene, "B04")[:8] == np.median(red[8:])).all()
    np.testing.assert_array_equal(band_of(scene, "B04")[8:], red[8:])
    assert any(note.startswith("25% ") for note in scene.notes)


def test_zero_in_every_band_is_no_data_in_one_it_is_dark(tmp_path):
    values = make_values()
    values[0, 0, :] = 0
    values[5, 5, FILE_ORDER_12.index("B12")] = 0
    path = write_tiff(tmp_path / "a.tif", values, FILE_ORDER_12, nodata=0)
    scene = Scene.open(path)
    assert band_of(scene, "B12")[5, 5] == 0
    assert band_of(scene, "B12")[0, 0] > 0
    assert any("Less than 1%" in note for note in scene.notes)


def test_nan_pixels_are_filled(tmp_path):
    values = make_values().astype(np.float32)
    values[:3, :3] = np.nan
    scene = Scene.open(write_tiff(tmp_path / "a.tif", values, FILE_ORDER_12))
    assert np.isfinite(scene.reflectance).all()
    assert any("hold no data" in note for note in scene.notes)


def test_place_is_the_centre_in_degrees(tmp_path):
    path = write_tiff(tmp_path / "a.tif", make_values(), FILE_ORDER_12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scene = Scene.open(path)
    # UTM 31N has its middle meridian, easting 500 km, at 3 degrees east.
    assert scene.longitude == pytest.approx(3.0, abs=1e-6)
    assert scene.latitude == pytest.approx(42.4527, abs=1e-3)


def test_pixel_size_is_that_on_the_ground(tmp_path):
    utm = Scene.open(write_tiff(tmp_path / "utm.tif", make_values(), FILE_ORDER_12))
    assert utm.pixel_metres == pytest.approx(10, rel=0.005)
    # At 60 degrees north Web Mercator draws everything twice as large.
    transform = rasterio.transform.from_origin(0, 8_399_738, 20, 20)
    mercator = {"crs": "EPSG:3857", "transform": transform}
    path = write_tiff(tmp_path / "mercator.tif", make_values(), FILE_ORDER_12, **mercator)
    assert Scene.open(path).pixel_metres == pytest.approx(10, rel=0.005)


def test_without_projection_the_place_is_unknown(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write_tiff(
            tmp_path / "a.tif", make_values(), FILE_ORDER_12, crs=None, transform=None
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scene = Scene.open(path)
    assert (scene.longitude, scene.latitude) == (None, None)
    assert scene.pixel_metres is None
    assert "place unknown" in scene.summary()


def test_the_time_of_saving_is_no_date(tmp_path):
    tags = {"TIFFTAG_DATETIME": "2024:05:05 10:00:00"}
    named = tmp_path / "S2B_MSIL2A_20210308T105111.tif"
    scene = Scene.open(write_tiff(named, make_values(), FILE_ORDER_12, tags))
    assert scene.date == datetime.date(2021, 3, 8)
    scene = Scene.open(write_tiff(tmp_path / "a.tif", make_values(), FILE_ORDER_12, tags))
    assert scene.date is None
