"""Parts of large images: windows, bounding boxes, overviews, and one decision for the whole."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.warp import transform

from earthvlm import Scene
from earthvlm.scenes.bands import BANDS, FILE_ORDER_12
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.parts import Part, choose_part, full_size
from earthvlm.scenes.tiling import TiledRaster
from tests.support.made_rasters import make_values, write_tiff

ORDER = [FILE_ORDER_12.index(band) for band in BANDS]
WHOLE = (slice(None), slice(None))


def make_large(height: int, width: int, offset: int = 0) -> np.ndarray:
    """Random reflectance that differs in every pixel, uint16 `[H, W, 12]`."""
    values = np.random.default_rng(0).integers(150, 3000, (height, width, 12), np.uint16)
    return values + np.uint16(offset)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """A raster of more pixels than a scene may have, and its values."""
    values = make_large(1500, 3000)
    path = tmp_path_factory.mktemp("large") / "large_20210716.tif"
    write_tiff(path, values, FILE_ORDER_12, tiled=True, blockxsize=256, blockysize=256)
    return path, values


def test_a_window_is_read_as_stored(large):
    path, values = large
    scene = Scene.open(path, window=(100, 200, 64, 32))
    assert np.array_equal(scene.reflectance, values[200:232, 100:164][:, :, ORDER])
    whole = Grid("EPSG:32631", scene.grid.transform).shift(-200, -100)
    assert whole.transform == (10, 0, 485_000, 0, -10, 4_707_500)
    assert not any("overview" in note for note in scene.notes)


def test_bands_read_by_threads_are_those_of_one(tmp_path, monkeypatch):
    """Large files whose bands lie one after another are decoded by several handles at once."""
    values = make_large(600, 560)
    path = write_tiff(tmp_path / "scene.tif", values, FILE_ORDER_12, interleave="band")
    threads = set()
    read = rasterio.DatasetReader.read

    def noted(file, *arguments, **options):
        threads.add(threading.get_ident())
        return read(file, *arguments, **options)

    monkeypatch.setattr("rasterio.DatasetReader.read", noted, raising=True)
    assert np.array_equal(Scene.open(path).reflectance, values[:, :, ORDER])
    assert len(threads - {threading.get_ident()}) == 2


def test_a_bounding_box_is_read_around_its_place(large):
    path, values = large
    x, y = 485_000 + 10 * 1000, 4_707_500 - 10 * 700
    west, south = (v[0] for v in transform("EPSG:32631", "EPSG:4326", [x], [y - 400]))
    east, north = (v[0] for v in transform("EPSG:32631", "EPSG:4326", [x + 600], [y]))
    scene = Scene.open(path, bbox=(west, south, east, north))
    assert 60 <= scene.width <= 62 and 40 <= scene.height <= 42
    assert west < scene.longitude < east and south < scene.latitude < north
    found = values[699:742, 999:1062][:, :, ORDER]
    top = round((4_707_500 - scene.grid.transform[5]) / 10) - 699
    left = round((scene.grid.transform[2] - 485_000) / 10) - 999
    rows, columns = slice(top, top + scene.height), slice(left, left + scene.width)
    assert np.array_equal(scene.reflectance, found[rows, columns])


@pytest.mark.slow
def test_a_large_image_opens_as_an_overview(large):
    path, values = large
    scene = Scene.open(path)
    assert (scene.width, scene.height) == (1024, 512)
    assert scene.pixel_metres == pytest.approx(29.3, abs=0.2)
    assert any("This is an overview: 1024 x 512 pixels, of 29 m each" in n for n in scene.notes)
    means = values[:, :, ORDER].mean(axis=(0, 1))
    assert np.allclose(scene.reflectance.mean(axis=(0, 1)), means, rtol=0.01)
    left, top = scene.grid.transform[2], scene.grid.transform[5]
    assert (left, top) == (485_000, 4_707_500)


def test_elongated_images_are_read_whole(tmp_path):
    values = make_large(64, 3040)
    path = write_tiff(tmp_path / "strip.tif", values, FILE_ORDER_12)
    scene = Scene.open(path)
    assert np.array_equal(scene.reflectance, values[:, :, ORDER])


def test_an_overview_of_a_strip_keeps_a_row():
    assert full_size(0, 0, 10, 20_000).shrunk(512) == Part(0, 0, 10, 20_000, 1, 512)


def test_a_long_strip_is_read_in_windows(tmp_path):
    path = write_tiff(tmp_path / "strip.tif", make_large(8, 17_000), FILE_ORDER_12)
    with pytest.raises(ValueError, match="too narrow for an overview; give a window"):
        Scene.open(path)
    assert Scene.open(path, window=(16_000, 0, 64, 8)).width == 64


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"window": (2990, 0, 64, 64)}, "is not inside 'large_20210716.tif', which is 3,000 x"),
        ({"window": (-1, 0, 64, 64)}, "is not inside"),
        ({"window": (0, 0, 4, 64)}, "is 4 x 64 pixels in the part that was asked for"),
        ({"window": (0, 0, 64)}, "A window has four numbers"),
        ({"bbox": (10, 40, 11, 41)}, "is not in 'large_20210716.tif', which covers 2.82"),
        ({"bbox": (10, 41, 11, 40)}, "is no bounding box"),
        ({"bbox": (10, 40, 10, 41)}, "has no width"),
        ({"bbox": (10, 40, np.nan, 41)}, "has four numbers"),
        ({"bbox": (2, 42, 3, 43), "window": (0, 0, 64, 64)}, "give one of them"),
    ],
)
def test_parts_that_cannot_be_read_are_refused(large, part, message):
    with pytest.raises(ValueError, match=message):
        Scene.open(large[0], **part)


def test_bounding_boxes_cross_the_antimeridian():
    utm = Grid("EPSG:32660", (10, 0, 700_000, 0, -10, -1_800_000))  # zone 60, Fiji
    part = choose_part((5000, 25_000), utm, "'fiji.tif'", (179.9, -16.3, -179.9, -16.25))
    inside = utm.shift(part.row, part.column).locate(part.height / 2, part.width / 2)
    assert abs(abs(inside[0]) - 180) < 0.01 and inside[1] == pytest.approx(-16.275, abs=0.01)
    degrees = Grid("EPSG:4326", (0.001, 0, 179, 0, -0.001, -16))  # columns beyond 180 degrees
    part = choose_part((1000, 2000), degrees, "'fiji.tif'", (179.9, -16.3, -179.9, -16.25))
    assert (part.column, part.width) == (900, 200)


def test_a_mirrored_raster_gives_the_same_part(tmp_path):
    values = make_large(64, 64)
    north = write_tiff(tmp_path / "north.tif", values, FILE_ORDER_12)
    with rasterio.open(north) as file:
        t = file.transform
    upside = rasterio.Affine(t.a, 0, t.c, 0, -t.e, t.f + t.e * 64)
    south = write_tiff(tmp_path / "south.tif", values[::-1], FILE_ORDER_12, transform=upside)
    longitude, latitude = Scene.open(north).longitude, Scene.open(north).latitude
    bbox = (longitude - 0.002, latitude, longitude + 0.001, latitude + 0.003)
    one, two = Scene.open(north, bbox=bbox), Scene.open(south, bbox=bbox)
    assert np.array_equal(one.reflectance, two.reflectance)
    assert one.grid == two.grid


def test_a_photo_is_cut_by_a_window(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    part = Scene.open(tmp_path / "photo.png", window=(10, 5, 20, 16))
    whole = Scene.open(tmp_path / "photo.png")
    assert np.array_equal(part.bands, whole.bands)
    assert np.allclose(part.reflectance, whole.reflectance[5:21, 10:30], equal_nan=True)
    with pytest.raises(ValueError, match="does not say where it lies"):
        Scene.open(tmp_path / "photo.png", bbox=(0, 0, 1, 1))
    write_tiff(tmp_path / "photo.tif", pixels, photometric="RGB")
    raster = Scene.open(tmp_path / "photo.tif", window=(10, 5, 20, 16))
    assert np.allclose(raster.reflectance, part.reflectance, equal_nan=True)
    assert raster.pixel_metres == pytest.approx(10, abs=0.1)


def write_bright_beside_dark(path: Path, scale: float | None) -> tuple[Path, np.ndarray]:
    """A dark and a bright half, with the +1000 offset that the dark one alone betrays."""
    values = make_values(side=64)
    bright = np.clip(values[:, ::-1].astype(int) + 3000, 0, 9000)
    true = np.concatenate([values, bright.astype(np.uint16)], axis=1)
    write_tiff(path, true + np.uint16(1000), FILE_ORDER_12)
    if scale:
        with rasterio.open(path, "r+") as file:
            file.scales = [scale] * 12
    return path, true[:, :, ORDER]


@pytest.mark.parametrize("scale", [None, 0.0001])
@pytest.mark.parametrize("name", ["S2B_MSIL2A_20230202T105221_N0509_R051_T31TDG", "export"])
def test_all_parts_share_one_offset(tmp_path, name, scale):
    path, true = write_bright_beside_dark(tmp_path / f"{name}.tif", scale)
    assert np.allclose(Scene.open(path).reflectance, true, atol=1)
    tiles = list(TiledRaster(path, "a", tile_size=64).tiles())
    for tile, half in zip(tiles, np.split(true, 2, axis=1), strict=True):
        assert np.allclose(tile.reflectance, half, atol=1)
    for left in (0, 64):
        part = Scene.open(path, window=(left, 0, 64, 64))
        assert np.allclose(part.reflectance, true[:, left : left + 64], atol=1)


def test_parts_of_fractions_share_one_unit(tmp_path):
    values = make_values(side=320).astype(np.float32) / 10_000
    values[:8, :8] = 2.4  # glints: a window of these alone would be taken for reflectance x 10000
    path = write_tiff(tmp_path / "glints.tif", values, FILE_ORDER_12)
    values[:8, :8] += np.random.default_rng(0).random((8, 8, 12), np.float32) / 10
    write_tiff(path, values, FILE_ORDER_12)
    part = Scene.open(path, window=(0, 0, 8, 8))
    assert np.allclose(part.reflectance, 10_000 * values[:8, :8][:, :, ORDER], rtol=1e-4)


def test_tags_with_an_offset_taken_off_already_are_noticed(tmp_path):
    values = make_values()
    path = write_tiff(tmp_path / "harmonised.tif", values, FILE_ORDER_12)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [0.0001] * 12, [-0.1] * 12
    scene = Scene.open(path)
    assert np.allclose(scene.reflectance, values[:, :, ORDER], atol=1)
    assert any("taken as subtracted already" in note for note in scene.notes)


def test_bands_can_be_named(tmp_path):
    values = make_values(("B04", "B03", "B02", "B08"))
    classes = np.full((32, 32, 1), 4, np.uint16)
    path = write_tiff(tmp_path / "a.tif", np.concatenate([values, classes, classes], axis=2))
    with pytest.raises(ValueError, match="6 bands without Sentinel-2 names"):
        Scene.open(path)
    scene = Scene.open(path, bands=("red", "B3", "B02", "B08", "SCL", "-"))
    assert scene.bands == ("B02", "B03", "B04", "B08") and (scene.scl == 4).all()
    assert np.array_equal(scene.reflectance[:, :, 0], values[:, :, 2])
    for bands, message in (
        (("B04", "B03"), "has 6 bands, but 2 were named"),
        (("B04", "B03", "B02", "B08", "nothing", "-"), "'nothing' is no band of Sentinel-2"),
        (("B04", "B03", "B02", "B02", "-", "-"), "B02 was named twice"),
        (("B04", "B03", "-", "B08", "-", "-"), "has no B02"),
    ):
        with pytest.raises(ValueError, match=message):
            Scene.open(path, bands=bands)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="no raster with bands of its own"):
        Scene.open(tmp_path / "a.png", bands=("B04", "B03", "B02"))


@pytest.mark.parametrize("layout", ["tiled", "striped", "pixel"])
def test_tiles_are_the_same_in_every_layout(tmp_path, layout):
    values = make_large(150, 200)
    profile = {
        "tiled": {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "band"},
        "striped": {"tiled": False, "blockysize": 3, "interleave": "band"},
        "pixel": {"interleave": "pixel"},
    }[layout]
    path = write_tiff(tmp_path / "a.tif", values, FILE_ORDER_12, **profile)
    tiles = {tile.name: tile for tile in TiledRaster(path, "a", tile_size=64).tiles()}
    assert len(tiles) == 12
    for row, top in enumerate((0, 64, 86)):
        for column, left in enumerate((0, 64, 128, 136)):
            tile = tiles[f"a_r{row:03d}_c{column:03d}"]
            wanted = values[top : top + 64, left : left + 64][:, :, ORDER]
            assert np.array_equal(tile.reflectance, wanted)
            assert tile.grid.transform[2] == 499_000 + 10 * left


def test_unnamed_bands_of_a_bigtiff_are_read(tmp_path):
    values = make_values(side=64)
    path = write_tiff(tmp_path / "big.tif", values, BIGTIFF="YES")
    assert np.array_equal(Scene.open(path).reflectance, values[:, :, ORDER])
