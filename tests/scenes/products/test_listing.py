"""Which files and folders below a folder are scenes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from earthvlm import Scene
from earthvlm.scenes.bands import FILE_ORDER_12
from earthvlm.scenes.products.listing import is_scene_folder, list_scenes
from earthvlm.scenes.tiling import TiledRaster
from tests.scenes.datasets.test_datasets import make_dataset
from tests.scenes.products.test_band_folders import write_folder
from tests.support.made_items import NAME as ITEM
from tests.support.made_items import write_item
from tests.support.made_products import NAME, make_tile, pack, write_safe
from tests.support.made_rasters import make_values, write_tiff

SCENES = {
    f"{NAME}.SAFE",
    "a.nc",
    "a.tif",
    "a.zarr",
    f"catalogue/{ITEM}.json",
    "patch",
    "photo.png",
    "product.zip",
    "sub/b.tif",
    "triplets/s2_rgb_images/s2_images/1908_3064_patch00.png",
}


@pytest.fixture
def folder(tmp_path):
    """One scene of each kind that `Scene.open` reads, and files next to them that are none."""
    images = tmp_path / "images"
    safe = write_safe(images, make_tile())
    pack(safe, images / "product.zip")
    make_dataset().to_netcdf(images / "a.nc")
    make_dataset().to_zarr(images / "a.zarr", zarr_format=2)
    write_folder(images / "patch", {band: f"patch_{band}.tif" for band in FILE_ORDER_12})
    write_tiff(images / "a.tif", make_values(side=32), FILE_ORDER_12)
    (images / "sub").mkdir()
    write_tiff(images / "sub" / "b.tif", make_values(side=32), FILE_ORDER_12)
    (images / "catalogue").mkdir()
    write_item(images / "catalogue")
    pixels = np.random.default_rng(0).integers(0, 255, (32, 40, 3), np.uint8)
    for name in ("photo.png", "a.png", "S2A_preview.jpg", "thumbnail.webp"):
        Image.fromarray(pixels).save(images / name)
    for part in ("s2_rgb_images", "s2_band_5_6_7_images", "s2_band_8_11_12_images"):
        (images / "triplets" / part / "s2_images").mkdir(parents=True)
        name = "1908_3064_patch00.png"
        Image.fromarray(pixels).save(images / "triplets" / part / "s2_images" / name)
    (images / "captions.json").write_text(json.dumps([{"image": "photo.png"}]))
    (images / "notes.txt").write_text("no scene")
    return images


def test_scenes_of_every_kind_are_listed_and_open(folder):
    found = list_scenes(folder, below=True)
    assert {path.relative_to(folder).as_posix() for path in found} == SCENES
    direct = {name for name in SCENES if "/" not in name}
    assert {path.name for path in list_scenes(folder)} == direct
    for path in found:
        scene = Scene.open(path)
        (tile,) = TiledRaster(path, "tile").tiles()
        assert np.array_equal(tile.reflectance, scene.reflectance, equal_nan=True), path
    assert is_scene_folder(folder / "a.zarr") and not is_scene_folder(folder)
