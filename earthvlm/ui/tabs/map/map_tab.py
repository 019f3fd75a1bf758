"""The Map tab: where the scenes are, to open one, find others like it, or search in an area."""

from __future__ import annotations

import html
import time
from dataclasses import dataclass
from typing import Any

import gradio as gr

from earthvlm.embeddings.filters import SceneFilter, parse_bbox
from earthvlm.scenes.places.formatting import describe_bbox, describe_count
from earthvlm.scenes.places.gazetteer import find_place
from earthvlm.search.index import SceneIndex
from earthvlm.serving.map_data import OWN_SCENE, map_scenes
from earthvlm.serving.service import SceneService
from earthvlm.ui.session import Session, identify_client
from earthvlm.ui.tabs.chat.chat_handlers import Outputs
from earthvlm.ui.tabs.chat.chat_tab import ChatTab
from earthvlm.ui.tabs.chat.scene_handlers import show_opened
from earthvlm.ui.tabs.map.map_component import (
    add_world_map,
    get_clicked_scene,
    get_drawn_bbox,
    show_peek,
)
from earthvlm.ui.tabs.search.filters import (
    NEAR_KM,
    SearchOptions,
    build_bbox_field,
    build_near_field,
    format_bbox,
    takes_options,
)
from earthvlm.ui.tabs.search.search_handlers import SearchHandlers
from earthvlm.ui.tabs.search.search_results import title_of
from earthvlm.ui.tabs.search.search_tab import SearchTab, search_again_after

QUIETLY: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
    "concurrency_limit": None,
}


@dataclass(frozen=True)
class MapTab:
    """The components of the Map tab.

    tab: holds the others. near, bbox: show the town and the bounding box of the Search tab's
    fields.
    """

    session: gr.State
    tab: gr.Tab
    summary: gr.HTML
    world_map: gr.HTML
    near: gr.Textbox
    bbox: gr.Textbox
    show_in_search: gr.Button

    @property
    def outputs(self) -> list[Any]:
        """The components that `MapHandlers.show_map` returns values for."""
        return [self.session, self.world_map, self.summary, self.near, self.bbox]


class MapHandlers:
    """The actions of the Map tab. searching: those of the Search tab."""

    def __init__(self, service: SceneService, searching: SearchHandlers) -> None:
        self.service = service
        self.searching = searching

    def open_scene(self, session: Session, event: gr.SelectData, request: gr.Request) -> Outputs:
        """Open a scene that was chosen on the map in the Chat tab."""
        with self.service.opening(identify_client(session, request)):
            opened = self.service.open_result(get_clicked_scene(self.service.index, event))
            return gr.Tabs(selected="chat"), *show_opened(session, opened)

    @takes_options
    def search_similar(
        self, session: Session, options: SearchOptions, event: gr.EventData, request: gr.Request
    ) -> Outputs:
        """Find scenes like one that was chosen on the map, or like the one nearest to a click."""
        row = getattr(event, "index", None)
        return self.searching.search_like_row(session, row, options, request)

    def peek(self, event: gr.EventData) -> gr.HTML:
        """Return the picture and the name of a scene that the pointer or the keyboard is at."""
        entry = get_clicked_scene(self.service.index, event)
        source = self.searching.thumbnails.source(entry)
        return show_peek(event.index, entry, title_of(entry), source)

    def draw_bbox(self, event: gr.EventData) -> tuple[str, str]:
        """Return the bounding box that was drawn, as its field accepts it, and no town."""
        return format_bbox(get_drawn_bbox(event)), ""

    def type_bbox(self, text: str) -> tuple[str, str]:
        """Return the typed bounding box in its usual form, and no town. Raises ValueError."""
        return (format_bbox(parse_bbox(text)) if text.strip() else ""), ""

    def type_place(self, text: str) -> tuple[str, str]:
        """Return no bounding box, and the title of the town that was typed. Raises ValueError."""
        return "", (find_place(text).title if text.strip() else "")

    def locate_result(self, session: Session, event: gr.EventData) -> Outputs:
        """Let the map show a result of the last search, chosen by its index."""
        result = self.searching.chosen(session, getattr(event, "index", None))
        session.located = self.service.index.table.find(result.image_id)
        return session, gr.Tabs(selected="map")

    def locate_opened(self, session: Session) -> Outputs:
        """Let the map show the scene that is open in Chat, or where an own scene lies."""
        opened = session.require_opened()
        if opened.entry is not None:
            session.located = self.service.index.table.find(opened.entry.image_id)
        elif opened.scene.longitude is None or opened.scene.latitude is None:
            raise ValueError(
                "the map cannot show this scene, because its file does not say where it lies"
            )
        else:
            session.located = OWN_SCENE
        return session, gr.Tabs(selected="map")

    def show_map(self, session: Session, bbox: str, near: str) -> Outputs:
        """Return values for `MapTab.outputs`, after the last search.

        Its fields keep what a visitor types while the map opens, unless the area has changed.
        """
        place = find_place(near) if near.strip() else None
        bounds = place.bbox(NEAR_KM) if place else parse_bbox(bbox) if bbox.strip() else None
        results = session.results if session.query else None
        index, where = self.service.index, SceneFilter(bbox=bounds)
        value = map_scenes(index, results or (), where)
        value["located"], session.located = session.located, None
        # The page hears of what differs, so a scene that is located again needs another number.
        value["asked"] = time.monotonic() if value["located"] is not None else 0
        value["own"] = _own_scene(session)
        name = f"within {NEAR_KM:.0f} km of {place.title}" if place else ""
        summary = summarize_map(index, value, len(results or ()), name)
        is_new, session.map_area = session.map_area != (bbox, near), (bbox, near)
        return session, value, summary, *((near, bbox) if is_new else (gr.skip(), gr.skip()))


