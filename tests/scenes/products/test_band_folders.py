"""Folders with a file for each band, as BigEarthNet, catalogues of COGs and other tools write."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earthvlm import Scene
from earthvlm.scenes.bands import BANDS, FILE_ORDER_12
from earthvlm.scenes.products.band_files import is_band_folder, name_files
from tests.conftest import random_scene
from tests.support.made_items import KEYS
from tests.support.made_products import SIDE, STEPS, make_tile, shrink, write_band

BIGEARTHNET = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_42_11"
DEA = {
    "B01": "coastal_aerosol",
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B08": "nir_1",
    "B05": "red_edge_1",
    "B06": "red_edge_2",
    "B07": "red_edge_3",
    "B8A": "nir_2",
    "B11": "swir_2",
    "B12": "swir_3",
}


def write_folder(folder: Path, names: dict[str, str], pixels: np.ndarray | None = None) -> Path:
    """Write bands of a tile under these file names, each at its own pixel size."""
    pixels = make_tile() if pixels is None else pixels
    for band, name in names.items():
        step = STEPS[band]
        data = shrink(pixels[FILE_ORDER_12.index(band)], step)
        write_band(folder / name, data, 10 * step)
    return folder


def check_folder(scene: Scene, bands) -> None:
    assert set(scene.bands) == set(bands)
    for band in ("B02", "B03", "B04"):
        found = scene.reflectance[:, :, BANDS.index(band)]
        assert np.array_equal(found, make_tile()[FILE_ORDER_12.index(band)])
    for band in set(bands) - {"B02", "B03", "B04", "B08"}:
        found = scene.reflectance[8:-8, 8:-8, BANDS.index(band)]
        wanted = make_tile()[FILE_ORDER_12.index(band)][8:-8, 8:-8].astype(float)
        assert np.abs(found - wanted).max() <= 1, band


@pytest.mark.parametrize(
    ("folder", "form", "names"),
    [
        (BIGEARTHNET, BIGEARTHNET + "_{}.tif", {}),
        ("S2A_33UUP_20170613_0_L2A", "{}.tif", {}),
        ("S2A_33UUP_20170613_0_L2A", "{}.tif", KEYS),
        ("2017-06-13", "T33UUP_20170613T101031_{}_10m.jp2", {}),
        ("dea", "ga_s2am_ard_3-2-1_33UUP_2017-06-13_final_nbart-{}.tif", DEA),
        ("maja", "SENTINEL2A_20170613-101608-456_L2A_T33UUP_C_V2-2_FRE_{}.tif", {}),
        ("hls", "HLS.S30.T33UUP.2017164T101031.v2.0.{}.tif", {}),
    ],
)
def test_folders_of_known_names_open(tmp_path, folder, form, names):
    bands = names or dict(zip(FILE_ORDER_12, FILE_ORDER_12, strict=True))
    if "maja" in folder:
        bands = {band: f"B{band.lstrip('B0')}" for band in FILE_ORDER_12}
    written = {band: form.format(name) for band, name in bands.items()}
    write_folder(tmp_path / folder, written)
    write_band(tmp_path / folder / "TCI.tif", np.zeros((SIDE, SIDE), np.uint8), 10)
    scene = Scene.open(tmp_path / folder)
    check_folder(scene, bands)
    assert scene.date == datetime.date(2017, 6, 13)
    assert scene.pixel_metres == pytest.approx(10, rel=0.01)


def test_a_scene_classification_beside_bands_is_read(tmp_path):
    names = {band: f"{band}.tif" for band in ("B02", "B03", "B04", "B08")}
    folder = write_folder(tmp_path / "a", names)
    write_band(folder / "SCL.tif", np.full((SIDE // 2, SIDE // 2), 9, np.uint8), 20)
    write_band(folder / "dataMask.tif", np.eye(SIDE, dtype=np.uint8) ^ 1, 10)
    scene = Scene.open(folder)
    assert scene.cloud_mask.all()
    assert np.array_equal(scene.valid, ~np.eye(SIDE, dtype=bool))


def test_the_finest_file_of_a_band_is_taken(tmp_path):
    names = {band: f"R10m/T31TDG_{band}_10m.jp2" for band in ("B02", "B03", "B04")}
    folder = write_folder(tmp_path / "a", names)
    coarse = shrink(make_tile()[FILE_ORDER_12.index("B02")], 2)
    write_band(folder / "R20m" / "T31TDG_B02_20m.jp2", coarse, 20)
    check_folder(Scene.open(folder), names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: write_band(f / "S2B_B02.tif", make_tile()[0], 10), "holds B02 twice, in 'B02.t"),
        (
            lambda f: write_band(f / "B08.tif", make_tile()[0], 10, crs="EPSG:32632"),
            "places or pro",
        ),
        (lambda f: write_band(f / "B08.tif", make_tile()[0][:40], 10), "does not cover the same"),
        (lambda f: write_band(f / "B08.tif", make_tile()[0][:40], 10, crs=None), "does not cover"),
        (
            lambda f: write_band(f / "B08.tif", make_tile()[0] + 1j, 10, dtype="complex64"),
            "complex",
        ),
        (lambda f: (f / "B08.tif").write_bytes(b"text"), "'B08.tif' is neither a GeoTIFF nor"),
        (lambda f: (f / "B04.tif").unlink(), "a folder without bands of one scene"),
    ],
)
def test_odd_folders_are_refused(tmp_path, change, message):
    names = {band: f"{band}.tif" for band in ("B02", "B03", "B04")}
    folder = write_folder(tmp_path / "a", names)
    change(folder)
    with pytest.raises(ValueError, match=message):
        Scene.open(folder)


def test_harmonised_landsat_is_refused(tmp_path):
    form = "HLS.L30.T33UUP.2017164T101031.v2.0.{}.tif"
    write_folder(tmp_path / "a", {band: form.format(band) for band in ("B02", "B03", "B04")})
    with pytest.raises(ValueError, match="is of Landsat"):
        Scene.open(tmp_path / "a")


def test_files_that_are_no_bands_are_left_out():
    names = ["QI_DATA/MSK_B02.jp2", "T31TDG_TCI_10m.jp2", "AOT.tif", "B02.xml", "._B02.tif"]
    assert name_files([*names, "a/T31TDG_20230716T105629_WVP_10m.jp2", "PVI_B0.jp2"]) == []


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    bands=st.permutations(FILE_ORDER_12).map(lambda order: order[:6]),
    form=st.sampled_from(["{}.tif", "x_{}.tif", "S2A_{}_20m.tif", "a b-{}.tiff", "{}_clip.tif"]),
    lower=st.booleans(),
)
def test_band_names_are_found_in_any_order(bands, form, lower):
    paths = [form.format(band.lower() if lower else band) for band in bands]
    assert [file.band for file in name_files(paths)] == list(bands)


def test_bands_of_several_days_are_refused(tmp_path):
    names = {"B02": "T31TDG_20210716_B02.tif", "B03": "T31TDG_20210716_B03.tif"}
    write_folder(tmp_path, names | {"B04": "T31TDG_20220308_B04.tif"})
    with pytest.raises(ValueError, match="holds bands of 2 days, as .*20210716.* and .*20220308"):
        Scene.open(tmp_path)


def test_numbered_scenes_are_no_bands(tmp_path):
    # Numbers that are wavelengths, too: 490, 560, 665.
    names = [f"tile_{number:04d}.tif" for number in (490, 491, 560, 561, 665, 666)]
    assert not is_band_folder(names) and is_band_folder(names[::2])
    scene = random_scene(16, 16)
    for name in names[::2]:
        scene.save(tmp_path / name)
    assert Scene.open(tmp_path / names[0]).bands == scene.bands


def test_one_of_a_scenes_bands_is_refused_with_advice(tmp_path):
    write_folder(tmp_path, {band: f"patch_{band}.tif" for band in ("B02", "B03", "B04")})
    with pytest.raises(ValueError, match="'patch_B03.tif' is one band of a scene; give the folder"):
        Scene.open(tmp_path / "patch_B03.tif")
