"""Search results as files that other programs open: CSV, GeoJSON, GeoPackage and GeoParquet.

Each row is a result with its footprint, caption, similarities and ranks, without vectors. A scene
of which only the centre is known is a point.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from earthvlm.embeddings.geoparquet import BBOX, GEOMETRY, bound_geometries, write_geoparquet
from earthvlm.search.qgis_style import add_style, write_style
from earthvlm.search.result import SceneResult
from earthvlm.storage.files import write_atomically

if TYPE_CHECKING:
    import shapely

LAYER = "scenes"
DEGREE_DECIMALS = 7  # a centimetre
THUMBNAIL_QUALITY = 85  # JPEG, which every program shows
_COLUMNS = pa.schema(
    [
        ("rank", pa.int32()),
        ("image_id", pa.string()),
        ("caption", pa.string()),
        ("score", pa.float64()),
        *((f"{name}_similarity", pa.float64()) for name in ("caption", "scene", "example")),
        *((f"{name}_rank", pa.int32()) for name in ("caption", "scene", "example")),
        ("longitude", pa.float64()),
        ("latitude", pa.float64()),
        ("date", pa.date32()),
        ("datetime", pa.timestamp("ms", "UTC")),
        ("split", pa.string()),
        ("source", pa.string()),
        ("product_id", pa.string()),
        ("mgrs_tile", pa.string()),
        ("grid_cell", pa.string()),
        ("cloud", pa.float64()),
    ]
)
_SCENE_FILE = pa.field("scene_file", pa.string())
# Spreadsheets read a cell that begins with one of these as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def check_result_path(path: Path) -> None:
    """Raise ValueError for a name of no known format, FileNotFoundError for a missing folder."""
    if path.suffix.lower() not in _WRITERS:
        raise ValueError(
            f"{path} has no format that results are written in; end its name with "
            f"{', '.join(_WRITERS)}"
        )
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} in")


def write_results(
    results: Sequence[SceneResult], path: str | Path, *, with_scene_files: bool = True
) -> None:
    """Write results in the format that a file's suffix names, best first.

    A GeoPackage holds a style for QGIS; GeoJSON and GeoParquet get one next to them (.qml), unless
    there is one.

    Args:
        results: of a search.
        path: ends with .csv, .geojson, .gpkg or .parquet.
        with_scene_files: whether the rows name the GeoTIFFs with all bands, on this machine.

    Raises:
        ValueError: there are no results, or the suffix is of no known format.
        FileNotFoundError: the folder does not exist.
    """
    path = Path(path)
    check_result_path(path)
    table = _make_table(results, with_scene_files)
    with write_atomically(path) as temporary:
        _WRITERS[path.suffix.lower()](table, temporary)
    if path.suffix.lower() in (".geojson", ".parquet"):
        write_style(path.with_suffix(".qml"), table, as_text=path.suffix.lower() == ".geojson")


def results_to_bytes(results: Sequence[SceneResult], suffix: str) -> bytes:
    """Return results as the content of such a file, without paths of this machine.

    Raises ValueError where there are none.
    """
    table = _make_table(results, False)
    with tempfile.TemporaryDirectory(prefix="earthvlm-results-") as folder:
        path = Path(folder, f"results{suffix}")
        _WRITERS[suffix](table, path)
        return path.read_bytes()


def _make_table(results: Sequence[SceneResult], with_scene_files: bool) -> pa.Table:
    """Return the results as rows, with the columns geometry, bbox and thumbnail (JPEG)."""
    import shapely

    if not results:
        raise ValueError("There are no results to save: search for something first.")
    known = {field.name for field in fields(SceneResult)}
    columns = {
        name: [getattr(result, name) for result in results]
        for name in _COLUMNS.names
        if name in known
    }
    columns["rank"] = list(range(1, len(results) + 1))
    table = pa.table([columns[name] for name in _COLUMNS.names], schema=_COLUMNS)
    if with_scene_files:
        paths = [result.scene_file and str(result.scene_file) for result in results]
        table = table.append_column(_SCENE_FILE, pa.array(paths, pa.string()))
    thumbnails = pa.array([_encode_thumbnail(result) for result in results], pa.binary())
    geometries = shapely.to_wkb([_locate(result) for result in results])
    table = table.append_column("thumbnail", thumbnails)
    table = table.append_column(GEOMETRY, pa.array(geometries.tolist(), pa.binary()))
    return table.append_column(BBOX, bound_geometries(table.column(GEOMETRY)))


def _locate(result: SceneResult) -> shapely.Geometry | None:
    import shapely

    if result.geometry is not None:
        return shapely.from_wkb(result.geometry)
    if result.longitude is None or result.latitude is None:
        return None
    return shapely.Point(result.longitude, result.latitude)


def _encode_thumbnail(result: SceneResult) -> bytes | None:
    if result.thumbnail is None:
        return None
    buffer = io.BytesIO()
    result.thumbnail.convert("RGB").save(buffer, "JPEG", quality=THUMBNAIL_QUALITY)
    return buffer.getvalue()


def _write_csv(table: pa.Table, path: Path) -> None:
    """Write a header and rows, with the geometry as WKT, and no cell that would be a formula."""
    import shapely

    geometries = shapely.from_wkb(table.column(GEOMETRY).to_pylist())
    texts = shapely.to_wkt(geometries, rounding_precision=DEGREE_DECIMALS).tolist()
    rows = table.drop_columns([GEOMETRY, BBOX, "thumbnail"]).to_pylist()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*rows[0], "WKT"])
        for row, text in zip(rows, texts, strict=True):
            writer.writerow([*map(_cell, row.values()), text])


def _cell(value: object) -> object:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _write_geojson(table: pa.Table, path: Path) -> None:
    """Write a FeatureCollection (RFC 7946); a thumbnail is a data URI."""
    import shapely

    features = []
    for row in table.drop_columns([BBOX]).to_pylist():
        wkb, thumbnail = row.pop(GEOMETRY), row.pop("thumbnail")
        if thumbnail:
            encoded = base64.b64encode(thumbnail).decode("ascii")
            row["thumbnail"] = f"data:image/jpeg;base64,{encoded}"
        geometry = None if wkb is None else shapely.geometry.mapping(shapely.from_wkb(wkb))
        if geometry:
            geometry["coordinates"] = _round(geometry["coordinates"])
        features.append(
            {"type": "Feature", "id": row["image_id"], "geometry": geometry, "properties": row}
        )
    collection = {"type": "FeatureCollection", "features": features}
    text = json.dumps(collection, ensure_ascii=False, indent=1, default=lambda day: day.isoformat())
    path.write_text(text + "\n", "utf-8")


def _round(coordinates: Any) -> Any:
    if isinstance(coordinates, list | tuple):
        return [_round(each) for each in coordinates]
    return round(coordinates, DEGREE_DECIMALS)


def _write_geopackage(table: pa.Table, path: Path) -> None:
    """Write one layer, `scenes`, with its style for QGIS."""
    import pyogrio
    import shapely

    geometries = shapely.from_wkb(table.column(GEOMETRY).to_pylist())
    kinds = {each.geom_type for each in geometries if each is not None}
    if "MultiPolygon" in kinds and kinds <= {"Polygon", "MultiPolygon"}:
        polygons = (shapely.get_parts(each) if each else None for each in geometries)
        geometries = [each if each is None else shapely.MultiPolygon(each) for each in polygons]
        kinds = {"MultiPolygon"}
    encoded = pa.array(shapely.to_wkb(geometries).tolist(), pa.binary())
    package = path.with_name(f"{path.name}.gpkg")  # GDAL asks for the suffix
    try:
        pyogrio.write_arrow(
            table.drop_columns([GEOMETRY, BBOX]).append_column(GEOMETRY, encoded),
            package,
            layer=LAYER,
            driver="GPKG",
            geometry_name=GEOMETRY,
            geometry_type=kinds.pop() if len(kinds) == 1 else "Unknown",
            crs="EPSG:4326",
        )
        add_style(package, LAYER, table)
        package.replace(path)
    finally:
        package.unlink(missing_ok=True)


_WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    ".csv": _write_csv,
    ".geojson": _write_geojson,
    ".gpkg": _write_geopackage,
    ".parquet": write_geoparquet,
}
