"""The Map tab: where the scenes are; a click opens one in Chat, a box bounds the search."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from earthvlm.retrieval import SceneIndex
from earthvlm.search_query import Box, SceneFilter
from earthvlm.service import SceneService
from earthvlm.ui.chat import ChatTab, show_opened
from earthvlm.ui.state import Session, tell_errors
from earthvlm.ui.world_map import add_world_map, clicked_scene, drawn_box
from earthvlm.world_map import map_scenes


def add_map_tab(
    session: gr.State, service: SceneService, tab: gr.Tab, tabs: gr.Tabs, chat: ChatTab
) -> None:
    """Add the tab's components and wire them; `tab` is the one they are in."""
    index = service.index
    said = gr.HTML(describe_map(index, None, 0), elem_id="map-said")
    world = add_world_map(map_scenes(index))
    go = gr.Button("Search in this box", visible=False, scale=0, elem_id="search-in-box")

    @tell_errors
    def open_clicked(session: Session, event: gr.SelectData) -> Any:
        """Open the scene that was clicked on the map in the Chat tab."""
        opened = service.open_result(clicked_scene(index, event))
        return gr.Tabs(selected="chat"), *show_opened(session, opened)

    @tell_errors
    def draw_box(session: Session, event: gr.EventData) -> Any:
        """Bound the search by the box that was drawn."""
        session.box = drawn_box(event)
        return show(session)

    @tell_errors
    def remove_box(session: Session) -> Any:
        """Search everywhere again."""
        session.box = None
        return show(session)

    def show(session: Session) -> Any:
        """Show the scenes, those found last, and the box."""
        value = map_scenes(index, session.results, SceneFilter(box=session.box))
        said = describe_map(index, session.box, value["placed"], len(value["results"]))
        return session, value, said, gr.Button(visible=session.box is not None)

    outputs = [session, world, said, go]
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    world.select(open_clicked, session, [tabs, *chat.outputs], **quiet)
    world.apply(draw_box, session, outputs, **quiet)
    world.clear(remove_box, session, outputs, **quiet)
    tab.select(show, session, outputs, **quiet)
    go.click(lambda: gr.Tabs(selected="search"), None, tabs, **quiet)


def describe_map(index: SceneIndex, box: Box | None, placed: int, found: int = 0) -> str:
    """HTML: what the map shows, and what a box does."""
    if box is None:
        numbered = f"; the {found} found last are numbered" if found else ""
        text = (
            f"Where the {len(index):,} scenes are{numbered}. Click one to open it in Chat, draw a "
            "box to search inside it."
        )
    else:
        text = f"{placed:,} scenes in the box ({describe_box(box)}). Search looks only there now."
    return f"<p>{html.escape(text)}</p>"


def describe_box(box: Box) -> str:
    """A box in words: "11.0 to 12.5 E, 52.0 to 52.6 N", in degrees."""
    west, south, east, north = box
    return f"{west:.1f} to {east:.1f} E, {south:.1f} to {north:.1f} N"
