"""Uploaded files become one scene, or one sentence that says why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from earthvlm.scenes.bands import FILE_ORDER_12
from earthvlm.scenes.isolated_reader import IsolatedReader
from earthvlm.scenes.rasters.band_identification import BandOrderError
from earthvlm.scenes.scene import Scene
from earthvlm.ui.scene_viewer import get_chosen_part, show_orders
from earthvlm.ui.uploads import Upload, open_uploads, parse_window
from tests.support.made_products import write_band
from tests.support.made_rasters import write_tiff


def save_pictures(folder: Path, *names: str) -> list[str]:
    pixels = np.random.default_rng(0).integers(20, 200, (64, 64, 3), dtype=np.uint8)
    for name in names:
        Image.fromarray(pixels).save(folder / name)
    return [str(folder / name) for name in names]


def test_three_pngs_are_recognized_by_their_names(tmp_path: Path):
    names = ("a_band_8_11_12.png", "a_rgb.png", "a_band_5_6_7.png")
    scene = open_uploads(save_pictures(tmp_path, *names), Scene.open)
    assert len(scene.bands) == 9
    assert scene.name == "a_rgb"


@pytest.mark.parametrize(
    "names", [("a_rgb.png", "b_rgb.png", "a_band_5_6_7.png"), ("a.png", "b.png"), ()]
)
def test_files_of_several_scenes_are_refused(tmp_path: Path, names: tuple[str, ...]):
    with pytest.raises(ValueError, match="files? arrived"):
        open_uploads(save_pictures(tmp_path, *names), Scene.open)


@pytest.mark.parametrize(
    ("text", "window"),
    [("", None), ("  ", None), ("1 2 3 4", (1, 2, 3, 4)), ("10, 20;30,40", (10, 20, 30, 40))],
)
def test_a_window_is_read_from_a_field(text, window):
    assert parse_window(text) == window


@pytest.mark.parametrize("text", ["1 2 3", "a b c d", "1 2 3 -4", "1.5 2 3 4", "1 2 3 4 5"])
def test_a_wrong_window_gets_a_sentence(text):
    with pytest.raises(ValueError, match="A part has four whole numbers"):
        parse_window(text)


def test_an_upload_is_read_in_part(tmp_path):
    (path,) = save_pictures(tmp_path, "rgb.png")
    whole = Scene.open(path)
    part = open_uploads([path], Scene.open, window=(2, 4, 8, 9))
    assert np.array_equal(part.reflectance[:, :, 0], whole.reflectance[4:13, 2:10, 0])


def save_bands(folder: Path, *bands: str, side: int = 48) -> list[str]:
    """Write a file for each band, as cloud-optimised GeoTIFFs of products are named."""
    paths = [folder / f"T33UUP_20230716_{band}.tif" for band in bands]
    pixels = np.random.default_rng(0).integers(300, 3000, (len(bands), side, side))
    for path, band in zip(paths, pixels, strict=True):
        write_band(path, band.astype(np.uint16), 10)
    return [str(path) for path in paths]


def test_band_files_become_one_scene_in_a_child(tmp_path):
    paths = save_bands(tmp_path, "B02", "B03", "B04", "B08")
    reader = IsolatedReader(readers=1)
    try:
        scene = open_uploads(paths, reader.open)
        assert scene.bands == ("B02", "B03", "B04", "B08")
        assert scene.name == "T33UUP_20230716" and scene.date.isoformat() == "2023-07-16"
        with pytest.raises(ValueError, match="deleted after some minutes"):
            Upload((str(tmp_path / "gone.tif"),)).read(reader.open)
    finally:
        reader.close()


@pytest.mark.slow
def test_parts_of_an_overview_are_read_in_a_child(tmp_path):
    path, side = str(tmp_path / "large.tif"), 2304
    pixels = np.random.default_rng(0).integers(300, 3000, (side // 24, side // 24, 12))
    large = pixels.repeat(24, axis=0).repeat(24, axis=1).astype(np.uint16)
    write_tiff(Path(path), large, FILE_ORDER_12, interleave="band", tiled=True)
    upload, reader = Upload((path,)), IsolatedReader(readers=1)
    try:
        overview = upload.read(reader.open)
        assert overview.overview_of == (0, 0, side, side) and overview.width == 1024
        event = SimpleNamespace(column=1000.0, row=512.0, side=512)
        window = get_chosen_part(event, overview)
        assert window == (side - 512, side // 2 - 256, 512, 512)  # moved to be inside
        part = upload.read(reader.open, window)
        assert part.overview_of is None and part.width == 512
    finally:
        reader.close()
    assert get_chosen_part(SimpleNamespace(column=0, row=0, side=0), overview) is None
    for wrong in ({"side": 4096}, {"column": float("nan")}, {"row": "0"}, {"side": None}):
        with pytest.raises(ValueError, match="the event has no part"):
            get_chosen_part(
                SimpleNamespace(**{"column": 0, "row": 0, "side": 512} | wrong), overview
            )
    with pytest.raises(ValueError, match="full resolution already"):
        get_chosen_part(event, part)


def test_doubtful_band_orders_are_asked_for(tmp_path):
    path = tmp_path / "unnamed.tif"
    same = np.random.default_rng(0).integers(500, 4000, (64, 64, 1)).astype(np.uint16)
    write_tiff(path, same.repeat(12, axis=2))
    upload, reader = Upload((str(path),)), IsolatedReader(readers=1)
    try:
        with pytest.raises(BandOrderError, match="may be in") as caught:
            upload.read(reader.open)
        orders = caught.value.orders
        assert len(orders) > 1 and set(orders["ESA's order"]) == set(FILE_ORDER_12)
        choices = {
            name: replace(upload, bands=order).read(reader.open) for name, order in orders.items()
        }
    finally:
        reader.close()
    shown = show_orders("unnamed.tif", choices)
    assert [each["name"] for each in shown["orders"]] == list(orders)
    assert all(len(each["pictures"]) == 2 for each in shown["orders"])
