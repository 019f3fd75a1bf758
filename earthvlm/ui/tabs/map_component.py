"""The world map: where an index's scenes are, a click that opens one, a box that filters.

Leaflet draws it, over coastlines that come along: no key and no server but this one is needed.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import gradio as gr

from earthvlm.embeddings.filters import BoundingBox
from earthvlm.search.index import SceneIndex, SceneResult
from earthvlm.serving.map_data import read_bbox
from earthvlm.ui.session import check_index

_FILES = files("earthvlm.ui") / "map"


def add_world_map(value: dict[str, Any] | None = None, elem_id: str = "world-map") -> gr.HTML:
    """Add a map to the page; its value is what `earthvlm.serving.map_data.map_scenes` returns.

    Its events: `select` where a scene was clicked, for `clicked_scene`; `apply` where a box was
    drawn, for `drawn_bbox`; `clear` where the box was removed.
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


def clicked_scene(index: SceneIndex, event: gr.SelectData) -> SceneResult:
    """Return the scene that was clicked on the map. Raises ValueError where there is none."""
    return index.browse_rows([check_index(event.index, len(index))])[0]


def drawn_bbox(event: gr.EventData) -> BoundingBox:
    """Return the box that was drawn: west, south, east, north, crossing the date line or not.

    Raises ValueError where none was.
    """
    try:
        return read_bbox(event.bbox)
    except (AttributeError, OverflowError, TypeError, ValueError):
        raise ValueError("no box was drawn: four numbers make one, in degrees") from None


def _read(name: str) -> str:
    return (_FILES / name).read_text("utf-8")
