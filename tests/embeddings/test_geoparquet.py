"""Embedding datasets are GeoParquet: other tools find footprints, boxes and times in them."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import geoparquet_validator
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from earthvlm.embeddings.dataset import write_embedding_dataset
from earthvlm.embeddings.geoparquet import (
    GEO_KEY,
    MAX_ROW_GROUP,
    bound_geometries,
    write_geoparquet,
)
from earthvlm.embeddings.major_tom import find_grid_cell
from earthvlm.embeddings.rows import describe_scene
from earthvlm.embeddings.stac import write_collection
from earthvlm.scenes.bands import FILE_ORDER_12
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.product import Product, read_product
from earthvlm.scenes.scene import Scene
from earthvlm.search.index import SceneIndex
from tests.support.made_rasters import OLD, make_values
from tests.support.made_scenes import PROVENANCE, TinyBridge, make_rows, make_scene

PRODUCT = "S2A_MSIL2A_20170613T101031_N0205_R022_T33UUP_20170613T101608"
GERMANY = Grid("EPSG:32633", (10.0, 0.0, 330_000.0, 0.0, -10.0, 5_822_040.0))
DATE_LINE = Grid("EPSG:32601", (10.0, 0.0, 360_000.0, 0.0, -10.0, 7_300_000.0))


def make_placed(name: str, grid: Grid | None, **known) -> Scene:
    values = make_values(side=128)
    return Scene.from_array(values, FILE_ORDER_12, name=name, grid=grid, **known)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A dataset of one scene in Germany, one on the antimeridian, and one of no known place."""
    scenes = [
        make_placed("germany", GERMANY, product=read_product({}, PRODUCT)),
        make_placed("date_line", DATE_LINE.scale(60, 60), date=OLD),
        make_placed("nowhere", None),
    ]
    rows = make_rows(3)
    rows = [row | describe_scene(scene) for row, scene in zip(rows, scenes, strict=True)]
    write_embedding_dataset(tmp_path / "data", rows, *PROVENANCE)
    return tmp_path / "data"


def test_rows_say_where_when_and_of_what_a_scene_is(folder):
    germany, date_line, nowhere = pq.read_table(folder).to_pylist()
    outline = shapely.from_wkb(germany["geometry"])
    assert outline.equals(GERMANY.footprint(128, 128))
    assert tuple(germany["bbox"].values()) == outline.bounds
    assert germany["product_id"] == PRODUCT and germany["mgrs_tile"] == "33UUP"
    assert germany["datetime"] == datetime.datetime(2017, 6, 13, 10, 10, 31, tzinfo=datetime.UTC)
    assert germany["grid_cell"] == "584U_84R" and germany["cloud"] == 0
    assert shapely.from_wkb(date_line["geometry"]).geom_type == "MultiPolygon"
    assert (date_line["bbox"]["xmin"], date_line["bbox"]["xmax"]) == (-180, 180)
    assert date_line["datetime"] == datetime.datetime(2021, 7, 1, tzinfo=datetime.UTC)
    assert date_line["date"] == OLD and date_line["mgrs_tile"] is None
    assert [nowhere[name] for name in ("geometry", "bbox", "datetime", "grid_cell")] == [None] * 4


def test_the_share_of_cloud_is_of_the_pixels_with_data():
    values = make_values(side=32).astype(np.float32)
    values[:8] = 6000  # bright and white in all bands
    assert describe_scene(Scene.from_array(values, FILE_ORDER_12))["cloud"] == 0.25
    values[16:, :] = 0
    half = Scene.from_array(values, FILE_ORDER_12)
    assert describe_scene(half)["cloud"] == 0.5
    photo = Scene.from_array(values[:, :, 1:4], ("B02", "B03", "B04"))
    assert describe_scene(photo)["cloud"] is None


def test_the_files_meet_the_specification(folder):
    path = folder / "embeddings.parquet"
    report = geoparquet_validator.check(str(path))
    assert geoparquet_validator.failed(report) == []
    passed = {outcome["id"] for outcome in report["outcomes"] if outcome["status"] == "pass"}
    assert len(passed) > 10
    geo = json.loads(pq.read_metadata(path).metadata[GEO_KEY])
    assert geo["version"] == "1.1.0" and geo["primary_column"] == "geometry"
    column = geo["columns"]["geometry"]
    assert column["geometry_types"] == ["MultiPolygon", "Polygon"]
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert column["bbox"][::2] == [-180, 180]


def test_geopandas_opens_them_and_reads_a_region(folder):
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.read_parquet(folder / "embeddings.parquet")
    assert frame.crs == "OGC:CRS84" and list(frame.image_id) == ["germany", "date_line", "nowhere"]
    assert frame.geometry.is_valid[:2].all() and frame.geometry[2] is None
    assert frame.geometry[0].equals(GERMANY.footprint(128, 128))
    assert len(frame.scene_embedding[0]) == 384
    region = geopandas.read_parquet(folder / "embeddings.parquet", bbox=(12, 52, 13, 53))
    assert "germany" in list(region.image_id) and "nowhere" not in list(region.image_id)


