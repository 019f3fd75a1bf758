"""The +1000 offset of newer products: recognised, removed, or left to the caller."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio

from earthvlm.scenes.bands import (
    BANDS,
    FILE_ORDER_12,
    FILE_ORDER_13,
)
from earthvlm.scenes.reflectance import decide_offset
from earthvlm.scenes.scene import Scene
from tests.support.made_rasters import NEW, OLD, band_of, make_values, write_tiff

DATA = os.environ.get("EARTHVLM_TEST_DATA", "")
needs_scenes = pytest.mark.skipif(
    not (DATA and Path(DATA, "scenes").is_dir()),
    reason="EARTHVLM_TEST_DATA names no folder with scenes/",
)


@pytest.mark.parametrize(
    ("name", "offset", "taken_off"),
    [
        ("a_20210701T105031", 0, False),  # older: never there
        ("a_20230701T105031", 1000, True),  # newer, and its values show it
        ("a_20230701T105031", 0, False),  # newer, but harmonised already
        ("a", 1000, True),  # unknown date: the values show it
        ("a", 0, False),
        ("S2A_MSIL2A_20180305T105021_N0500_R051_T31TDG", 1000, True),  # old, processed again
        ("S2A_MSIL2A_20180305T105021_N0206_R051_T31TDG", 1000, False),  # bright by itself
    ],
)
def test_the_offset_is_recognised(tmp_path, name, offset, taken_off):
    path = write_tiff(tmp_path / f"{name}.tif", make_values(offset=offset), FILE_ORDER_12)
    scene = Scene.open(path)
    plain = make_values(offset=offset).astype(np.float32)
    expected = np.maximum(plain - 1000, 0) if taken_off else plain
    np.testing.assert_array_equal(band_of(scene, "B08"), expected[:, :, FILE_ORDER_12.index("B08")])
    if offset or "2023" in name:
        assert any("+1000" in note for note in scene.notes)
    else:
        assert scene.notes == ()


def test_the_caller_can_decide_about_the_offset(tmp_path):
    path = write_tiff(tmp_path / "a.tif", make_values(offset=1000), FILE_ORDER_12)
    kept, taken = (Scene.open(path, boa_offset=choice) for choice in (False, True))
    assert band_of(kept, "B8A").max() - band_of(taken, "B8A").max() == 1000
    assert kept.notes == ()


def test_a_dark_cirrus_band_rules_out_the_offset(tmp_path):
    # A cloud: every band but B10 is bright, and the date leaves it open.
    values = make_values(FILE_ORDER_13)
    cirrus = FILE_ORDER_13.index("B10")
    bright = values + 1100
    bright[:, :, cirrus] = values[:, :, cirrus]
    scene = Scene.open(write_tiff(tmp_path / "a.tif", bright, FILE_ORDER_13))
    assert band_of(scene, "B08").max() == bright[:, :, FILE_ORDER_13.index("B08")].max()


@pytest.mark.parametrize(
    ("darkest", "date", "baseline", "taken_off", "says_how"),
    [
        (14, NEW, None, False, False),
        (850, NEW, None, False, False),  # haze, but below what the offset leaves
        (850, None, None, False, False),
        (1030, NEW, None, True, True),
        (2500, NEW, None, True, True),  # a newer cloud: the rule of the product
        (1030, OLD, None, False, True),  # in doubt: kept, and said
        (1700, OLD, None, False, False),  # an older cloud
        (1030, None, None, True, True),
        (1700, None, None, False, True),
        (1030, NEW, 301, False, True),  # the baseline outranks the date
    ],
)
def test_darkest_value_date_and_baseline_decide(darkest, date, baseline, taken_off, says_how):
    decision, notes = decide_offset(darkest, date=date, baseline=baseline)
    assert decision is taken_off
    assert any("say so with the option boa_offset." in note for note in notes) is says_how


@needs_scenes
@pytest.mark.parametrize(
    "date", ["2020-01-13", "2020-01-18", "2020-02-02", "2020-09-14", "2021-07-16", "2022-03-08"]
)
def test_real_harmonised_scenes_are_unchanged(date):
    path = Path(DATA, "scenes", f"boadella_{date}_L2A.tif")
    scene = Scene.open(path)
    with rasterio.open(path) as file:
        raw = file.read()
        names = file.descriptions
    for band in BANDS:
        np.testing.assert_array_equal(band_of(scene, band), raw[names.index(band)])
    assert scene.date == datetime.date.fromisoformat(date)
    assert (scene.longitude, scene.latitude) == pytest.approx((2.815, 42.3476), abs=1e-3)


@needs_scenes
@pytest.mark.parametrize(
    ("date", "name"),
    [
        ("2020-02-02", "scene"),
        ("2021-07-16", "scene_20240301T105031"),
        ("2022-03-08", "scene"),
    ],
)
def test_the_offset_is_removed_from_real_scenes(tmp_path, date, name):
    original = Scene.open(Path(DATA, "scenes", f"boadella_{date}_L2A.tif"))
    values = (original.reflectance + 1000).astype(np.uint16)
    scene = Scene.open(write_tiff(tmp_path / f"{name}.tif", values, BANDS))
    np.testing.assert_array_equal(scene.reflectance, original.reflectance)
