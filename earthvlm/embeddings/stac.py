"""A STAC collection for an embedding dataset, with the extensions for embeddings and tables.

https://github.com/geo-embeddings/embeddings-stac-specification,
https://github.com/stac-extensions/table
"""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from earthvlm.embeddings.dataset import count_rows, dataset_files, find_shared_provenance
from earthvlm.embeddings.geoparquet import GEOMETRY, bound_rows
from earthvlm.embeddings.schema import EMBEDDING_SCHEMA, Provenance
from earthvlm.models.text_encoder import SENTENCE_DIM
from earthvlm.storage.files import write_atomically
from earthvlm.storage.hub import HUB_ID

COLLECTION_FILE = "collection.json"
# The extension's schema is written for this version.
STAC_VERSION = "1.0.0"
EXTENSIONS = (
    "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json",
    "https://stac-extensions.github.io/table/v1.2.0/schema.json",
)
SENTINEL_2 = "https://sentiwiki.copernicus.eu/web/s2-mission"
PARQUET = "application/vnd.apache.parquet"
WHOLE_WORLD = [-180.0, -90.0, 180.0, 90.0]
DESCRIPTIONS = {
    "image_id": "Name of the scene",
    "caption": "Description of the scene",
    "longitude": "Of the centre, degrees",
    "latitude": "Of the centre, degrees",
    "thumbnail": "True colour",
    "scene_embedding": "Unit length, of the image",
    "caption_embedding": "Unit length, of the caption, in the same space",
    "source": "Owner and licence",
    "scene_file": "GeoTIFF with all bands, relative to the dataset",
    "date": "Day of the acquisition",
    "geometry": "Footprint, WKB, longitude and latitude on WGS 84",
    "bbox": "Bounding box of the footprint",
    "datetime": "Time of the acquisition, UTC; midnight where only the day is known",
    "product_id": "Sentinel-2 product",
    "mgrs_tile": "Tile of the Military Grid Reference System",
    "grid_cell": "Cell of the Major TOM grid, 10 km",
    "cloud": "Share of the pixels, 0 to 1",
}


def write_collection(
    folder: str | Path, name: str | None = None, chip_pixels: int | None = None
) -> Path:
    """Write `collection.json` for the Parquet files of a folder, and return its path.

    name: of the dataset (default: the folder's). chip_pixels: the side of the tiles that images
    were cut into. Raises FileNotFoundError where the folder holds no dataset, and ValueError where
    it is damaged.
    """
    folder = Path(folder)
    paths = dataset_files(folder)
    name = name or folder.resolve().name
    collection = _describe(folder, name, paths, chip_pixels)
    with write_atomically(folder / COLLECTION_FILE) as temporary:
        temporary.write_text(json.dumps(collection, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return folder / COLLECTION_FILE


def _describe(
    folder: Path, name: str, paths: list[Path], chip_pixels: int | None
) -> dict[str, Any]:
    layout: dict[str, Any] = {"layout_type": "variable_grid"}
    if chip_pixels is not None:
        sides = [chip_pixels, chip_pixels]
        layout = {"layout_type": "regular_grid", "chip_size": sides, "stride": sides}
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": re.sub(r"[^A-Za-z0-9._-]+", "-", name) or "embeddings",
        "title": f"{name}: embeddings of Sentinel-2 scenes",
        "description": (
            f"Embeddings of {count_rows(paths):,} Sentinel-2 scenes and of their captions in one "
            f"space of {SENTENCE_DIM} dimensions, with footprints and thumbnails, as GeoParquet. "
            "Owners and licences are in the column `source`."
        ),
        "license": "various",
        "extent": _find_extent(paths),
        "emb:type": "chip",
        "emb:dimensions": SENTENCE_DIM,
        "data_type": "float32",
        "emb:chip_layout": layout,
        "emb:temporal_resolution": "single_acquisition",
        "emb:fit_for_use": ["retrieval"],
        "table:primary_geometry": GEOMETRY,
        "table:row_count": count_rows(paths),
        "table:columns": [_describe_column(field) for field in EMBEDDING_SCHEMA],
        "links": _link(folder, find_shared_provenance(paths)),
        "assets": {
            path.stem: {
                "href": f"./{path.name}",
                "type": PARQUET,
                "title": "Embeddings, footprints and thumbnails",
                "roles": ["data"],
            }
            for path in paths
        },
    }


def _describe_column(field: pa.Field) -> dict[str, str]:
    column = {"name": field.name, "type": str(field.type)}
    if field.name in DESCRIPTIONS:
        column["description"] = DESCRIPTIONS[field.name]
    return column


def _link(folder: Path, provenance: Provenance) -> list[dict[str, str]]:
    # A path on this machine would mean nothing to others, so only the revision names the bridge.
    bridge = f"urn:earthvlm:bridge:{provenance.bridge_revision}"
    if HUB_ID.fullmatch(provenance.bridge_id) and not Path(provenance.bridge_id).exists():
        bridge = f"https://huggingface.co/{provenance.bridge_id}"
    links = [
        {
            "rel": "emb:model",
            "href": bridge,
            "title": f"earthvlm bridge of revision {provenance.bridge_revision}",
        },
        {"rel": "emb:source-data", "href": SENTINEL_2, "title": "Sentinel-2"},
    ]
    if (folder / "LICENSE.md").is_file():
        links.append({"rel": "license", "href": "./LICENSE.md", "type": "text/markdown"})
    return links


def _find_extent(paths: list[Path]) -> dict[str, Any]:
    boxes: list[dict[str, float] | None] = []
    times: list[datetime.datetime] = []
    for path in paths:
        table = pq.read_table(path, columns=["bbox", "datetime", "longitude", "latitude"])
        boxes += table.column("bbox").to_pylist()
        centre = {name: _range(table.column(name)) for name in ("longitude", "latitude")}
        if centre["longitude"] and centre["latitude"]:
            (west, east), (south, north) = centre["longitude"], centre["latitude"]
            boxes.append({"xmin": west, "ymin": south, "xmax": east, "ymax": north})
        times += _range(table.column("datetime")) or ()
    ends = (min(times), max(times)) if times else ()
    return {
        "spatial": {"bbox": [bound_rows(boxes) or WHOLE_WORLD]},
        "temporal": {"interval": [[f"{end:%Y-%m-%dT%H:%M:%SZ}" for end in ends] or [None, None]]},
    }


def _range(column: pa.ChunkedArray) -> tuple[Any, Any] | None:
    found = pc.min_max(column).as_py()
    return None if found["min"] is None else (found["min"], found["max"])
