"""GeoParquet 1.1: footprints as WKB in degrees, a bounding box for each row, file metadata.

Specification: https://geoparquet.org/releases/v1.1.0/
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GEOMETRY, BBOX = "geometry", "bbox"
BBOX_EDGES = ("xmin", "ymin", "xmax", "ymax")
BBOX_TYPE = pa.struct([(edge, pa.float64()) for edge in BBOX_EDGES])
GEO_KEY = b"geo"
# Rows that a reader of a bounding box has to take at once.
MAX_ROW_GROUP = 25_000
# The kinds that shapely numbers from 0; the others do not occur here.
_KINDS = {0: "Point", 3: "Polygon", 6: "MultiPolygon"}


def write_geoparquet(table: pa.Table, path: Path, **options: Any) -> None:
    """Write a table with the columns `geometry` and `bbox` as GeoParquet.

    Its row groups have at most 25,000 rows and a page index. options: of `pq.write_table`. Raises
    ValueError for a geometry that is not WKB.
    """
    metadata = {**(table.schema.metadata or {}), GEO_KEY: _describe(table.column(GEOMETRY))}
    pq.write_table(
        table.replace_schema_metadata(metadata),
        path,
        compression="zstd",
        row_group_size=MAX_ROW_GROUP,
        write_page_index=True,
        **options,
    )


def bound_geometries(geometries: pa.ChunkedArray) -> pa.Array:
    """Return the bounding box of each WKB geometry, null where there is none.

    Of a footprint that is split at the antimeridian it reaches from -180 to 180. Raises ValueError
    for a geometry that is not WKB.
    """
    import shapely

    bounds = shapely.bounds(decode_geometries(geometries))
    columns = [pa.array(bounds[:, index]) for index in range(4)]
    empty = pa.array(np.isnan(bounds[:, 0]))
    return pa.StructArray.from_arrays(columns, fields=list(BBOX_TYPE), mask=empty)


def decode_geometries(geometries: pa.ChunkedArray) -> np.ndarray:
    """Decode WKB to shapely geometries `[N]`, None where there is none.

    Raises ValueError for a geometry that is not the WKB of points or polygons in degrees.
    """
    import shapely

    values = np.array(geometries.to_pylist(), dtype=object)
    try:
        decoded = shapely.from_wkb(values)
    except (shapely.errors.ShapelyError, TypeError) as error:
        raise ValueError(f"a geometry is not valid WKB: {error}") from error
    present = ~shapely.is_missing(decoded)
    bounds = shapely.bounds(decoded[present])
    kinds = shapely.get_type_id(decoded[present])
    if not np.isin(kinds, list(_KINDS)).all() or not (np.abs(bounds) <= [180, 90, 180, 90]).all():
        raise ValueError("a geometry is no point and no polygon in degrees")
    return decoded


def bound_rows(boxes: Iterable[dict[str, float] | None]) -> list[float] | None:
    """Return west, south, east and north of all boxes, None where there is none."""
    edges = np.array([[box[edge] for edge in BBOX_EDGES] for box in boxes if box])
    if not len(edges):
        return None
    return [*edges[:, :2].min(axis=0).tolist(), *edges[:, 2:].max(axis=0).tolist()]


def _describe(geometries: pa.ChunkedArray) -> str:
    import shapely

    decoded = decode_geometries(geometries)
    decoded = decoded[~shapely.is_missing(decoded)]
    kinds = sorted({_KINDS[int(kind)] for kind in shapely.get_type_id(decoded)})
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": kinds,
        "orientation": "counterclockwise",
        "covering": {BBOX: {edge: [BBOX, edge] for edge in BBOX_EDGES}},
    }
    if len(decoded):
        column["bbox"] = shapely.total_bounds(decoded).tolist()
    # Without a CRS it is OGC:CRS84: longitude and latitude on WGS 84.
    metadata = {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
    return json.dumps(metadata)
