"""Rasters as tools and people leave them: fills, masks, mirrored grids, dates, other sensors."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from earthvlm import Scene
from earthvlm.scenes.bands import FILE_ORDER_12
from earthvlm.scenes.tiling import TiledRaster

SIDE = 32
GRID = {"crs": CRS.from_epsg(32631), "transform": Affine(10, 0, 480_000, 0, -10, 4_690_000)}
DAY = datetime.date(2021, 7, 16)


def make_pixels(dtype: type = np.uint16) -> np.ndarray:
    """Twelve bands `[12, H, W]` of reflectance x 10000 that differ everywhere."""
    values = np.random.default_rng(0).integers(150, 3000, (12, SIDE, SIDE))
    return values.astype(dtype)


def write(path: Path, pixels: np.ndarray, tags: dict | None = None, **profile) -> Path:
    names = profile.pop("names", FILE_ORDER_12)
    scales, offsets = profile.pop("scales", None), profile.pop("offsets", None)
    count, height, width = pixels.shape
    size = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", **{**GRID, **size, **profile}) as file:
        file.write(pixels)
        for number, name in enumerate(names[:count], start=1):
            file.set_band_description(number, name)
        file.update_tags(**(tags or {}))
        if scales:
            file.scales, file.offsets = [scales] * count, [offsets or 0.0] * count
    return path


def expected(pixels: np.ndarray) -> np.ndarray:
    """What plain bands `[12, H, W]` open to, `[H, W, 12]`."""
    order = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09")
    return np.stack([pixels[FILE_ORDER_12.index(band)] for band in order], axis=2)


def test_a_plain_raster_opens_as_written(tmp_path):
    scene = Scene.open(write(tmp_path / "plain.tif", make_pixels()))
    assert np.array_equal(scene.reflectance, expected(make_pixels()))
    assert scene.notes == ()


@pytest.mark.parametrize("fill", [-999, -9999, 65535, 9.96921e36, np.nan, -np.inf])
def test_undeclared_fills_are_missing(tmp_path, fill):
    pixels = make_pixels(np.float32)
    pixels[:, :, :8] = fill
    scene = Scene.open(write(tmp_path / "filled.tif", pixels))
    assert scene.reflectance.max() <= 3000 and scene.reflectance.min() >= 0
    assert np.array_equal(scene.reflectance[:, 8:], expected(make_pixels())[:, 8:])
    assert any("25% of its pixels hold no data" in note for note in scene.notes)


def test_one_glint_does_not_change_the_unit(tmp_path):
    pixels = make_pixels(np.float32) / 10_000
    pixels[1, 3, 3] = 2.31
    scene = Scene.open(write(tmp_path / "glint.tif", pixels))
    assert np.median(np.abs(scene.reflectance - expected(make_pixels()))) < 1


def test_tags_are_not_applied_to_scaled_values(tmp_path):
    pixels = make_pixels(np.float32) / 10_000
    path = write(tmp_path / "scaled.tif", pixels, scales=0.0001, offsets=-0.1)
    scene = Scene.open(path)
    assert np.allclose(scene.reflectance, expected(make_pixels()), atol=1)
    assert any("not applied a second time" in note for note in scene.notes)


def test_an_internal_mask_hides_pixels(tmp_path):
    pixels = make_pixels()
    pixels[:, :, :8] = 30
    valid = np.ones((SIDE, SIDE), bool)
    valid[:, :8] = False
    path = write(tmp_path / "masked.tif", pixels)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(valid)
    scene = Scene.open(path)
    assert (scene.reflectance[:, :8] != 30).all()
    assert any("mask was used" in note for note in scene.notes)


def test_a_mirrored_grid_is_turned(tmp_path):
    transform = GRID["transform"]
    south_up = Affine(10, 0, transform.c, 0, 10, transform.f - 10 * SIDE)
    plain = Scene.open(write(tmp_path / "north.tif", make_pixels()))
    turned = Scene.open(write(tmp_path / "south.tif", make_pixels()[:, ::-1], transform=south_up))
    assert np.array_equal(turned.reflectance, plain.reflectance)
    assert (turned.longitude, turned.latitude) == pytest.approx((plain.longitude, plain.latitude))
    assert any("mirrored" in note for note in turned.notes)


def test_a_grid_without_a_transform_has_no_place(tmp_path):
    scene = Scene.open(write(tmp_path / "chip.tif", make_pixels(), transform=Affine.identity()))
    assert (scene.longitude, scene.latitude) == (None, None)
    assert np.array_equal(scene.reflectance, expected(make_pixels()))


@pytest.mark.parametrize(
    "tags",
    [
        {"start_date": "16-JUL-2021 10:50:31.024000"},
        {"system:time_start": "1626432631024"},
        {"datetime": "2021/07/16 10:50:31"},
        {"start_datetime": "2021-07-16T10:50:31.024Z"},
        {"acquired": "2021-07-16T10:50:31Z"},
    ],
)
def test_acquisition_dates_of_tools_are_read(tmp_path, tags):
    tags = tags | {"TIFFTAG_DATETIME": "2024:05:01 10:22:33"}
    assert Scene.open(write(tmp_path / "dated.tif", make_pixels(), tags)).date == DAY


def test_gdals_imagery_date_is_read(tmp_path):
    path = write(tmp_path / "dated.tif", make_pixels())
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2021-07-16 10:50:31")
    assert Scene.open(path).date == DAY


def test_the_time_of_saving_is_no_date(tmp_path):
    tags = {"TIFFTAG_DATETIME": "2024:05:01 10:22:33"}
    assert Scene.open(write(tmp_path / "crop.tif", make_pixels(), tags)).date is None


def test_a_period_has_no_single_date(tmp_path):
    path = write(tmp_path / "S2_median_2019-01-01_2019-12-31.tif", make_pixels())
    scene = Scene.open(path)
    assert scene.date is None
    assert any("2019-01-01 to 2019-12-31" in note for note in scene.notes)


def test_level_1c_is_named(tmp_path):
    path = write(tmp_path / "S2A_MSIL1C_20210716T105031_N0301_R051_T31TDG.tif", make_pixels())
    assert any("top of the atmosphere" in note for note in Scene.open(path).notes)


@pytest.mark.parametrize(
    ("name", "pixel", "match"),
    [
        ("LC08_197030_20210716_optical", 30, "of Landsat"),
        ("20210716_PSScene_analytic", 3, "of PlanetScope"),
        ("aerial", 0.2, "pixels of 0.2 m"),
        ("coarse", 1000, "pixels of 1e\\+03 m|pixels of 1,000 m"),
    ],
)
def test_other_sensors_are_refused(tmp_path, name, pixel, match):
    transform = Affine(pixel, 0, 480_000, 0, -pixel, 4_690_000)
    path = write(tmp_path / f"{name}.tif", make_pixels(), transform=transform)
    with pytest.raises(ValueError, match=match):
        Scene.open(path)


def test_a_class_map_is_refused(tmp_path):
    classes = np.random.default_rng(0).choice([10, 40, 80], (1, SIDE, SIDE)).astype(np.uint8)
    path = write(tmp_path / "worldcover.tif", classes, names=())
    with pytest.raises(ValueError, match="a map of 3 classes"):
        Scene.open(path)


def test_false_colour_bytes_are_refused(tmp_path):
    pixels = (make_pixels()[:3] // 12).astype(np.uint8)
    path = write(tmp_path / "false.tif", pixels, names=("B8", "B4", "B3"))
    with pytest.raises(ValueError, match="false-colour"):
        Scene.open(path)


def test_a_fourth_channel_of_infrared_is_no_alpha(tmp_path):
    pixels = (make_pixels()[:4] // 12).astype(np.uint8)
    pixels[3, :, :8] = 0  # water is black in the near infrared
    interpretation = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    path = write(tmp_path / "aerial.tif", pixels, names=(), photometric="RGB")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = interpretation
    assert not any("hold no data" in note for note in Scene.open(path).notes)


def test_a_masked_picture_lacks_pixels(tmp_path):
    path = write(tmp_path / "tci.tif", (make_pixels()[:3] // 12).astype(np.uint8), names=())
    valid = np.ones((SIDE, SIDE), bool)
    valid[:, :8] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(valid)
    assert any("25% of its pixels hold no data" in note for note in Scene.open(path).notes)


def test_tiles_share_one_offset_with_scale_tags(tmp_path):
    dark, bright = make_pixels() + 1000, make_pixels() + 4000
    pixels = np.concatenate([dark, bright], axis=2)
    path = write(tmp_path / "export.tif", pixels, scales=0.0001)
    first, second = (scene for scene in TiledRaster(path, "export", SIDE).tiles())
    assert np.allclose(first.reflectance, expected(make_pixels()), atol=1)
    assert np.allclose(second.reflectance, expected(make_pixels() + 3000), atol=1)
