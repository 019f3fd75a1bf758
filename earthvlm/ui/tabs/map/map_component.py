"""The world map as a component: an index's scenes, a click that opens one, a bounding box.

Leaflet draws it over coastlines that are part of this package, so it needs no key and no server but
this one.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import gradio as gr

from earthvlm.embeddings.filters import BoundingBox
from earthvlm.search.index import SceneIndex, SceneResult
from earthvlm.serving.map_data import normalize_bbox
from earthvlm.ui.session import check_index

_FILES = files("earthvlm.ui") / "map"


def add_world_map(value: dict[str, Any] | None = None, elem_id: str = "world-map") -> gr.HTML:
    """Add a map to the page; its value is what `earthvlm.serving.map_data.map_scenes` returns.

    Its events are `select` after a click on a scene (see `get_clicked_scene`), `apply` after a
    bounding box was drawn (see `get_drawn_bbox`), and `clear` after the box was removed.
    """
    leaflet, topojson = _read("leaflet.js"), _read("topojson-client.js")
    styles = _read("leaflet.css") + _read("world_map.css")
    return gr.HTML(
        value,
        html_template='<div class="world-map"></div>',
        js_on_load=_read("world_map.js") + _read("land.js"),
        head=f"<style>{styles}</style><script>{leaflet}</script><script>{topojson}</script>",
        land=json.loads(_read("land-110m.json")),
        apply_default_css=False,
        elem_id=elem_id,
    )


def get_clicked_scene(index: SceneIndex, event: gr.SelectData) -> SceneResult:
    """Return the scene that was clicked on the map. Raises ValueError for an invalid event."""
    return index.browse_rows([check_index(event.index, len(index))])[0]


def get_drawn_bbox(event: gr.EventData) -> BoundingBox:
    """Return the bounding box that was drawn; west exceeds east if it crosses the date line.

    Raises ValueError for an invalid event.
    """
    try:
        return normalize_bbox(event.bbox)
    except (AttributeError, OverflowError, TypeError, ValueError):
        raise ValueError(
            "the event has no bounding box: west, south, east and north in degrees"
        ) from None


def _read(name: str) -> str:
    return (_FILES / name).read_text("utf-8")
