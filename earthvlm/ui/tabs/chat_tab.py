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
from earthvlm.ui.scene_html import show_details
from earthvlm.ui.scene_viewer import (
    add_viewer,
    get_chosen_bands,
    show_session,
    show_viewer,
    wire_pixels,
)
from earthvlm.ui.session import Session, check_index, identify_client, limit_memory, page_only
from earthvlm.ui.tabs.chat_handlers import ChatHandlers, Outputs, start_conversation
from earthvlm.ui.tabs.chat_panel import (
    ChatPanel,
    ask_linked_question_after,
    build_chat_panel,
    build_map_buttons,
    wire_chat_panel,
)
from earthvlm.ui.tabs.stored_conversation import (
    RESTORE_SCRIPT,
    StoredConversation,
    read_stored,
    store_conversation,
)
from earthvlm.ui.uploads import (
    BOA_OFFSETS,
    SCENE_FILES,
    open_uploads,
    parse_window,
    take_uploads_only,
)

MAX_ID_CHARACTERS = 200
# Who waits for a scene waits in the service's queue, where no address can block the others.
OPENING: dict[str, Any] = {"concurrency_limit": None, "show_progress": "minimal"}
QUIETLY: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden"}


@dataclass(frozen=True)
class ChatTab:
    """The components of the Chat tab.

    image_id: for API clients, who open scenes of the index by it. restored: the conversation that
    the browser kept.
    """

    session: gr.State
    gallery: gr.Gallery
    upload: gr.File
    boa_offset: gr.Radio
    window: gr.Textbox
    picture: gr.HTML
    composite: gr.Radio
    details: gr.HTML
    panel: ChatPanel
    image_id: gr.Textbox
    restored: gr.Textbox

    @property
    def outputs(self) -> list[gr.components.Component]:
        """The components that `show_opened` returns values for."""
        return [self.session, self.picture, self.composite, self.details, *self.panel.outputs]


