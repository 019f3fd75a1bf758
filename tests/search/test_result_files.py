"""Saved results: what other programs read from them is what the search found."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import geoparquet_validator
import pyogrio
import pytest
import shapely
from PIL import Image

from earthvlm.scenes.grid import Grid
from earthvlm.search.index import SceneIndex
from earthvlm.search.result import SceneResult
from earthvlm.search.result_files import results_to_bytes, write_results

geopandas = pytest.importorskip("geopandas")

SUFFIXES = (".csv", ".geojson", ".gpkg", ".parquet")
DATE_LINE = Grid("EPSG:32601", (600.0, 0.0, 360_000.0, 0.0, -600.0, 7_300_000.0))


@pytest.fixture(scope="module")
def results() -> list[SceneResult]:
    """Four scenes with footprints, and one of unknown place."""
    index = SceneIndex.from_pretrained("bundled")
    found = [*index.search("a lake", k=4), index.get("spyndex_r0_c0")]
    return [replace(found[0], caption='<b>"A lake" & forest</b>'), *found[1:]]


def make_result(name: str, caption: str, longitude: float | None = 10.5) -> SceneResult:
    latitude = None if longitude is None else 50.25
    return SceneResult(name, caption, "tiles", longitude, latitude, "made up", None, None)


def read(path: Path) -> geopandas.GeoDataFrame:
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path, **({"layer": "scenes"} if path.suffix == ".gpkg" else {}))


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".parquet"])
def test_geopandas_reads_footprints_captions_and_scores(results, suffix, tmp_path):
    path = tmp_path / f"results{suffix}"
    write_results(results, path)
    frame = read(path)
    assert list(frame["rank"]) == [1, 2, 3, 4, 5]
    assert list(frame.image_id) == [result.image_id for result in results]
    assert list(frame.caption) == [result.caption for result in results]
    assert frame.caption_similarity[0] == results[0].caption_similarity
    assert list(frame.scene_file) == [str(result.scene_file) for result in results]
    assert frame.crs.to_epsg() == 4326 or frame.crs == "OGC:CRS84"
    for geometry, result in zip(frame.geometry[:4], results, strict=False):
        assert shapely.hausdorff_distance(geometry, shapely.from_wkb(result.geometry)) < 1e-6
    assert frame.geometry[4] is None
    assert "scene_embedding" not in frame.columns


def test_results_as_csv_hold_no_formula(tmp_path):
    write_results(
        [make_result("a", '=HYPERLINK("x")'), make_result("b", "two\nlines", None)],
        tmp_path / "a.csv",
    )
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["caption"].startswith("'=") and second["caption"] == "two\nlines"
    assert (first["WKT"], second["WKT"]) == ("POINT (10.5 50.25)", "")
    assert first["date"] == "" and list(tmp_path.iterdir()) == [tmp_path / "a.csv"]


def test_csv_holds_the_footprint_as_text(results, tmp_path):
    write_results(results, tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    outline = shapely.from_wkt(rows[0]["WKT"])
    assert shapely.hausdorff_distance(outline, shapely.from_wkb(results[0].geometry)) < 1e-6
    assert rows[0]["datetime"] == results[0].datetime.isoformat()


def test_geojson_is_of_rfc_7946(results, tmp_path):
    split = replace(results[0], geometry=DATE_LINE.footprint(100, 100).wkb)
    write_results([split, make_result("b", "B"), *results[4:]], tmp_path / "a.geojson")
    first, second, third = json.loads((tmp_path / "a.geojson").read_text("utf-8"))["features"]
    polygons = first["geometry"]["coordinates"]
    assert first["geometry"]["type"] == "MultiPolygon" and len(polygons) == 2
    for (ring,) in polygons:
        assert shapely.LinearRing(ring).is_ccw
        assert all(round(value, 7) == value for point in ring for value in point)
    assert first["properties"]["thumbnail"].startswith("data:image/jpeg;base64,")
    assert second["geometry"] == {"type": "Point", "coordinates": [10.5, 50.25]}
    assert third["geometry"] is None and third["properties"]["rank"] == 3


def test_geoparquet_meets_the_specification(results, tmp_path):
    write_results(results, tmp_path / "a.parquet")
    report = geoparquet_validator.check(str(tmp_path / "a.parquet"))
    assert geoparquet_validator.failed(report) == []


def test_a_geopackage_has_one_kind_of_geometry_and_thumbnails(results, tmp_path):
    split = replace(results[0], geometry=DATE_LINE.footprint(100, 100).wkb)
    write_results([split, *results[1:]], tmp_path / "a.gpkg")
    assert pyogrio.read_info(tmp_path / "a.gpkg", layer="scenes")["geometry_type"] == "MultiPolygon"
    frame = read(tmp_path / "a.gpkg")
    (tmp_path / "a.jpg").write_bytes(frame.thumbnail[0])
    with Image.open(tmp_path / "a.jpg") as picture:
        assert picture.format == "JPEG" and picture.size == results[0].thumbnail.size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gpkg", "a.jpg"]


def read_style(folder: Path, suffix: str) -> ElementTree.Element:
    if suffix != ".gpkg":
        return ElementTree.parse(folder / "a.qml").getroot()
    with closing(sqlite3.connect(folder / "a.gpkg")) as database:
        ((layer, column, text),) = database.execute(
            "SELECT f_table_name, f_geometry_column, styleQML FROM layer_styles WHERE useAsDefault"
        )
        ((named,),) = database.execute(
            "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", [layer]
        )
    assert (layer, column) == ("scenes", named)
    return ElementTree.fromstring(text)


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".parquet"])
def test_a_style_for_qgis_shows_thumbnails(results, suffix, tmp_path):
    write_results(results, tmp_path / f"a{suffix}")
    style = read_style(tmp_path, suffix)
    assert style.find("renderer-v2/symbols/symbol").get("type") == "fill"
    assert style.findtext("layerGeometryType") == "2"
    tip = style.findtext("mapTip")
    picture = '"thumbnail"' if suffix == ".geojson" else 'to_base64("thumbnail")'
    assert picture in tip and "&lt;" in tip
    columns = set(read(tmp_path / f"a{suffix}").columns)
    assert {"rank", "image_id", "caption", "date", "thumbnail"} <= columns

    write_results([make_result("a", "A")], tmp_path / f"points{suffix}")
    (tmp_path / f"points{suffix}").rename(tmp_path / f"a{suffix}")
    if suffix != ".gpkg":
        (tmp_path / "points.qml").rename(tmp_path / "a.qml")
    assert read_style(tmp_path, suffix).find("renderer-v2/symbols/symbol").get("type") == "marker"


def test_a_style_of_the_users_own_is_kept(results, tmp_path):
    (tmp_path / "a.qml").write_text("mine")
    write_results(results, tmp_path / "a.geojson")
    assert (tmp_path / "a.qml").read_text() == "mine"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_downloads_name_no_file_of_the_server(results, suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(results_to_bytes(results, suffix))
    assert str(results[0].scene_file.parent).encode() not in path.read_bytes()
    frame = read(path)
    assert "scene_file" not in frame.columns
    assert list(frame.image_id) == [result.image_id for result in results]
    with pytest.raises(ValueError, match="no results"):
        results_to_bytes([], suffix)


def test_a_failed_write_leaves_the_old_file(results, tmp_path, monkeypatch):
    write_results(results, tmp_path / "a.gpkg")
    old = (tmp_path / "a.gpkg").read_bytes()

    def fail(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr("earthvlm.search.result_files.add_style", fail)
    with pytest.raises(OSError, match="disk is full"):
        write_results(results[:1], tmp_path / "a.gpkg")
    assert (tmp_path / "a.gpkg").read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["a.gpkg"]