def test_duckdb_spatial_finds_what_is_at_a_point(folder):
    duckdb = pytest.importorskip("duckdb")
    extension = pytest.importorskip("duckdb_extension_spatial")
    files = Path(extension.__file__).parent.rglob("*.duckdb_extension")
    connection = duckdb.connect()
    connection.load_extension(str(next(files)))
    longitude, latitude = GERMANY.locate(64, 64)
    found = connection.execute(
        "SELECT image_id, ST_Area(geometry) > 0, array_length(scene_embedding) FROM read_parquet(?)"
        " WHERE bbox.xmin <= ? AND bbox.xmax >= ? AND ST_Contains(geometry, ST_Point(?, ?))",
        [str(folder / "*.parquet"), longitude, longitude, longitude, latitude],
    ).fetchall()
    assert found == [("germany", True, 384)]


def test_gdal_opens_them(folder):
    pyogrio = pytest.importorskip("pyogrio")
    if "Parquet" not in pyogrio.list_drivers():
        pytest.skip("this build of GDAL, as those of pyogrio's wheels, has no Parquet driver")
    info = pyogrio.read_info(folder / "embeddings.parquet")
    assert info["features"] == 3 and info["geometry_type"] in ("MultiPolygon", "Unknown")


def test_row_groups_are_small_and_have_a_page_index(tmp_path):
    count = 2 * MAX_ROW_GROUP + 7
    points = shapely.to_wkb(shapely.points(np.linspace(-180, 180, count), np.zeros(count)))
    table = pa.table({"geometry": pa.array(points, pa.binary())})
    table = table.append_column("bbox", bound_geometries(table.column("geometry")))
    write_geoparquet(table, tmp_path / "many.parquet")
    metadata = pq.read_metadata(tmp_path / "many.parquet")
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [MAX_ROW_GROUP, MAX_ROW_GROUP, 7]
    assert groups[0].column(1).has_column_index and groups[0].column(1).has_offset_index
    west = [group.column(1).statistics.min for group in groups]
    assert groups[0].column(1).path_in_schema == "bbox.xmin" and west == sorted(west)


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (b"not WKB", "not valid WKB"),
        (shapely.Point(500_000, 4_700_000).wkb, "in degrees"),
        (shapely.LineString([(0, 0), (1, 1)]).wkb, "no point and no polygon"),
    ],
)
def test_geometries_that_are_no_footprints_are_refused(tmp_path, geometry, message):
    rows = make_rows(2)
    rows[1]["geometry"] = geometry
    with pytest.raises(ValueError, match=message) as refusal:
        write_embedding_dataset(tmp_path, rows, *PROVENANCE)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("longitude", "latitude", "cell"),
    [
        # The last two: west of the last line to the left, by the arithmetic of the published grid.
        *((12.5423, 52.5057, "584U_85R"), (0.0, 0.0, "0U_0R"), (-0.01, -0.01, "1D_1L")),
        *((-179.99, -45.1, "503D_1412R"), (-179.97, 45.16, "502U_1415R")),
        *((12.0, 86.0, None), (None, None, None)),
    ],
)
def test_cells_of_the_major_tom_grid(longitude, latitude, cell):
    assert find_grid_cell(longitude, latitude) == cell


def test_a_collection_describes_the_dataset(folder):
    collection = json.loads(write_collection(folder, "owner/data", chip_pixels=128).read_text())
    assert (collection["type"], collection["stac_version"]) == ("Collection", "1.0.0")
    assert collection["id"] == "owner-data"
    # What the embedding extension requires of a collection.
    assert collection["emb:type"] == "chip" and collection["emb:dimensions"] == 384
    assert collection["data_type"] == "float32"
    assert collection["emb:chip_layout"]["chip_size"] == [128, 128]
    links = {link["rel"]: link["href"] for link in collection["links"]}
    assert links["emb:model"] == "https://huggingface.co/owner/bridge"
    assert links["emb:source-data"].startswith("https://")
    (west, south, east, north), *_ = collection["extent"]["spatial"]["bbox"]
    assert (west, east) == (-180, 180) and south < 53 < 60 < north
    assert collection["extent"]["temporal"]["interval"] == [
        ["2017-06-13T10:10:31Z", "2021-07-01T00:00:00Z"]
    ]
    columns = [column["name"] for column in collection["table:columns"]]
    assert columns == pq.read_schema(folder / "embeddings.parquet").names
    assert all("description" in column for column in collection["table:columns"][3:])
    assert collection["table:row_count"] == 3
    (asset,) = collection["assets"].values()
    assert (folder / asset["href"]).is_file()


def test_a_built_index_has_a_collection_that_grows_with_it(tmp_path, monkeypatch):
    bridge = TinyBridge()
    monkeypatch.setattr(
        "earthvlm.models.text_encoder.embed_sentences",
        lambda texts, *_: bridge.embed([make_scene(text, len(text)) for text in texts]),
    )
    index = SceneIndex.build(tmp_path, [make_scene("a")], bridge, bridge_id="/home/me/bridge")
    index.add([make_placed("b", GERMANY, product=Product(mgrs_tile="33UUP"))], bridge)
    text = (tmp_path / "collection.json").read_text()
    assert "/home/me" not in text
    collection = json.loads(text)
    assert collection["table:row_count"] == 2 and len(collection["assets"]) == 2
    found = SceneIndex.from_pretrained(tmp_path).get("b")
    assert found.mgrs_tile == "33UUP" and found.open_scene().grid == GERMANY
    SceneIndex.from_pretrained(tmp_path).save(tmp_path / "copy")
    assert (tmp_path / "copy" / "collection.json").read_text() == text


def test_datasets_reads_the_parquet_beside_the_collection(folder, tmp_path, monkeypatch):
    from datasets import load_dataset

    write_collection(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    dataset = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]
    assert len(dataset) == 3 and dataset[0]["mgrs_tile"] == "33UUP"