def build_map_tab(session: gr.State, tab: gr.Tab, index: SceneIndex) -> MapTab:
    """Lay the components out in `tab`; the map's data follow when the tab is opened."""
    summary = gr.HTML(f"<p>{describe_count(len(index), 'scene')}.</p>", elem_id="map-summary")
    world_map = add_world_map()
    with gr.Row(elem_classes="search-by"):
        near, bbox = build_near_field(), build_bbox_field()
        show = gr.Button("List these scenes", scale=0, min_width=180, elem_id="show-in-search")
    return MapTab(session, tab, summary, world_map, near, bbox, show)


def wire_map_tab(
    tab: MapTab,
    service: SceneService,
    tabs: gr.Tabs,
    chat: ChatTab,
    search: SearchTab,
    searching: SearchHandlers,
) -> None:
    """Connect the components to their handlers.

    A town or a bounding box that is drawn or typed goes to the Search tab's fields, and the last
    search runs again inside it.
    """
    handlers, session, options = MapHandlers(service, searching), tab.session, search.options
    fields = [options.bbox, options.near]
    inputs = [session, *fields]
    tab.world_map.select(handlers.open_scene, session, [tabs, *chat.outputs], **QUIETLY)
    tab.world_map.peek(handlers.peek, None, tab.world_map, **QUIETLY)
    for changed in (
        tab.world_map.apply(handlers.draw_bbox, None, fields, **QUIETLY),
        tab.world_map.clear(lambda: ("", ""), None, fields, **QUIETLY),
        tab.bbox.submit(handlers.type_bbox, tab.bbox, fields, **QUIETLY),
        tab.near.submit(handlers.type_place, tab.near, fields, **QUIETLY),
    ):
        searched = search_again_after(changed, search, searching)
        searched.success(handlers.show_map, inputs, tab.outputs, **QUIETLY)
    similar = tab.world_map.similar(
        handlers.search_similar, [session, *options.inputs], search.outputs, **QUIETLY
    )
    # Both open the tab, which draws the map.
    search.results.locate(handlers.locate_result, session, [session, tabs], **QUIETLY)
    chat.locate.click(handlers.locate_opened, session, [session, tabs], **QUIETLY)
    for shown in (similar.success, tab.tab.select):
        shown(handlers.show_map, inputs, tab.outputs, **QUIETLY)
    tab.show_in_search.click(lambda: gr.Tabs(selected="search"), None, tabs, **QUIETLY)


def summarize_map(
    index: SceneIndex, value: dict[str, Any], result_count: int = 0, near: str = ""
) -> str:
    """Return HTML that says what the map shows and how to use it.

    value: what `map_scenes` returned. result_count: how many results the last search has; some may
    have no coordinates and so no number on the map. near: the town around which the box lies.
    """
    numbered = len(value["results"])
    if value["bbox"] is not None:
        place = near or f"in the area {describe_bbox(value['bbox'])}"
        text = f"{describe_count(value['count'], 'scene')} {place}. Search looks only there."
        if left_out := index.table.describe_left_out(SceneFilter(bbox=tuple(value["bbox"]))):
            text += f" {left_out}"
    else:
        unplaced = len(index) - value["count"]
        hidden = f", {unplaced:,} without a place" if unplaced else ""
        text = f"{describe_count(len(index), 'scene')}{hidden}. "
        text += "A circle with a number holds that many."
    if numbered:
        counted = "the" if numbered == result_count else f"{numbered} of"
        results = describe_count(result_count, "result")
        text += f" Orange: {counted} {results} of the last search, numbered by rank."
    text += " Choose a scene, or any other spot to search around it."
    return f"<p>{html.escape(text)}</p>"


def _own_scene(session: Session) -> dict[str, Any] | None:
    """Return the name and the place of the scene that is open in Chat, if it is a visitor's."""
    opened = session.opened
    if opened is None or opened.entry is not None or opened.scene.longitude is None:
        return None
    scene = opened.scene
    return {"name": scene.name, "longitude": scene.longitude, "latitude": scene.latitude}
