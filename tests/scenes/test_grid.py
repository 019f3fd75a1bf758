"""Grids of scenes: their crops, their places, and footprints all over the world."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio.warp import transform_bounds

from earthvlm.scenes.bands import BANDS, FILE_ORDER_12
from earthvlm.scenes.grid import WORLD, Grid
from earthvlm.scenes.isolated_reader import IsolatedReader
from earthvlm.scenes.product import Product, read_product
from earthvlm.scenes.scene import Scene
from earthvlm.scenes.tiling import TiledRaster
from tests.support.made_rasters import make_photo, make_values, write_tiff, write_triplet

PRODUCT = "S2A_MSIL2A_20170613T101031_N0205_R022_T33UUP_20170613T101608"
UTM = Grid("EPSG:32631", (10.0, 0.0, 499_840.0, 0.0, -10.0, 4_700_160.0))


def make_gradient(height=32, width=48) -> np.ndarray:
    values = np.ones((height, width, 12), np.float32)
    return values * (1000 + np.arange(height * width).reshape(height, width, 1))


def test_a_footprint_is_the_outline_of_the_pixels():
    outline = UTM.footprint(32, 32)
    expected = transform_bounds("EPSG:32631", "EPSG:4326", 499_840, 4_699_840, 500_160, 4_700_160)
    assert outline.geom_type == "Polygon" and outline.exterior.is_ccw
    assert outline.bounds == pytest.approx(expected, abs=1e-6)
    assert len(outline.exterior.coords) == 5


def test_long_edges_have_vertices_along_them():
    outline = Grid("EPSG:32660", (10.0, 0.0, 300_000.0, 0.0, -10.0, 7_800_000.0)).footprint(
        10_980, 10_980
    )
    exact = Grid("EPSG:32660", (0.1, 0.0, 300_000.0, 0.0, -0.1, 7_800_000.0)).footprint(
        1_098_000, 1_098_000
    )
    assert shapely.hausdorff_distance(outline, exact) < 5e-5


@pytest.mark.parametrize(("zone", "east"), [(32601, 340_000.0), (32660, 610_000.0)])
def test_a_footprint_is_split_at_the_antimeridian(zone, east):
    outline = Grid(f"EPSG:{zone}", (10.0, 0.0, east, 0.0, -10.0, 7_300_000.0)).footprint(2000, 5000)
    assert outline.geom_type == "MultiPolygon" and len(outline.geoms) == 2
    assert outline.is_valid and shapely.box(*WORLD).covers(outline)
    west, east = sorted(outline.geoms, key=lambda part: part.centroid.x)
    assert west.bounds[0] == -180 and east.bounds[2] == 180
    assert all(part.exterior.is_ccw for part in outline.geoms)
    area = Grid(f"EPSG:{zone}", (10.0, 0.0, 480_000.0, 0.0, -10.0, 7_300_000.0)).footprint(
        2000, 5000
    )
    assert outline.area == pytest.approx(area.area, rel=0.02)


def test_a_footprint_around_a_pole_holds_the_pole():
    outline = Grid("EPSG:3031", (60.0, 0.0, -60_000.0, 0.0, -60.0, 60_000.0)).footprint(2000, 2000)
    assert outline.is_valid and outline.bounds[:3] == (-180, -90, 180)
    assert outline.covers(shapely.Point(12, -89.9)) and not outline.covers(shapely.Point(0, -88))


@given(
    zone=st.sampled_from([32601, 32633, 32660, 32701, 32733, 32760, 3857, 3413, 3031]),
    east=st.floats(170_000, 820_000),
    north=st.floats(1_000_000, 8_500_000),
    size=st.sampled_from([(64, 64), (256, 700), (5490, 5490)]),
    turn=st.floats(-180, 180),
)
def test_footprints_are_valid_and_hold_their_centre(zone, east, north, size, turn):
    a, b = 10 * np.cos(np.deg2rad(turn)), 10 * np.sin(np.deg2rad(turn))
    grid = Grid(f"EPSG:{zone}", (a, b, east, b, -a, north))
    outline = grid.footprint(*size)
    assert outline.is_valid and shapely.box(*WORLD).covers(outline)
    centre = grid.locate(size[0] / 2, size[1] / 2)
    assert outline.buffer(1e-4).covers(shapely.Point(*centre))


def test_a_place_outside_of_the_projection_is_unknown():
    nowhere = Grid("EPSG:32631", (10.0, 0.0, 1e12, 0.0, -10.0, 1e12))
    assert nowhere.footprint(8, 8) is None and nowhere.locate(0, 0) is None


def test_a_saved_crop_lies_where_it_was_cut(tmp_path):
    path = write_tiff(tmp_path / f"{PRODUCT}.tif", make_gradient(), BANDS)
    whole = Scene.open(path)
    whole.crop(5, 7, 16, 20).save(tmp_path / "part.tif")
    part = Scene.open(tmp_path / "part.tif")
    np.testing.assert_array_equal(part.reflectance, whole.reflectance[5:21, 7:27])
    assert part.product == whole.product and part.date == whole.date
    with rasterio.open(path) as source, rasterio.open(tmp_path / "part.tif") as file:
        assert file.crs == source.crs and file.shape == (16, 20)
        assert file.transform == rasterio.Affine(*whole.grid.shift(5, 7).transform)
        x, y = source.xy(5, 7)
        assert next(file.sample([(x, y)]))[0] == next(source.sample([(x, y)]))[0]
        corner = source.transform.c + 7 * 10, source.transform.f - 5 * 10
        assert (file.transform.c, file.transform.f) == corner
    assert (part.longitude, part.latitude) == part.grid.locate(8, 10)
    with pytest.raises(ValueError, match="are not inside"):
        whole.crop(20, 0, 16, 20)


def test_a_saved_scene_cut_by_another_program_has_its_new_place(tmp_path):
    write_tiff(tmp_path / "a.tif", make_values(), FILE_ORDER_12)
    Scene.open(tmp_path / "a.tif").save(tmp_path / "saved.tif")
    with rasterio.open(tmp_path / "saved.tif") as file:
        window = rasterio.windows.Window(16, 0, 16, 16)
        profile = file.profile | {"width": 16, "height": 16}
        profile |= {"transform": file.window_transform(window)}
        with rasterio.open(tmp_path / "cut.tif", "w", **profile) as cut:
            cut.write(file.read(window=window))
            cut.update_tags(**file.tags())
            cut.descriptions = file.descriptions
    cut, whole = Scene.open(tmp_path / "cut.tif"), Scene.open(tmp_path / "saved.tif")
    assert cut.longitude > whole.longitude and cut.latitude > whole.latitude


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_a_mirrored_raster_has_the_grid_of_its_turned_pixels(tmp_path, axes):
    values = make_gradient()
    plain = Scene.open(write_tiff(tmp_path / "plain.tif", values, BANDS))
    grid = plain.grid.flip(axes, 32, 48)
    mirrored = rasterio.Affine(*grid.transform)
    path = write_tiff(tmp_path / "m.tif", np.flip(values, axes), BANDS, transform=mirrored)
    scene = Scene.open(path)
    np.testing.assert_array_equal(scene.reflectance, plain.reflectance)
    assert scene.grid.transform == pytest.approx(plain.grid.transform)


def test_tiles_of_a_raster_have_their_own_grids(tmp_path):
    path = write_tiff(tmp_path / "big.tif", make_gradient(64, 96), BANDS)
    tiles = list(TiledRaster(path, "big", tile_size=32).tiles())
    whole = Scene.open(path)
    assert [tile.grid for tile in tiles] == [
        whole.grid.shift(row, column) for row in (0, 32) for column in (0, 32, 64)
    ]
    joined = shapely.union_all([tile.grid.footprint(32, 32).buffer(1e-9) for tile in tiles])
    assert shapely.hausdorff_distance(joined, whole.grid.footprint(64, 96)) < 1e-6


def test_a_shrunk_photo_keeps_its_outline(tmp_path):
    pixels = np.asarray(make_photo(1500, 1200))
    path = write_tiff(tmp_path / "photo.tif", pixels)
    scene = Scene.open(path)
    assert scene.width == 1024
    with rasterio.open(path) as file:
        outline = Grid.of_raster(file).footprint(1200, 1500)
    again = scene.grid.footprint(scene.height, scene.width)
    assert shapely.hausdorff_distance(outline, again) < 2e-5  # vertices lie elsewhere


def test_a_chatearthnet_tile_has_a_quarter_of_its_map_tile(tmp_path):
    quarters = []
    for digits in ("00", "01", "10", "11"):
        name = f"4134_2853_patch{digits}.png"
        write_triplet(tmp_path, name)
        scene = Scene.open(tmp_path, name)
        quarters.append(scene.grid.footprint(scene.height, scene.width))
        assert quarters[-1].buffer(1e-9).covers(shapely.Point(scene.longitude, scene.latitude))
        assert quarters[-1].centroid.x == pytest.approx(scene.longitude)
    side = 360 / 2**13
    whole = shapely.union_all([quarter.buffer(1e-9) for quarter in quarters])
    west, _, east, _ = whole.bounds
    assert west == pytest.approx(4134 * side - 180) and east - west == pytest.approx(side)


def test_the_isolated_reader_returns_grid_and_product(tmp_path):
    path = write_tiff(tmp_path / f"{PRODUCT}.tif", make_values(), FILE_ORDER_12)
    reader = IsolatedReader(readers=1)
    try:
        scene = reader.open(path)
    finally:
        reader.close()
    expected = Scene.open(path)
    assert scene.grid == expected.grid is not None
    assert scene.product == expected.product is not None


@pytest.mark.parametrize(
    ("stem", "tags", "product"),
    [
        (PRODUCT, {}, (PRODUCT, "33UUP", "2017-06-13T10:10:31+00:00")),
        ("T33UUU_20170216T102101_B02", {}, (None, "33UUU", "2017-02-16T10:21:01+00:00")),
        ("S2B_33UUU_20230701_0_L2A", {}, (None, "33UUU", None)),
        ("export", {"PRODUCT_URI": f"{PRODUCT}.SAFE"}, (PRODUCT, "33UUP", "2017-06-13T10:10:31Z")),
        ("export", {"MGRS_TILE": "T33UUP"}, (None, "33UUP", None)),
        ("a", {"SENSING_TIME": "2017-06-13T12:10:31+02:00"}, (None, None, "2017-06-13T10:10:31Z")),
        ("a", {"SENSING_TIME": "2017-06-13"}, None),
        ("mosaic_of_T33UUP_and_T33UUU", {}, None),
        ("FEAT33UUPER", {}, None),
    ],
)
def test_the_product_comes_from_name_and_tags(stem, tags, product):
    found = read_product(tags, stem)
    if product is None:
        assert found is None
        return
    time = found.sensing_time and found.sensing_time.isoformat()
    expected = product[2] and product[2].replace("Z", "+00:00")
    assert (found.product_id, found.mgrs_tile, time) == (*product[:2], expected)


def test_a_product_survives_saving(tmp_path):
    product = read_product({}, PRODUCT)
    scene = Scene.from_array(make_values(), FILE_ORDER_12, grid=UTM, product=product, name="a")
    assert (scene.longitude, scene.latitude) == UTM.locate(16, 16)
    scene.save(tmp_path / "a.tif")
    again = Scene.open(tmp_path / "a.tif")
    assert again.product == product and again.grid == UTM
    assert Scene.from_array(make_values(), FILE_ORDER_12, product=Product()).grid is None
