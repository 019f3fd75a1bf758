"""Maps of scenes as files: cloud-optimized, in their colours, where the scene is."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from earthvlm.bridge.attention_maps import AnswerAttention, write_attention_map
from earthvlm.cli import main
from earthvlm.scenes.analysis.map_geotiff import write_cover_map
from earthvlm.scenes.bands import FILE_ORDER_12
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.land_cover import COVER_COLOURS, COVERS, NO_DATA, CoverMap
from earthvlm.scenes.scene import Scene
from tests.cli.support import assert_one_sentence
from tests.support.made_rasters import OLD, make_values, write_tiff

GRID = Grid("EPSG:32633", (10.0, 0.0, 330_000.0, 0.0, -10.0, 5_822_040.0))


def make_scene(side: int, grid: Grid | None = GRID) -> Scene:
    return Scene.from_array(make_values(side=side), FILE_ORDER_12, grid=grid, date=OLD, name="a")


def test_a_cover_map_is_a_cog_whose_overviews_hold_its_classes(tmp_path):
    classes = np.random.default_rng(0).choice([0, 3, 8, NO_DATA], (1100, 1300)).astype(np.uint8)
    write_cover_map(tmp_path / "map.tif", CoverMap(classes), make_scene(8))
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        np.testing.assert_array_equal(file.read(1), classes)
        assert file.crs.to_epsg() == 32633 and tuple(file.transform)[:6] == GRID.transform
        assert file.tags()["ACQUISITION_DATE"] == OLD.isoformat()
        assert file.tags()["CLASS_3"] == COVERS[3] and file.nodata == NO_DATA
        colours = file.colormap(1)
        assert [colours[value][:3] for value in range(len(COVERS))] == list(COVER_COLOURS.values())
        assert file.overviews(1)
    with rasterio.open(tmp_path / "map.tif", overview_level=0) as file:
        assert set(np.unique(file.read(1))) == {0, 3, 8, NO_DATA}


@pytest.mark.parametrize("side", [64, 60])
def test_an_attention_map_lies_on_the_pixels_of_its_patches(tmp_path, side):
    maps = np.full((2, 8, 8), 1.0, np.float32)
    maps[0, 7, 2] = maps[1, 0, 5] = 9
    attention = AnswerAttention(("a", " lake"), maps, np.ones((8, 8), np.float32), patch_size=8)
    scene = make_scene(side)
    write_attention_map(tmp_path / "a.tif", attention, scene, word=1)
    with rasterio.open(tmp_path / "a.tif") as file:
        values = file.read(1)
        assert tuple(file.transform)[:6] == GRID.transform
        dark, bright = file.colormap(1)[0], file.colormap(1)[254]
        assert sum(dark[:3]) < 20 and sum(bright[:3]) > 500
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert values.shape == (side, side)
    assert (values[:8, 40:48] == 254).all() and values[:8, 48:].max() < 254
    assert values[56:, 16:24].max() == 0


def test_describe_writes_where_the_answer_attended(saved, tmp_path, capsys):
    scene = str(write_tiff(tmp_path / "scene.tif", make_values(side=64), FILE_ORDER_12))
    output = tmp_path / "attention.tif"
    command = [
        "describe",
        scene,
        "--model_path",
        str(saved),
        "--max_length",
        "8",
        "--device",
        "cpu",
    ]
    assert main([*command, "--attention", str(output)]) == 0
    assert capsys.readouterr().out.strip()
    with rasterio.open(output) as file, rasterio.open(scene) as source:
        assert (file.crs, file.transform, file.shape) == (
            *(source.crs, source.transform, source.shape),
        )
        assert file.read(1).max() == 254


def test_attention_of_several_scenes_is_refused_first(no_model, tmp_path, capsys):
    scene = str(write_tiff(tmp_path / "scene.tif", make_values(), FILE_ORDER_12))
    code = main(["describe", scene, scene, "--attention", str(tmp_path / "a.tif")])
    assert_one_sentence(code, capsys.readouterr(), "takes one scene, and 2 are given")
    code = main(["describe", scene, "--attention", scene])
    assert_one_sentence(code, capsys.readouterr(), "would overwrite '")
    code = main(["describe", scene, "--attention", "a.png"])
    assert_one_sentence(code, capsys.readouterr(), "ends in .tif")


@pytest.fixture
def no_model(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a model was loaded before the input was refused")

    monkeypatch.setattr("earthvlm.cli.scenes.describe.load_bridge", refuse)
