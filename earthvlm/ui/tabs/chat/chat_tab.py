"""The Chat tab: choose a scene, look at it and ask about it.

Like every tab, it is built in two steps: `build_chat_tab` lays the components out and returns them,
`wire_chat_tab` connects them to the methods of a handlers class, which know no component.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from earthvlm.scenes.bands import COMPOSITES
from earthvlm.serving.measurements import suggest_questions
from earthvlm.serving.service import OpenScene, SceneService
from earthvlm.ui.examples import describe_example
from earthvlm.ui.html.scene_html import show_details
from earthvlm.ui.scene_viewer import add_viewer, show_viewer, wire_pixels
from earthvlm.ui.tabs.chat.chat_handlers import ChatHandlers
from earthvlm.ui.tabs.chat.chat_panel import (
    ChatPanel,
    ask_linked_question_after,
    build_chat_panel,
    build_map_buttons,
    wire_chat_panel,
)
from earthvlm.ui.tabs.chat.scene_handlers import SceneHandlers
from earthvlm.ui.tabs.chat.stored_conversation import RESTORE_SCRIPT
from earthvlm.ui.uploads import BOA_OFFSETS, SCENE_FILES, take_uploads_only

# Who waits for a scene waits in the service's queue, where no address can block the others.
OPENING: dict[str, Any] = {"concurrency_limit": None, "show_progress": "minimal"}
QUIETLY: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden"}


@dataclass(frozen=True)
class ChatTab:
    """The components of the Chat tab.

    image_id: for API clients, who open scenes of the index by it. locate: shows the scene on the
    map; the Map tab connects it. restored: the conversation that the browser kept.
    """

    session: gr.State
    gallery: gr.Gallery
    upload: gr.File
    boa_offset: gr.Radio
    window: gr.Textbox
    picture: gr.HTML
    composite: gr.Radio
    locate: gr.Button
    details: gr.HTML
    panel: ChatPanel
    image_id: gr.Textbox
    restored: gr.Textbox

    @property
    def outputs(self) -> list[gr.components.Component]:
        """The components that `show_opened` returns values for."""
        return [self.session, self.picture, self.composite, self.details, *self.panel.outputs]


def build_chat_tab(
    session: gr.State, examples: Sequence[OpenScene], *, has_cover_map: bool = False
) -> ChatTab:
    """Lay the components out.

    examples: offered in the gallery; the first is open at the start. has_cover_map: whether the
    bridge draws land-cover maps.
    """
    first = examples[0] if examples else None
    with gr.Row(elem_classes="workspace"):
        # First in the document, so that the question comes early for who uses the keyboard.
        ask = gr.Column(elem_classes="ask", min_width=0)
        with gr.Row(elem_classes="pinned"):
            with gr.Column(elem_classes="see", min_width=0):
                picture, composite = _build_picture(first)
            with gr.Column(elem_classes="know", min_width=0):
                details = gr.HTML(
                    show_details(first) if first else "",
                    label="Scene details",
                    elem_id="scene-details",
                )
                locate = gr.Button("Show on the map", size="sm", min_width=90, elem_id="locate")
        with gr.Row(elem_classes="draw"):
            composite.render()
            maps = build_map_buttons(has_cover_map)
        with ask:
            suggestions = first.questions if first else suggest_questions(None)
            panel = build_chat_panel(session, picture, maps, suggestions)
        with gr.Row(elem_classes="choose"):
            gallery = _build_gallery(examples)
            with gr.Column(scale=1, min_width=250):
                upload, boa_offset, window = _build_upload()
    return ChatTab(
        session=session,
        gallery=gallery,
        upload=upload,
        boa_offset=boa_offset,
        window=window,
        picture=picture,
        composite=composite,
        locate=locate,
        details=details,
        panel=panel,
        image_id=gr.Textbox(label="image_id", visible=False),
        restored=gr.Textbox(visible=False),
    )


def _build_gallery(examples: Sequence[OpenScene]) -> gr.Gallery:
    return gr.Gallery(
        [
            (example.entry.thumbnail, describe_example(example))
            for example in examples
            if example.entry
        ],
        label="Example scenes",
        columns=len(examples) or 1,
        height="auto",
        allow_preview=False,
        interactive=False,
        object_fit="cover",
        buttons=[],
        elem_id="examples",
        scale=5,
    )


def _build_upload() -> tuple[gr.File, gr.Radio, gr.Textbox]:
    upload = gr.File(
        label="Open your own: GeoTIFF, band files, .SAFE.zip or photo",
        file_count="multiple",
        file_types=SCENE_FILES,
        height=92,
        elem_id="upload",
    )
    take_uploads_only(upload)
    with gr.Accordion("Options for reading files", open=False, elem_classes="settings"):
        boa_offset = gr.Radio(
            [(label, choice) for choice, (label, _) in BOA_OFFSETS.items()],
            value="auto",
            label="Offset of 1000 in products since 25 January 2022 (boa_offset)",
            elem_id="boa_offset",
        )
        window = gr.Textbox(
            label="Part of a large image in pixels: column, row, width, height (window)",
            value="",
            placeholder="Empty: all of the image, or an overview of a large one",
            max_length=60,
            elem_id="window",
        )
    return upload, boa_offset, window


def _build_picture(first: OpenScene | None) -> tuple[gr.HTML, gr.Radio]:
    composites = first.scene.available_composites() if first else tuple(COMPOSITES)
    picture = add_viewer(show_viewer(first, composites[0]) if first else None, "Scene", "picture")
    composite = gr.Radio(
        list(composites),
        value=composites[0],
        label="Bands shown",
        elem_id="composite",
        elem_classes="pills",
        render=False,  # below the picture, outside of what stays in view
    )
    return picture, composite


def wire_chat_tab(
    tab: ChatTab, page: gr.Blocks, service: SceneService, examples: Sequence[OpenScene]
) -> None:
    """Connect the components to their handlers. examples: those that the tab was built with."""
    session, outputs = tab.session, tab.outputs
    opening: dict[str, Any] = {**OPENING, "show_progress_on": tab.picture}
    private = {**opening, "api_visibility": "private"}
    conversation = ChatHandlers(service)
    scenes = SceneHandlers(conversation, examples, len(outputs))
    tab.gallery.select(scenes.open_example, session, outputs, **private)
    uploaded = tab.upload.upload(
        scenes.open_scene,
        [session, tab.upload, tab.boa_offset, tab.window],
        outputs,
        api_name="open_scene",
        show_progress_on=tab.upload,
        trigger_mode="always_last",  # a file that is sent while another opens is opened after it
        **OPENING,
    )
    for ended in (uploaded.then, uploaded.failure):  # empty the field for the next file
        ended(None, None, tab.upload, js="() => null", api_visibility="private")
    tab.image_id.submit(
        scenes.open_named, [session, tab.image_id], outputs, api_name="open_named", **opening
    )
    tab.composite.input(
        scenes.draw, [session, tab.composite], tab.picture, api_name="draw", **QUIETLY
    )
    tab.picture.part(scenes.open_part, session, outputs, **private)
    tab.picture.order(scenes.open_order, session, outputs, **private)
    tab.picture.apply(
        scenes.draw_bands,
        session,
        [tab.picture, tab.composite],
        api_visibility="private",
        **QUIETLY,
    )
    wire_pixels(tab.picture, session)
    restoring: dict[str, Any] = {
        "inputs": [session, tab.restored],
        "outputs": [*outputs, tab.panel.prompt],
        "js": RESTORE_SCRIPT,
        "api_visibility": "private",
        **QUIETLY,
    }
    linked = page.load(scenes.open_link, **restoring)
    tab.panel.restore.click(scenes.open_stored, **restoring)
    wire_chat_panel(tab.panel, conversation)
    ask_linked_question_after(linked, tab.panel, conversation)
