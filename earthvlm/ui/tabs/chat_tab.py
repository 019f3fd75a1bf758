"""The Chat tab: choose a scene, look at it, and ask about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from earthvlm.scenes.bands import COMPOSITES
from earthvlm.serving.service import OpenScene, SceneService
from earthvlm.ui.examples import describe_example
from earthvlm.ui.scene_html import VIEWER_SCRIPT, show_facts, show_viewer
from earthvlm.ui.session import (
    Session,
    check_place,
    identify_client,
    make_room,
    page_only,
    tell_errors,
)
from earthvlm.ui.tabs.chat_panel import add_conversation, start_conversation
from earthvlm.ui.tabs.kept_conversation import GIVE_BACK, KeptConversation, read_kept
from earthvlm.ui.uploads import BOA_OFFSETS, SCENE_FILES, open_uploads, take_uploads_only


@dataclass(frozen=True)
class ChatTab:
    """What other parts of the page need to know of the Chat tab to open a scene in it.

    outputs: what `show_opened` returns values for.
    """

    outputs: list[gr.components.Component]


def add_chat_tab(
    page: gr.Blocks, session: gr.State, service: SceneService, examples: list[OpenScene]
) -> ChatTab:
    """Add the tab's components and wire them; `examples` are the scenes offered for a start."""
    first = examples[0] if examples else None
    with gr.Row(elem_classes="choose"):
        gallery = gr.Gallery(
            [(example.entry.thumbnail, describe_example(example)) for example in examples],
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
        with gr.Column(scale=1, min_width=250):
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
                    label="The offset of +1000 in products from 2022-01-25 on (boa_offset)",
                    elem_id="boa_offset",
                )
    with gr.Row(elem_classes="look-and-ask"):
        with gr.Column(scale=0, min_width=400, elem_classes="see"):
            composites = first.scene.available_composites() if first else tuple(COMPOSITES)
            picture = gr.HTML(
                show_viewer(first, composites[0]) if first else "",
                js_on_load=VIEWER_SCRIPT,
                label="Scene",
                elem_id="picture",
            )
            composite = gr.Radio(
                list(composites),
                value=composites[0],
                label="Bands shown",
                elem_id="composite",
                elem_classes="pills",
            )
        with gr.Column(scale=1, min_width=320, elem_classes="ask"):
            conversation = add_conversation(session, service, first, picture)
        with gr.Column(scale=0, min_width=270, elem_classes="know"):
            facts = gr.HTML(
                show_facts(first) if first else "", label="SpectralIndices facts", elem_id="facts"
            )
    outputs = [session, picture, composite, facts, *conversation.outputs]

    @tell_errors
    def open_example(session: Session, event: gr.SelectData) -> Any:
        """Open one of the example scenes, chosen by its place in the gallery."""
        return show_opened(session, examples[check_place(event.index, len(examples))])

    @page_only
    @tell_errors
    def open_named(session: Session, image_id: str, request: gr.Request) -> Any:
        """Open a scene of the index by its image_id; see search_scenes for those there are."""
        with service.opening(identify_client(session, request)):
            return show_opened(session, service.open_named(image_id))

    @tell_errors
    def open_link(session: Session, kept: str, request: gr.Request) -> Any:
        """Open what the page's address asks for (?scene=...&q=...), else the first example.

        kept: what the browser kept of a conversation at this address, which then goes on.
        """
        client = identify_client(session, request)
        image_id = str(request.query_params.get("scene", ""))[:200]
        session.asked_by_link = "" if kept else str(request.query_params.get("q", ""))
        if first is not None:  # also where the address names a scene that there is not
            session.open_scene(first)
        if kept:
            given_back = read_kept(kept)
            if not given_back.image_id:
                raise ValueError(
                    f"The connection was lost, and with it {given_back.name}: open the file again "
                    "to ask about it"
                )
            with service.opening(client):
                opened = service.open_named(given_back.image_id)
                return *show_opened(session, opened, given_back), given_back.question
        if image_id:
            with service.opening(client):
                return *show_opened(session, service.open_named(image_id)), gr.skip()
        return session, *[gr.skip()] * len(outputs)

    @page_only
    @tell_errors
    def open_scene(
        session: Session, paths: list[str] | None, boa_offset: str, request: gr.Request
    ) -> Any:
        """Open an uploaded scene: one GeoTIFF or photo, or a ChatEarthNet scene's three PNGs."""
        with service.opening(identify_client(session, request)) as read:
            scene = open_uploads(paths, read, BOA_OFFSETS[boa_offset][1])
            return show_opened(session, service.open(scene))

    @page_only
    @tell_errors
    def draw(session: Session, name: str, request: gr.Request) -> str:
        """Draw the open scene with other bands: "true colour", "NDVI" and so on."""
        session.composite = name
        with service.opening(identify_client(session, request)):
            return show_viewer(session.require_opened(), name, session.attention)

    # Those who wait do so in the service's line, where no address keeps others out.
    opening = {"concurrency_limit": None, "show_progress": "minimal"}
    gallery.select(open_example, session, outputs, api_visibility="private", **opening)
    opened = upload.upload(
        open_scene, [session, upload, boa_offset], outputs, api_name="open_scene", **opening
    )
    for afterwards in (opened.then, opened.failure):  # room for the next file
        afterwards(None, None, upload, js="() => null", api_visibility="private")
    named = gr.Textbox(label="image_id", visible=False)
    named.submit(open_named, [session, named], outputs, api_name="open_named", **opening)
    drawing = {"concurrency_limit": None, "show_progress": "hidden"}
    composite.input(draw, [session, composite], picture, api_name="draw", **drawing)
    given_back = gr.Textbox(visible=False)
    linked = page.load(
        open_link,
        [session, given_back],
        [*outputs, conversation.prompt],
        js=GIVE_BACK,
        api_visibility="private",
        **opening | {"show_progress": "hidden"},
    )
    conversation.ask_after(linked)
    return ChatTab(outputs)


def show_opened(
    session: Session, opened: OpenScene, given_back: KeptConversation | None = None
) -> Any:
    """Open a scene and return what the Chat tab shows of it, with an empty conversation.

    given_back: the conversation to go on with instead.
    """
    session.open_scene(opened)
    if given_back is not None:
        session.conversation = list(given_back.messages)
    make_room(session)
    return (
        session,
        show_viewer(opened, session.composite),
        gr.Radio(opened.scene.available_composites(), value=session.composite),
        show_facts(opened),
        *start_conversation(opened, given_back),
    )
