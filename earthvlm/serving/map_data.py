"""What a map of an index shows: where its scenes are, which were found, the box that filters."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from textwrap import shorten
from typing import Any

import numpy as np

from earthvlm.embeddings.filters import BoundingBox, SceneFilter
from earthvlm.search.index import SceneIndex, SceneResult

# More than a screen can show apart; a larger collection is drawn by an even sample of its scenes.
MOST_POINTS = 200_000
# Web-Mercator ends here; what lies nearer to a pole is drawn at its edge.
MERCATOR_LATITUDE = 85.05
CAPTION_LETTERS = 90


def map_scenes(
    index: SceneIndex,
    results: Sequence[SceneResult] = (),
    where: SceneFilter | None = None,
    most_points: int = MOST_POINTS,
) -> dict[str, Any]:
    """Return what `earthvlm.ui.tabs.map_component` draws, as JSON can hold it.

    points: longitude and latitude of each scene that fits `where` and has a place, float32 in
        base64; rows: their rows in the index, int32 likewise. placed: how many there are, of which
        at most `most_points` are drawn.
    results: the scenes found that have a place, with their rank and how their caption begins.
    bbox: that of `where`, or None.
    """
    where = where or SceneFilter()
    longitude, latitude = (
        index.table.column(name).to_numpy().astype(np.float32) for name in ("longitude", "latitude")
    )
    placed = ~(np.isnan(longitude) | np.isnan(latitude))
    selected = index.table.select(where)
    if selected is not None:
        placed &= selected
    rows = np.flatnonzero(placed)
    count = len(rows)
    if count > most_points:
        rows = rows[np.linspace(0, count - 1, most_points).astype(np.int64)]
    points = np.stack([longitude[rows], _clip(latitude[rows])], axis=1)
    return {
        "points": _encode(points.astype("<f4")),
        "rows": _encode(rows.astype("<i4")),
        "placed": count,
        "results": [
            {
                "row": index.table.find(result.image_id),
                "rank": rank,
                "name": result.image_id,
                "caption": shorten(result.caption or "", CAPTION_LETTERS, placeholder=" …"),
                "longitude": result.longitude,
                "latitude": float(_clip(result.latitude)),
            }
            for rank, result in enumerate(results, start=1)
            if result.longitude is not None and result.latitude is not None
        ],
        "box": list(where.bbox) if where.bbox is not None else None,
    }


def _clip(latitude: Any) -> np.ndarray:
    return np.clip(latitude, -MERCATOR_LATITUDE, MERCATOR_LATITUDE)


def _encode(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def read_bbox(longitudes_latitudes: Sequence[float]) -> BoundingBox:
    """The box that was drawn on the map: its longitudes brought between -180 and 180.

    A box as wide as the world or wider holds every longitude.
    """
    west, south, east, north = map(float, longitudes_latitudes)
    if east - west >= 360:
        west, east = -180.0, 180.0
    else:
        west, east = ((value + 180) % 360 - 180 for value in (west, east))
    return west, max(south, -90.0), east, min(north, 90.0)
