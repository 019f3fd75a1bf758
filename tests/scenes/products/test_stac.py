"""STAC items and COGs, next to their assets and behind addresses."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from earthvlm import Scene
from earthvlm.scenes.bands import BANDS, FILE_ORDER_12
from earthvlm.scenes.isolated_reader import IsolatedReader
from earthvlm.scenes.products.stac_item import list_assets
from tests.support.made_items import NAME, change_item, write_item
from tests.support.made_products import make_tile, write_safe
from tests.support.made_rasters import write_tiff
from tests.support.stac_server import StacServer, serve_stac

APPLIED = {"earthsearch:boa_offset_applied": True}
ORDER = [FILE_ORDER_12.index(band) for band in BANDS]


@pytest.fixture(scope="module")
def item(tmp_path_factory) -> Path:
    return write_item(tmp_path_factory.mktemp("stac"), properties=APPLIED, raster={"scale": 0.0001})


@pytest.fixture(scope="module")
def server(item):
    values = np.random.default_rng(0).integers(150, 3000, (1280, 1280, 12), np.uint16)
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "band"}
    path = write_tiff(item.parent / "cog.tif", values, FILE_ORDER_12, **layout)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8])
    with serve_stac(item.parent) as running:
        yield running


def check_ten_metre_bands(scene: Scene, pixels: np.ndarray | None = None) -> None:
    pixels = make_tile() if pixels is None else pixels
    assert len(scene.bands) == 12
    for band in ("B02", "B03", "B04", "B08"):
        found = scene.reflectance[:, :, BANDS.index(band)]
        assert np.allclose(found, pixels[FILE_ORDER_12.index(band)], atol=0.01)


def test_an_item_beside_its_assets_opens(item):
    scene = Scene.open(item)
    check_ten_metre_bands(scene)
    assert scene.name == NAME and scene.date == datetime.date(2023, 7, 16)
    assert scene.product.mgrs_tile == "31TDG"
    assert scene.product.sensing_time.isoformat().startswith("2023-07-16T10:56:29")
    assert (scene.scl == 4).all() and scene.notes == ()


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
@pytest.mark.parametrize(
    ("properties", "raster", "stored"),
    [
        (APPLIED, {"scale": 0.0001, "offset": -0.1}, 0),
        ({}, {"scale": 0.0001, "offset": -0.1}, 1000),
        ({}, {"scale": 0.0001, "offset": -0.1}, 0),
        ({}, {"scale": 0.0001}, 1000),
        ({}, {}, 1000),
        ({"s2:processing_baseline": "03.01"}, {}, 0),
    ],
)
def test_the_offset_is_taken_off_once(tmp_path, version, properties, raster, stored):
    pixels = make_tile() + np.uint16(stored)
    path = write_item(tmp_path, pixels, properties=properties, raster=raster, version=version)
    check_ten_metre_bands(Scene.open(path))


def test_an_item_behind_an_address_opens(server, item):
    scene, local = Scene.open(f"{server.address}/{NAME}.json"), Scene.open(item)
    assert np.array_equal(scene.reflectance, local.reflectance)
    assert (scene.name, scene.date, scene.product) == (local.name, local.date, local.product)
    west, south = scene.grid.locate(60, 20)
    east, north = scene.grid.locate(20, 70)
    part = Scene.open(f"{server.address}/{NAME}.json", bbox=(west, south, east, north))
    assert part.height in (40, 41, 42) and part.width in (50, 51, 52)


def test_a_window_of_a_cog_fetches_little(server):
    before = server.bytes_sent
    address = f"{server.address}/cog.tif?signature=a%2Fb"
    part = Scene.open(address, window=(600, 700, 64, 48))
    sent = server.bytes_sent - before
    local = Scene.open(server.folder / "cog.tif", window=(600, 700, 64, 48))
    assert np.array_equal(part.reflectance, local.reflectance)
    assert part.name == "cog" and part.longitude == local.longitude
    size = (server.folder / "cog.tif").stat().st_size
    assert sent < 5_000_000 < size / 8


@pytest.mark.parametrize("name", [f"{NAME}.json", "cog.tif"])
def test_bands_behind_addresses_are_read_side_by_side(server, tmp_path, name):
    write_item(tmp_path, properties=APPLIED, raster={"scale": 0.0001})
    shutil.copy(server.folder / "cog.tif", tmp_path)
    with serve_stac(tmp_path) as fresh:  # GDAL keeps what it fetched from the other one
        fresh.delay = 0.02
        scene = Scene.open(f"{fresh.address}/{name}", window=(0, 0, 64, 64))
    assert len(scene.bands) == 12
    assert 3 <= fresh.most_at_once <= 8


def test_a_failing_server_is_asked_again(server):
    Scene.open(f"{server.address}/cog.tif", window=(0, 0, 16, 16))
    server.failing = 0
    item_address = f"{server.address}/{NAME}.json"
    server.failing = 1
    with pytest.raises(ConnectionError, match=r"refused 'S2B_.*json' \(status 503\)"):
        Scene.open(item_address)
    assert Scene.open(item_address).width == 96


def write_odd_items(folder: Path) -> dict[str, Path]:
    base = json.loads(write_item(folder).read_text())
    assets = base["assets"]
    only_s3 = {**assets, "red": {**assets["red"], "href": "s3://bucket/B04.tif"}}
    gone = {**assets, "red": {**assets["red"], "href": "./gone.tif"}}
    forms = {
        "collection": {"type": "Collection"},
        "no_assets": {"assets": {}},
        "landsat": {"properties": {"platform": "landsat-8"}},
        "list": {"assets": [1, 2]},
        "s3": {"assets": only_s3},
        "gone": {"assets": gone},
        "text": {"assets": {"red": "B04.tif"}},
    }
    paths = {}
    for name, changes in forms.items():
        paths[name] = folder / f"{name}.json"
        paths[name].write_text(json.dumps(base))
        change_item(paths[name], **changes)
    (folder / "broken.json").write_text('{"assets": ')
    return {**paths, "broken": folder / "broken.json"}


def test_odd_items_are_refused(tmp_path):
    paths = write_odd_items(tmp_path)
    for name, message in {
        "collection": "is a STAC collection",
        "no_assets": "has no B02 or B03 or B04",
        "landsat": "is of landsat-8, not of Sentinel-2",
        "list": "is no STAC item",
        "s3": "cannot be read without an account",
        "text": "has no B02",
        "broken": "it is no JSON",
    }.items():
        with pytest.raises(ValueError, match=message):
            Scene.open(paths[name])
    with pytest.raises(FileNotFoundError, match="gone.tif', which does not exist"):
        Scene.open(paths["gone"])


def test_alternates_without_an_account_are_read(tmp_path):
    path = write_item(tmp_path)
    item = json.loads(path.read_text())
    red = item["assets"]["red"]
    item["assets"]["red"] = red | {
        "href": "s3://eodata/B04.tif",
        "alternate": {"https": {"href": red["href"]}},
    }
    path.write_text(json.dumps(item))
    assert "B04" in Scene.open(path).bands


def test_the_finest_asset_of_a_band_is_taken():
    kind = {"type": "image/jp2"}
    assets = {
        "B02_60m": {"href": "c.jp2", **kind},
        "B02_10m": {"href": "a.jp2", **kind},
        "B02_20m": {"href": "b.jp2", **kind},
        "data": {
            "href": "d.tif",
            "type": "image/tiff",
            "bands": [{"name": "B03"}, {"name": "B04"}],
        },
        "B05": {"href": "no raster.xml", "type": "application/xml"},
        "metadata": {"href": "B06.tif", "roles": ["overview"]},
    }
    found = list_assets(assets)
    sizes = {asset.href: asset.metres for asset in found if asset.band == "B02"}
    assert sizes == {"a.jp2": 10, "b.jp2": 20, "c.jp2": 60}
    assert [(a.band, a.number) for a in found if a.href == "d.tif"] == [("B03", 1), ("B04", 2)]
    assert not {asset.band for asset in found} & {"B05", "B06"}


def test_unreachable_addresses_get_one_sentence(server: StacServer):
    with pytest.raises(FileNotFoundError, match="There is no 'gone.tif' at 127.0.0.1"):
        Scene.open(f"{server.address}/gone.tif")
    with pytest.raises(ConnectionError, match="'a.json' could not be fetched from 127.0.0.1:1"):
        Scene.open("http://user:secret@127.0.0.1:1/a.json?key=secret")
    (server.folder / "page.html").write_text("<html>sign in</html>")
    with pytest.raises(ValueError, match="'page.html' is neither a GeoTIFF nor JPEG 2000"):
        Scene.open(f"{server.address}/page.html")


def test_uploads_are_never_items(item):
    reader = IsolatedReader(readers=1)
    try:
        with pytest.raises(ValueError, match="is not an image that can be read"):
            reader.open(item)
        with pytest.raises(FileNotFoundError, match="There is no file"):
            reader.open("http://127.0.0.1:1/a.tif")
    finally:
        reader.close()


def test_a_product_in_an_items_folder_is_itself(tmp_path):
    safe = write_safe(tmp_path, make_tile())
    write_item(tmp_path)
    assert Scene.open(safe).name == safe.stem
