"""The Map tab: where the scenes are; a click opens one in Chat, a box limits the search."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import gradio as gr

from earthvlm.embeddings.filters import SceneFilter, parse_bbox
from earthvlm.scenes.places.formatting import describe_bbox
from earthvlm.search.index import SceneIndex
from earthvlm.serving.map_data import map_scenes
from earthvlm.serving.service import SceneService
from earthvlm.ui.session import Session, identify_client
from earthvlm.ui.tabs.chat.chat_handlers import Outputs
from earthvlm.ui.tabs.chat.chat_tab import ChatTab
from earthvlm.ui.tabs.chat.scene_handlers import show_opened
from earthvlm.ui.tabs.map.map_component import add_world_map, get_clicked_scene, get_drawn_bbox
from earthvlm.ui.tabs.search.filters import build_bbox_field, format_bbox
from earthvlm.ui.tabs.search.search_handlers import SearchHandlers
from earthvlm.ui.tabs.search.search_tab import SearchTab, search_again_after

QUIETLY: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
    "concurrency_limit": None,
}


@dataclass(frozen=True)
class MapTab:
    """The components of the Map tab.

    tab: holds the others. bbox: shows the bounding box of the Search tab's field.
    """

    session: gr.State
    tab: gr.Tab
    summary: gr.HTML
    world_map: gr.HTML
    bbox: gr.Textbox
    show_in_search: gr.Button


class MapHandlers:
    """The actions of the Map tab."""

    def __init__(self, service: SceneService) -> None:
        self.service = service

    def open_scene(self, session: Session, event: gr.SelectData, request: gr.Request) -> Outputs:
        """Open a scene that was clicked on the map in the Chat tab."""
        with self.service.opening(identify_client(session, request)):
            opened = self.service.open_result(get_clicked_scene(self.service.index, event))
            return gr.Tabs(selected="chat"), *show_opened(session, opened)

    def draw_bbox(self, event: gr.EventData) -> str:
        """Return the bounding box that was drawn, as its field accepts it."""
        return format_bbox(get_drawn_bbox(event))

    def type_bbox(self, text: str) -> str:
        """Return the bounding box that was typed, in its usual form. Raises ValueError."""
        return format_bbox(parse_bbox(text)) if text.strip() else ""

    def show_map(self, session: Session, bbox: str) -> Outputs:
        """Return values for the map, its summary and its field, after the last search."""
        bounds = parse_bbox(bbox) if bbox.strip() else None
        results = session.results if session.query is not None else None
        index, where = self.service.index, SceneFilter(bbox=bounds)
        value = map_scenes(index, results or (), where)
        return value, summarize_map(index, value, len(results or ())), bbox


def build_map_tab(session: gr.State, tab: gr.Tab, index: SceneIndex) -> MapTab:
    """Lay the components out in `tab`."""
    value = map_scenes(index)
    summary = gr.HTML(summarize_map(index, value), elem_id="map-summary")
    world_map = add_world_map(value)
    with gr.Row(elem_classes="search-by"):
        bbox = build_bbox_field()
        show = gr.Button("Show results in Search", scale=0, min_width=210, elem_id="show-in-search")
    return MapTab(session, tab, summary, world_map, bbox, show)


def wire_map_tab(
    tab: MapTab,
    service: SceneService,
    tabs: gr.Tabs,
    chat: ChatTab,
    search: SearchTab,
    search_handlers: SearchHandlers,
) -> None:
    """Connect the components to their handlers.

    A bounding box that is drawn or typed goes to the Search tab's field, and the last search runs
    again inside it.
    """
    handlers, session, bbox = MapHandlers(service), tab.session, search.options.bbox
    tab.world_map.select(handlers.open_scene, session, [tabs, *chat.outputs], **QUIETLY)
    inputs, outputs = [session, bbox], [tab.world_map, tab.summary, tab.bbox]
    for changed in (
        tab.world_map.apply(handlers.draw_bbox, None, bbox, **QUIETLY),
        tab.world_map.clear(lambda: "", None, bbox, **QUIETLY),
        tab.bbox.submit(handlers.type_bbox, tab.bbox, bbox, **QUIETLY),
    ):
        searched = search_again_after(changed, search, search_handlers)
        searched.success(handlers.show_map, inputs, outputs, **QUIETLY)
    tab.tab.select(handlers.show_map, inputs, outputs, **QUIETLY)
    tab.show_in_search.click(lambda: gr.Tabs(selected="search"), None, tabs, **QUIETLY)


def summarize_map(index: SceneIndex, value: dict[str, Any], result_count: int = 0) -> str:
    """Return HTML that says what the map shows and how to use it.

    value: what `map_scenes` returned. result_count: how many results the last search has; some may
    have no coordinates and so no number on the map.
    """
    numbered = len(value["results"])
    if value["bbox"] is not None:
        place = describe_bbox(value["bbox"])
        text = f"{value['count']:,} scenes in the bounding box ({place}). Search uses only these."
    else:
        text = f"The map shows where the {len(index):,} scenes are. "
        if numbered:
            counted = "all" if numbered == result_count else f"{numbered} of"
            text += (
                f"Numbers mark {counted} {result_count} results of the last search; “+2” means "
                "that two more results share a marker. "
            )
        text += (
            "Click a scene to open it in Chat. Draw or type a bounding box to search only there."
        )
    return f"<p>{html.escape(text)}</p>"
