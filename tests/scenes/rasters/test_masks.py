"""Pixels without data and clouds of a scene classification: kept in the scene, and not measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from earthvlm import Scene
from earthvlm.embeddings.rows import measure_cloud
from earthvlm.scenes.analysis.spectral_indices import classify_pixels, measure
from earthvlm.scenes.bands import FILE_ORDER_12
from earthvlm.scenes.isolated_reader import IsolatedReader
from earthvlm.scenes.tiling import TiledRaster
from tests.support.made_rasters import make_values, write_tiff

SIDE = 32
HALF = slice(0, SIDE // 2)  # the lake's columns, of which the first quarter is masked below
MASKED = (slice(None), slice(0, SIDE // 4))


def mask_inside(path: Path, columns: int) -> Path:
    """Add an internal mask that leaves out the first columns."""
    valid = np.ones((SIDE, SIDE), bool)
    valid[:, :columns] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(valid)
    return path


def check_quarter_missing(scene: Scene) -> None:
    """The first quarter of the columns is missing, so a third of the others is water."""
    assert scene.valid is not None and not scene.valid[MASKED].any()
    assert scene.valid[:, SIDE // 4 :].all()
    assert measure(scene).share("water") == pytest.approx(1 / 3)


@pytest.mark.parametrize("fill", [-999, 0, -9999])
def test_filled_pixels_are_not_measured(tmp_path, fill):
    values = make_values().astype(np.int16)
    values[MASKED] = fill
    check_quarter_missing(Scene.open(write_tiff(tmp_path / "a.tif", values, FILE_ORDER_12)))
    from_array = Scene.from_array(values, FILE_ORDER_12)
    check_quarter_missing(from_array)
    assert not (classify_pixels(from_array).covers[MASKED] < 6).any()


def test_internal_mask_is_kept(tmp_path):
    path = write_tiff(tmp_path / "masked.tif", make_values(), FILE_ORDER_12)
    check_quarter_missing(Scene.open(mask_inside(path, SIDE // 4)))


def test_named_data_mask_is_used(tmp_path):
    values = np.concatenate([make_values(), np.ones((SIDE, SIDE, 1), np.uint16)], axis=2)
    values[MASKED][..., -1] = 0
    path = write_tiff(tmp_path / "masked.tif", values, [*FILE_ORDER_12, "dataMask"])
    scene = Scene.open(path)
    check_quarter_missing(scene)
    assert not any("no bands of Sentinel-2" in note for note in scene.notes)


def test_masked_photo_keeps_its_mask(tmp_path):
    rgb = np.random.default_rng(0).integers(30, 90, (SIDE, SIDE, 3), np.uint8)
    path = mask_inside(write_tiff(tmp_path / "tci.tif", rgb, photometric="RGB"), SIDE // 4)
    scene = Scene.open(path)
    assert scene.valid is not None and scene.valid.mean() == 0.75
    alpha = np.dstack([rgb, np.where(np.arange(SIDE) < 8, 0, 255)[None].repeat(SIDE, 0)])
    Image.fromarray(alpha.astype(np.uint8)).save(tmp_path / "rgba.png")
    assert np.array_equal(Scene.open(tmp_path / "rgba.png").valid, scene.valid)


def test_mirrored_raster_turns_its_masks(tmp_path):
    values = np.concatenate([make_values(), np.full((SIDE, SIDE, 1), 4, np.uint16)], axis=2)
    values[: SIDE // 4] = 0
    transform = rasterio.Affine(10, 0, 500_000, 0, 10, 4_700_000)
    path = write_tiff(tmp_path / "m.tif", values, [*FILE_ORDER_12, "SCL"], transform=transform)
    scene = Scene.open(path)
    assert not scene.valid[-SIDE // 4 :].any() and scene.valid[: -SIDE // 4].all()
    assert not scene.scl[-SIDE // 4 :].any() and (scene.scl[: -SIDE // 4] == 4).all()


@pytest.mark.parametrize(("label", "cloud"), [("SCL", 9), ("SCL", 8), ("SCL", 10), ("CLM", 1)])
def test_clouds_of_a_mask_band_are_measured(tmp_path, label, cloud):
    mask = np.where(np.arange(SIDE) < SIDE // 2, cloud, 0)[None, :, None].repeat(SIDE, 0)
    values = np.concatenate([make_values(), mask.astype(np.uint16)], axis=2)
    scene = Scene.open(write_tiff(tmp_path / "a.tif", values, [*FILE_ORDER_12, label]))
    measured = measure(scene)
    assert measured.share("cloud") == 0.5 and measured.share("water") == 0
    assert scene.cloud_mask[:, HALF].all() and not scene.cloud_mask[:, SIDE // 2 :].any()


def test_saving_keeps_mask_and_classification(tmp_path):
    values = make_values()
    values[MASKED] = 0
    scl = np.full((SIDE, SIDE), 6, np.uint8)
    scene = replace(Scene.from_array(values, FILE_ORDER_12, name="a"), scl=scl)
    scene.save(tmp_path / "a.tif")
    again = Scene.open(tmp_path / "a.tif")
    assert np.array_equal(again.valid, scene.valid) and np.array_equal(again.scl, scl)
    assert np.array_equal(again.reflectance, np.rint(scene.reflectance))
    plain = Scene.from_array(make_values(), FILE_ORDER_12)
    plain.save(tmp_path / "b.tif")
    assert Scene.open(tmp_path / "b.tif").valid is None


def test_isolated_reader_returns_masks(tmp_path):
    values = np.concatenate([make_values(), np.full((SIDE, SIDE, 1), 6, np.uint16)], axis=2)
    values[MASKED] = 0
    path = write_tiff(tmp_path / "a.tif", values, [*FILE_ORDER_12, "SCL"])
    reader = IsolatedReader(readers=1)
    try:
        scene, direct = reader.open(path), Scene.open(path)
    finally:
        reader.close()
    assert np.array_equal(scene.reflectance, direct.reflectance)
    assert np.array_equal(scene.valid, direct.valid) and np.array_equal(scene.scl, direct.scl)


def test_cloudy_share_is_of_pixels_with_data(tmp_path):
    values = make_values()
    values[:, HALF] = 0
    values[:, SIDE // 2 : SIDE * 7 // 8] = 6000
    path = write_tiff(tmp_path / "a.tif", values, FILE_ORDER_12)
    (scene,) = TiledRaster(path, "a").tiles()
    # three quarters of the pixels with data, three eighths of the tile
    assert measure_cloud(scene) == pytest.approx(0.75)


def test_masks_of_another_size_are_refused():
    scene = Scene.from_array(make_values(), FILE_ORDER_12)
    for masks in ({"valid": np.ones((4, 4), bool)}, {"scl": np.ones((SIDE, SIDE), np.int64)}):
        with pytest.raises(ValueError, match="as its pixels ask for"):
            replace(scene, **masks)
