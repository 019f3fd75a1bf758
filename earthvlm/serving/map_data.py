"""What a map of an index shows: its scenes, the search results, and the filter's bounding box."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from textwrap import shorten
from typing import Any

import numpy as np

from earthvlm.embeddings.filters import BoundingBox, SceneFilter
from earthvlm.search.index import SceneIndex, SceneResult

# More points than this would overlap on a screen, so a larger index is shown by a sample.
MAX_POINTS = 200_000
# Web-Mercator ends at this latitude; scenes closer to a pole are shown at the edge.
MERCATOR_LATITUDE = 85.05
CAPTION_CHARACTERS = 90


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
        count: How many such scenes there are, including those not in the sample.
        results: The results that have coordinates, with rank and the start of the caption.
        bbox: The bounding box of `where`, or None.
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
    return {
        "points": _encode(points.astype("<f4")),
        "rows": _encode(rows.astype("<i4")),
        "count": count,
        "results": [
            _describe_result(index, result, rank)
            for rank, result in enumerate(results, start=1)
            if result.longitude is not None and result.latitude is not None
        ],
        "bbox": list(where.bbox) if where.bbox is not None else None,
    }


def normalize_bbox(bbox: Sequence[float]) -> BoundingBox:
    """Return a bounding box drawn on the map with longitudes from -180 to 180.

    A box that is 360 degrees wide or wider becomes one of all longitudes.
    """
    west, south, east, north = map(float, bbox)
    if east - west >= 360:
        west, east = -180.0, 180.0
    else:
        west, east = ((value + 180) % 360 - 180 for value in (west, east))
    return west, max(south, -90.0), east, min(north, 90.0)


def _describe_result(index: SceneIndex, result: SceneResult, rank: int) -> dict[str, Any]:
    return {
        "row": index.table.find(result.image_id),
        "rank": rank,
        "name": result.image_id,
        "caption": shorten(result.caption or "", CAPTION_CHARACTERS, placeholder=" …"),
        "longitude": result.longitude,
        "latitude": float(_clip_latitude(result.latitude)),
    }


def _clip_latitude(latitude: Any) -> Any:
    return np.clip(latitude, -MERCATOR_LATITUDE, MERCATOR_LATITUDE)


def _encode(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
