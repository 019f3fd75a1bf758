"""`earthvlm segment`: shares, JSON and a GeoTIFF on the scene's grid."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import torch
from rasterio.crs import CRS
from rasterio.transform import from_origin

from earthvlm.cli import main
from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.land_cover import COVER_COLOURS, COVERS
from tests.cli.support import assert_one_sentence
from tests.conftest import random_scene

UTM = CRS.from_epsg(32631)
GRID = from_origin(500_000, 4_700_000, 10, 10)


@pytest.fixture
def mapping_bridge(tiny_bridge, tmp_path):
    torch.manual_seed(0)
    tiny_bridge.add_segmentation_head()
    tiny_bridge.save_pretrained(tmp_path / "bridge")
    return str(tmp_path / "bridge")


def write_raster(path, transform=GRID):
    values = random_scene(20, 30).reflectance.astype(np.uint16)
    size = {"height": 20, "width": 30, "count": 12, "dtype": "uint16"}
    with rasterio.open(path, "w", driver="GTiff", crs=UTM, transform=transform, **size) as file:
        for number, band in enumerate(BANDS, start=1):
            file.write(values[..., number - 1], number)
            file.set_band_description(number, band)
    return str(path)


def test_map_lies_on_the_grid_with_colours_and_names(mapping_bridge, tmp_path, capsys):
    scene, output = write_raster(tmp_path / "scene.tif"), tmp_path / "map.tif"
    assert main(["segment", scene, "-o", str(output), "--model_path", mapping_bridge]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(float(line.split(" %")[0]) for line in lines) == pytest.approx(100, abs=0.5)
    with rasterio.open(output) as file:
        assert (file.crs, file.transform, file.nodata) == (UTM, GRID, 255)
        classes = file.read(1)
        assert file.colormap(1)[0][:3] == COVER_COLOURS["water"]
        assert file.tags()["CLASS_8"] == "cloud"
    assert classes.shape == (20, 30) and classes.max() < len(COVERS)
    largest = COVERS[np.bincount(classes.ravel()).argmax()]
    assert lines[0].endswith(f"% {largest}")
    assert (
        "<Category>water</Category><Category>tree cover"
        in (tmp_path / "map.tif.aux.xml").read_text()
    )


def test_map_of_a_mirrored_scene_points_north(mapping_bridge, tmp_path, capsys):
    south_up = GRID * GRID.translation(0, 20) * GRID.scale(1, -1)
    scene, output = write_raster(tmp_path / "scene.tif", south_up), tmp_path / "map.tif"
    assert main(["segment", scene, "-o", str(output), "--model_path", mapping_bridge]) == 0
    with rasterio.open(output) as file:
        assert file.transform.almost_equals(GRID)


def test_json_has_shares_and_fields(mapping_bridge, tmp_path, capsys):
    scene = write_raster(tmp_path / "scene.tif")
    assert main(["segment", scene, "--json", "--model_path", mapping_bridge]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["shares"]) == set(COVERS)
    assert sum(found["shares"].values()) == pytest.approx(1, abs=0.01)
    assert set(found["fields"].values()) <= set(COVERS) and len(found["fields"]) == 9


def test_photos_give_maps_without_a_place(mapping_bridge, tmp_path, capsys):
    random_scene(20, 30).composite().save(tmp_path / "photo.png")
    photo, output = str(tmp_path / "photo.png"), str(tmp_path / "map.tif")
    assert main(["segment", photo, "-o", output, "--model_path", mapping_bridge]) == 0
    assert "has no grid on Earth" in capsys.readouterr().err
    with rasterio.open(output) as file:
        assert file.crs is None and file.shape == (20, 30)


def test_mistakes_are_named_before_a_model_loads(saved, tmp_path, capsys):
    scene = write_raster(tmp_path / "scene.tif")
    code = main(["segment", scene, "-o", "map.png"])
    assert_one_sentence(code, capsys.readouterr(), "ends in .tif", "map.png")
    code = main(["segment", scene, "-o", str(tmp_path / "none" / "map.tif")])
    assert_one_sentence(code, capsys.readouterr(), "There is no folder")
    code = main(["segment", scene, "-o", scene])
    assert_one_sentence(code, capsys.readouterr(), "would overwrite '")
    code = main(["segment", scene, "--model_path", str(saved)])
    assert_one_sentence(code, capsys.readouterr(), "has no segmentation head")
