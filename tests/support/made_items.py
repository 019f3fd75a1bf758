"""STAC items with known pixels, as catalogues write them, with their assets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.warp import transform_bounds

from earthvlm.scenes.bands import FILE_ORDER_12
from tests.support.made_products import STEPS, make_tile, shrink, write_band

NAME = "S2B_31TDG_20230716_0_L2A"
KEYS = {
    "B01": "coastal",
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge1",
    "B06": "rededge2",
    "B07": "rededge3",
    "B08": "nir",
    "B8A": "nir08",
    "B09": "nir09",
    "B11": "swir16",
    "B12": "swir22",
}
TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"


def write_item(
    folder: Path,
    pixels: np.ndarray | None = None,
    name: str = NAME,
    *,
    properties: dict[str, Any] | None = None,
    raster: dict[str, Any] | None = None,
    version: str = "1.0.0",
) -> Path:
    """Write an item and its bands below a folder of its name, as Earth Search describes them.

    raster: fields of each band's values, such as its scale. version: of STAC, whose 1.1 joins
    the descriptions of a band.
    """
    pixels = make_tile() if pixels is None else pixels
    assets: dict[str, Any] = {}
    for number, band in enumerate(FILE_ORDER_12):
        step, key = STEPS[band], KEYS[band]
        data = shrink(pixels[number], step)
        path = folder / name / f"{band}.tif"
        write_band(path, data, 10 * step, tiled=True, blockxsize=256, blockysize=256)
        values = {"spatial_resolution": 10 * step, "nodata": 0, **(raster or {})}
        asset = {"href": f"./{name}/{band}.tif", "type": TIFF, "roles": ["data", "reflectance"]}
        label = {"name": key, "common_name": key}
        if version == "1.0.0":
            assets[key] = {**asset, "eo:bands": [label], "raster:bands": [values]}
        else:
            prefixed = {f"raster:{field}": value for field, value in values.items()}
            assets[key] = {**asset, "bands": [{"name": band, "eo:common_name": key, **prefixed}]}
        assets[f"{key}-jp2"] = {"href": f"s3://bucket/{band}.jp2", "type": "image/jp2"}
    assets["visual"] = {"href": f"./{name}/TCI.tif", "type": TIFF, "roles": ["visual"]}
    assets["thumbnail"] = {"href": "./thumbnail.jpg", "type": "image/jpeg"}
    classes = np.full((pixels.shape[1] // 2,) * 2, 4, np.uint8)
    write_band(folder / name / "SCL.tif", classes, 20)
    assets["scl"] = {"href": f"./{name}/SCL.tif", "type": TIFF, "roles": ["data"]}
    with rasterio.open(folder / name / "B02.tif") as file:
        bbox = transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    west, south, east, north = bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item = {
        "type": "Feature",
        "stac_version": version,
        "id": name,
        "collection": "sentinel-2-l2a",
        "bbox": list(bbox),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "datetime": "2023-07-16T10:56:29.024000Z",
            "platform": "sentinel-2b",
            "eo:cloud_cover": 12.5,
            "s2:processing_baseline": "05.09",
            "grid:code": "MGRS-31TDG",
            **(properties or {}),
        },
        "assets": assets,
        "links": [],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(item))
    return path


def change_item(path: Path, **changes: Any) -> Path:
    """Write other entries into an item's JSON."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path
