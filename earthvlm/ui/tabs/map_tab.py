"""The Map tab: where the scenes are; a click opens one in Chat, a box bounds the search."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from earthvlm.embeddings.filters import BoundingBox, SceneFilter, parse_bbox
from earthvlm.scenes.formatting import describe_bbox
from earthvlm.search.index import SceneIndex
from earthvlm.serving.map_data import map_scenes
from earthvlm.serving.service import SceneService
from earthvlm.ui.session import Session, identify_client
from earthvlm.ui.tabs.chat_tab import ChatTab, show_opened
from earthvlm.ui.tabs.filters import add_bbox_field, write_bbox
from earthvlm.ui.tabs.map_component import add_world_map, clicked_scene, drawn_bbox
from earthvlm.ui.tabs.search_tab import SearchTab


def add_map_tab(
    session: gr.State,
    service: SceneService,
    tab: gr.Tab,
    tabs: gr.Tabs,
    chat: ChatTab,
    search: SearchTab,
) -> None:
    """Add the tab's components and wire them; `tab` is the one they are in.

    The box is the Search tab's: drawn or typed here, it stands in that tab's field, and the last
    search is done again inside it.
    """
    index = service.index
    said = gr.HTML(describe_map(index, None, 0), elem_id="map-said")
    world = add_world_map(map_scenes(index))
    with gr.Row(elem_classes="search-by"):
        bbox = add_bbox_field()
        go = gr.Button("Show in Search", scale=0, min_width=150, elem_id="show-in-search")

    def open_clicked(session: Session, event: gr.SelectData, request: gr.Request) -> Any:
        """Open the scene that was clicked on the map in the Chat tab."""
        with service.opening(identify_client(session, request)):
            opened = service.open_result(clicked_scene(service.index, event))
            return gr.Tabs(selected="chat"), *show_opened(session, opened)

    def draw_box(event: gr.EventData) -> str:
        """Write down the box that was drawn."""
        return write_bbox(drawn_bbox(event))

    def type_box(text: str) -> str:
        """Write down the box that was typed, if it is one."""
        return write_bbox(parse_bbox(text)) if text.strip() else ""

    def show(session: Session, bbox: str) -> Any:
        """Show the scenes, those found last, and the box."""
        bounds = parse_bbox(bbox) if bbox.strip() else None
        found = session.results if session.query is not None else None
        index = service.index
        value = map_scenes(index, found or (), SceneFilter(bbox=bounds))
        numbered = len(value["results"])
        return value, describe_map(index, bounds, value["placed"], numbered, len(found or ())), bbox

    quiet = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    shown = [world, said, bbox]
    world.select(open_clicked, session, [tabs, *chat.outputs], **quiet)
    for changed in (
        world.apply(draw_box, None, search.bbox, **quiet),
        world.clear(lambda: "", None, search.bbox, **quiet),
        bbox.submit(type_box, bbox, search.bbox, **quiet),
    ):
        search.again(changed).success(show, [session, search.bbox], shown, **quiet)
    tab.select(show, [session, search.bbox], shown, **quiet)
    go.click(lambda: gr.Tabs(selected="search"), None, tabs, **quiet)


def describe_map(
    index: SceneIndex, bbox: BoundingBox | None, placed: int, numbered: int = 0, found: int = 0
) -> str:
    """HTML: what the map shows, and what a box does.

    numbered: how many of the scenes that were found have a place, and so a number on it.
    """
    if bbox is None:
        those = f"the {found}" if numbered == found else f"{numbered} of the {found}"
        last = f"; {those} found last are numbered, +2 where two more are" if numbered else ""
        text = (
            f"Where the {len(index):,} scenes are{last}. Click one to open it in Chat, draw or "
            "type a box to search inside it."
        )
    else:
        text = f"{placed:,} scenes in the box ({describe_bbox(bbox)}). Search looks only there now."
    return f"<p>{html.escape(text)}</p>"
