"""The world map as a component: an index's scenes in clusters, footprints and search results.

Leaflet draws it over borders, waters and towns that are part of this package, so it needs no key
and no server but this one. All of it is loaded when the map is first opened, from `page_parts`. An
online map lies between where the owner wants one (`basemap`).
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from earthvlm.embeddings.filters import BoundingBox
from earthvlm.search.index import SceneIndex, SceneResult
from earthvlm.serving.map_data import normalize_bbox
from earthvlm.ui.basemap import read_basemap
from earthvlm.ui.session import check_index

# The events must be named here: Gradio looks for them in this text.
LOADER = """
const events = ["select", "apply", "clear", "peek", "similar"];
const base = new URL("parts/", document.baseURI).href;
const seen = new IntersectionObserver(async (entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    const {drawMap} = await import(`${base}world_map.js`);
    await drawMap(element, props, trigger, watch, base);
});
seen.observe(element);
"""


def add_world_map(value: dict[str, Any] | None = None, elem_id: str = "world-map") -> gr.HTML:
    """Add a map to the page; its value is what `earthvlm.serving.map_data.map_scenes` returns.

    Its events are `select` when a scene is to be opened and `similar`
    when others like it are (see `get_clicked_scene`), `peek` when a scene's picture is wanted,
    which `show_peek` answers, `apply` after a bounding box was drawn (see `get_drawn_bbox`), and
    `clear` after the box was removed. Raises ValueError where the environment names no fit
    online map.
    """
    basemap = read_basemap()
    return gr.HTML(
        value,
        html_template='<div class="world-map" style="min-height: 420px"></div>',
        js_on_load=LOADER,
        peeked=None,
        basemap=basemap and {"address": basemap.address, "credit": basemap.credit},
        apply_default_css=False,
        elem_id=elem_id,
    )


def show_peek(row: int, entry: SceneResult, title: str, source: str) -> gr.HTML:
    """Return the update of the map that shows a scene's picture and name.

    source: the picture as a data URI, or "".
    """
    caption = entry.caption or ""
    return gr.HTML(peeked={"row": row, "title": title, "source": source, "caption": caption})


def get_clicked_scene(index: SceneIndex, event: gr.EventData) -> SceneResult:
    """Return the scene that was chosen on the map. Raises ValueError for an invalid event."""
    row = check_index(getattr(event, "index", None), len(index))
    return index.browse_rows([row])[0]


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