class SceneHandlers:
    """The actions that open a scene in the Chat tab or draw it.

    conversation: the actions of the conversation about it. examples: the scenes of the gallery.
    output_count: the number of `ChatTab.outputs`.
    """

    def __init__(
        self, conversation: ChatHandlers, examples: Sequence[OpenScene], output_count: int
    ) -> None:
        self.conversation = conversation
        self.service = conversation.service
        self.examples = examples
        self.output_count = output_count

    def open_example(self, session: Session, event: gr.SelectData) -> Outputs:
        """Open one of the example scenes, chosen by its index in the gallery."""
        return show_opened(session, self.examples[check_index(event.index, len(self.examples))])

    @page_only
    def open_named(self, session: Session, image_id: str, request: gr.Request) -> Outputs:
        """Open a scene of the index by its image_id, which search_scenes returns."""
        with self.service.opening(identify_client(session, request)):
            return show_opened(session, self.service.open_named(image_id))

    @page_only
    def open_scene(
        self,
        session: Session,
        paths: list[str] | None,
        boa_offset: str,
        window: str,
        request: gr.Request,
    ) -> Outputs:
        """Open an uploaded scene: one GeoTIFF or photo, or a ChatEarthNet scene's three PNGs."""
        with self.service.opening(identify_client(session, request)) as read:
            part = parse_window(window)
            scene = open_uploads(paths, read, BOA_OFFSETS[boa_offset][1], part)
            return show_opened(session, self.service.open(scene))

    def open_link(self, session: Session, stored: str, request: gr.Request) -> Outputs:
        """Open what the page's address asks for (?scene=...&q=...), else the first example.

        stored: the conversation that the browser kept, if there is one; it continues instead.
        Returns values for `ChatTab.outputs`, and for the prompt.
        """
        client = identify_client(session, request)
        image_id = str(request.query_params.get("scene", ""))[:MAX_ID_CHARACTERS]
        session.linked_question = "" if stored else str(request.query_params.get("q", ""))
        if self.examples:  # Something is open, too, where the address names an unknown scene.
            session.open_scene(self.examples[0])
        if stored:
            return self.open_stored(session, stored, request)
        if image_id:
            with self.service.opening(client):
                return *show_opened(session, self.service.open_named(image_id)), gr.skip()
        # The page shows the first example already; the prompt is the output after those of the tab.
        shown = [gr.skip()] * (self.output_count - 2)
        opened = session.opened
        empty = store_conversation(session.talk, opened, []) if opened else gr.skip()
        return session, *shown, empty, gr.skip()

    def open_stored(self, session: Session, stored: str, request: gr.Request) -> Outputs:
        """Continue a conversation that the browser kept; return the values of `open_link`.

        Raises ValueError where it is damaged, or about a file that is no longer open.
        """
        restored, opened = read_stored(stored), session.opened
        if restored.image_id:
            with self.service.opening(identify_client(session, request)):
                opened = self.service.open_named(restored.image_id)
        elif opened is None or opened.entry is not None or opened.scene.name != restored.name:
            raise ValueError(
                f"The file {restored.name} is no longer open: open it again to ask about it"
            )
        checks = self.conversation.check_answers(opened, list(restored.messages))
        return *show_opened(session, opened, restored, checks), restored.question

    @page_only
    def draw(self, session: Session, composite: str, request: gr.Request) -> dict[str, Any]:
        """Draw the open scene with other bands: "true colour", "NDVI" and so on."""
        return self._draw(session, composite, session.stretch, request)

    @page_only
    def draw_bands(
        self, session: Session, event: gr.EventData, request: gr.Request
    ) -> tuple[dict[str, Any], gr.Radio]:
        """Draw the open scene with three bands and a stretch that were chosen in the viewer."""
        drawn = self._draw(session, *get_chosen_bands(event), request)
        named = session.composite if session.composite in COMPOSITES else None
        return drawn, gr.Radio(value=named)

    def _draw(
        self, session: Session, composite: str, stretch: str, request: gr.Request
    ) -> dict[str, Any]:
        """Draw the open scene without its attention map, which belonged to what was seen before."""
        with self.service.opening(identify_client(session, request)):
            opened = session.require_opened()
            drawn = show_viewer(opened, composite, None, session.covers, stretch=stretch)
        session.composite, session.stretch, session.attention = composite, stretch, None
        return drawn


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
        label="Your own: GeoTIFF, PNGs or photo",
        file_count="multiple",
        file_types=SCENE_FILES,
        height=92,
        elem_id="upload",
    )
    take_uploads_only(upload)
    with gr.Accordion("How files are read", open=False, elem_classes="settings"):
        boa_offset = gr.Radio(
            [(label, choice) for choice, (label, _) in BOA_OFFSETS.items()],
            value="auto",
            label="The offset of +1000 in products since 2022-01-25 (boa_offset)",
            elem_id="boa_offset",
        )
        window = gr.Textbox(
            label="Part of a large image: first column, first row, width, height (window)",
            value="",
            placeholder="all of it, of a large one an overview",
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
    conversation = ChatHandlers(service)
    scenes = SceneHandlers(conversation, examples, len(outputs))
    tab.gallery.select(scenes.open_example, session, outputs, api_visibility="private", **OPENING)
    uploaded = tab.upload.upload(
        scenes.open_scene,
        [session, tab.upload, tab.boa_offset, tab.window],
        outputs,
        api_name="open_scene",
        **OPENING,
    )
    for ended in (uploaded.then, uploaded.failure):  # empty the field for the next file
        ended(None, None, tab.upload, js="() => null", api_visibility="private")
    tab.image_id.submit(
        scenes.open_named, [session, tab.image_id], outputs, api_name="open_named", **OPENING
    )
    tab.composite.input(
        scenes.draw, [session, tab.composite], tab.picture, api_name="draw", **QUIETLY
    )
    tab.picture.apply(
        scenes.draw_bands,
        session,
        [tab.picture, tab.composite],
        api_visibility="private",
        **QUIETLY,
    )
    wire_pixels(tab.picture, session, Session.require_opened)
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


def show_opened(
    session: Session,
    opened: OpenScene,
    restored: StoredConversation | None = None,
    checks: Sequence[str] = (),
) -> Outputs:
    """Open a scene and return values for `ChatTab.outputs`, with an empty conversation.

    restored: the conversation about it to continue instead. checks: of its answers.
    """
    session.open_scene(opened)
    if restored is not None:
        session.conversation, session.talk = list(restored.messages), restored.talk
    limit_memory(session)
    return (
        session,
        show_session(session),
        gr.Radio(opened.scene.available_composites(), value=session.composite),
        show_details(opened),
        *start_conversation(session, opened, checks),
    )
