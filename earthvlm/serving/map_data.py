"""What a map of an index shows: its scenes, the search results, and the filter's bounding box."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely

from earthvlm.data.questions.scene_sentences import capital
from earthvlm.embeddings.filters import MAX_CROSSING_DEGREES, BoundingBox, SceneFilter
from earthvlm.scenes.places.formatting import describe_date
from earthvlm.scenes.places.gazetteer import describe_nearest
from earthvlm.search.index import SceneIndex, SceneResult

# A larger index is shown by a sample, so that a browser stays quick.
MAX_POINTS = 100_000
# Up to here each scene has its name and its outline on the map.
MAX_NAMED = 2_000
# In place of a row: the visitor's own scene is to be shown.
OWN_SCENE = -1
# Web-Mercator ends at this latitude; scenes closer to a pole are shown at the edge.
MERCATOR_LATITUDE = 85.05


def map_scenes(
    index: SceneIndex,
    results: Sequence[SceneResult] = (),
    where: SceneFilter | None = None,
    max_points: int = MAX_POINTS,
) -> dict[str, Any]:
    """Return the value of `earthvlm.ui.tabs.map.map_component.add_world_map`, ready for JSON.

    Returns:
        points: Longitude and latitude of the scenes that match `where` and have coordinates, as
            float32 in base64; an evenly spaced sample if there are more than `max_points`.
        rows: The rows of these scenes in the index, as int32 in base64.
        names: What these scenes are called; empty where there are more than MAX_NAMED.
        outlines: Their footprints, each a list of rings of [longitude, latitude]; empty likewise.
        count: How many such scenes there are, including those not in the sample.
        results: The results that have coordinates, with rank and name.
        bbox: The bounding box of `where`, or None.
        located: The row of a scene to show, or OWN_SCENE; None here.
    """
    where = where or SceneFilter()
    longitude, latitude = (
        index.table.column(name).to_numpy().astype(np.float32) for name in ("longitude", "latitude")
    )
    shown = ~(np.isnan(longitude) | np.isnan(latitude))
    selected = index.table.select(where)
    if selected is not None:
        shown &= selected
    rows = np.flatnonzero(shown)
    count = len(rows)
    if count > max_points:
        rows = rows[np.linspace(0, count - 1, max_points).astype(np.int64)]
    points = np.stack([longitude[rows], _clip_latitude(latitude[rows])], axis=1)
    are_named = len(rows) <= MAX_NAMED
    return {
        "points": _encode(points.astype("<f4")),
        "rows": _encode(rows.astype("<i4")),
        "names": [_name_row(index, int(row)) for row in rows] if are_named else [],
        "outlines": _read_outlines(index, rows) if are_named else [],
        "count": count,
        "results": [
            _describe_result(index, result, rank)
            for rank, result in enumerate(results, start=1)
            if result.longitude is not None and result.latitude is not None
        ],
        "bbox": list(where.bbox) if where.bbox is not None else None,
        "located": None,
    }


def normalize_bbox(bbox: Sequence[float]) -> BoundingBox:
    """Return a bounding box drawn on the map with longitudes from -180 to 180.

    A box that is 360 degrees wide or wider becomes one of all longitudes, and so does one that
    crosses the date line and is wider than a filter's box may be there.
    """
    west, south, east, north = map(float, bbox)
    width = east - west
    west, east = ((value + 180) % 360 - 180 for value in (west, east))
    if width >= 360 or (west > east and width > MAX_CROSSING_DEGREES):
        west, east = -180.0, 180.0
    return west, max(south, -90.0), east, min(north, 90.0)


def _name_row(index: SceneIndex, row: int) -> str:
    """Return where and when a scene was taken, else its name."""
    longitude, latitude, date, image_id = (
        index.table.column(name)[row].as_py()
        for name in ("longitude", "latitude", "date", "image_id")
    )
    place = describe_nearest(longitude, latitude)
    title = capital(place) if place else image_id
    return f"{title}, {describe_date(date)}" if date else title


def _read_outlines(index: SceneIndex, rows: np.ndarray) -> list[list[list[list[float]]]]:
    """Return the rings of each scene's footprint, none where it is unknown."""
    outlines = []
    for geometry in shapely.from_wkb(index.table.column("geometry").take(rows).to_pylist()):
        parts = shapely.get_parts(geometry) if geometry is not None else ()
        rings = [np.round(shapely.get_coordinates(part.exterior), 5).tolist() for part in parts]
        outlines.append(rings)
    return outlines


def _describe_result(index: SceneIndex, result: SceneResult, rank: int) -> dict[str, Any]:
    row = index.table.find(result.image_id)
    return {
        "row": row,
        "rank": rank,
        "name": _name_row(index, row),
        "longitude": result.longitude,
        "latitude": float(_clip_latitude(result.latitude)),
    }


def _clip_latitude(latitude: Any) -> Any:
    return np.clip(latitude, -MERCATOR_LATITUDE, MERCATOR_LATITUDE)


def _encode(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
