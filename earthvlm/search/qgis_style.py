"""A style for QGIS: outlines with ranks, and thumbnail and caption where the mouse points.

QGIS loads a .qml file of a layer's own name by itself, and a GeoPackage's table `layer_styles`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa

from earthvlm.embeddings.geoparquet import GEOMETRY

_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_VERSION = "3.28.0"  # the oldest that is meant to read it
_COLOUR = "255,140,0"
_POINTS, _POLYGONS = "0", "2"
_SYMBOLS = {
    _POLYGONS: (
        *("fill", "SimpleFill"),
        {"color": f"{_COLOUR},40", "outline_color": f"{_COLOUR},255", "outline_width": "0.6"},
    ),
    _POINTS: ("marker", "SimpleMarker", {"name": "circle", "color": f"{_COLOUR},255", "size": "3"}),
}
# Captions may come from anywhere, and a map tip is HTML.
_ESCAPED = "replace(coalesce(\"{}\", ''), map('&', '&amp;', '<', '&lt;'))"
_BLOB = "'data:image/jpeg;base64,' || to_base64(\"thumbnail\")"
_GEOMETRY_COLUMN = "geom"  # of the GeoPackages that GDAL makes
_LAYER_STYLES = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256),
    f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
    styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT,
    owner TEXT(30), ui TEXT(30), update_time DATETIME DEFAULT CURRENT_TIMESTAMP
)
"""


def write_style(path: Path, table: pa.Table, *, as_text: bool) -> None:
    """Write a .qml file, unless there is one. as_text: thumbnails are data URIs, not bytes."""
    if not path.exists():
        path.write_text(_make_style(table, '"thumbnail"' if as_text else _BLOB), "utf-8")


def add_style(package: Path, layer: str, table: pa.Table) -> None:
    """Store the style in a GeoPackage as its layer's default."""
    with closing(sqlite3.connect(package)) as database, database:
        database.execute(_LAYER_STYLES)
        database.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name,"
            " f_geometry_column, styleName, styleQML, styleSLD, useAsDefault)"
            " VALUES ('', '', ?, ?, 'earthvlm', ?, '', 1)",
            (layer, _GEOMETRY_COLUMN, _make_style(table, _BLOB)),
        )
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier)"
            " VALUES ('layer_styles', 'attributes', 'layer_styles')"
        )


def _make_style(table: pa.Table, picture: str) -> str:
    """Return the style as XML. picture: the expression of a thumbnail's address."""
    import shapely

    kinds = shapely.get_type_id(shapely.from_wkb(table.column(GEOMETRY).to_pylist()))
    geometry = _POINTS if set(kinds.tolist()) <= {-1, 0} else _POLYGONS
    root = ElementTree.Element(
        "qgis", version=_VERSION, styleCategories="Symbology|Labeling|MapTips"
    )
    _add_symbol(root, *_SYMBOLS[geometry])
    _add_labels(root)
    ElementTree.SubElement(root, "previewExpression").text = '"rank" || \'. \' || "image_id"'
    tip = ElementTree.SubElement(root, "mapTip", enabled="1")
    tip.text = (
        f'<b>[% "rank" %]. [% {_ESCAPED.format("image_id")} %]</b><br>'
        f'<img src="[% {picture} %]" width="192"><br>'
        f"[% {_ESCAPED.format('caption')} %]<br>[% coalesce(\"date\", '') %]"
    )
    ElementTree.SubElement(root, "layerGeometryType").text = geometry
    return _DOCTYPE + ElementTree.tostring(root, encoding="unicode") + "\n"


def _add_symbol(
    root: ElementTree.Element, kind: str, layer_class: str, options: dict[str, str]
) -> None:
    renderer = ElementTree.SubElement(root, "renderer-v2", type="singleSymbol", symbollevels="0")
    symbols = ElementTree.SubElement(renderer, "symbols")
    symbol = ElementTree.SubElement(symbols, "symbol", type=kind, name="0", alpha="1")
    layer = ElementTree.SubElement(
        symbol, "layer", {"class": layer_class, "enabled": "1", "locked": "0", "pass": "0"}
    )
    values = ElementTree.SubElement(layer, "Option", type="Map")
    for name, value in options.items():
        ElementTree.SubElement(values, "Option", type="QString", name=name, value=value)


def _add_labels(root: ElementTree.Element) -> None:
    labels = ElementTree.SubElement(root, "labeling", type="simple")
    settings = ElementTree.SubElement(labels, "settings")
    text = ElementTree.SubElement(
        settings,
        "text-style",
        fieldName="rank",
        isExpression="0",
        fontSize="10",
        fontSizeUnit="Point",
        textColor="0,0,0,255",
        textOpacity="1",
    )
    ElementTree.SubElement(
        text,
        "text-buffer",
        bufferDraw="1",
        bufferSize="1",
        bufferSizeUnits="MM",
        bufferColor="255,255,255,255",
        bufferOpacity="1",
    )
