"""The Compare tab: two dates of one place; the model describes each, the change is measured."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from earthvlm.generation.sampling import DEFAULT_PROMPT
from earthvlm.scenes.analysis.change_detection import in_order_of_date
from earthvlm.scenes.bands import COMPOSITES
from earthvlm.serving.service import Client, OpenScene, SceneService, Waiting
from earthvlm.ui.html.scene_html import show_related_shares
from earthvlm.ui.page_parts import load_module
from earthvlm.ui.scene_viewer import read_block
from earthvlm.ui.session import Session, identify_client, limit_memory, page_only
from earthvlm.ui.tabs.chat.chat_handlers import Outputs
from earthvlm.ui.tabs.compare.compare_html import (
    EMPTY,
    make_headings,
    show_changes,
    show_description,
    show_pair,
)
from earthvlm.ui.tabs.streaming import accumulate_text, describe_wait
from earthvlm.ui.uploads import SCENE_FILES, open_uploads, take_uploads_only

COMPARE_SCRIPT = load_module("compare.js", "['select']")
NOTE = (
    "Upload two scenes of one place from different days: what changed is measured from the bands "
    "of both. The model describes each scene on its own."
)
NO_PAIR = "Two scenes are needed: upload two, or one to compare with the scene in Chat"
# Requests wait in the service's queues, where no address can keep others out.
OPENING: dict[str, Any] = {"concurrency_limit": None}


@dataclass(frozen=True)
class CompareTab:
    """The components of the Compare tab.

    upload_pair: takes two files; upload_one: one, to compare with the scene in Chat.
    pictures: of both scenes together. descriptions: of each.
    """

    session: gr.State
    upload_pair: gr.UploadButton
    upload_one: gr.UploadButton
    composite: gr.Radio
    pictures: gr.HTML
    descriptions: list[gr.HTML]
    describe: gr.Button
    changes: gr.HTML

    @property
    def outputs(self) -> list[gr.components.Component]:
        """The components that opening a pair returns values for."""
        return [self.session, self.pictures, *self.descriptions, self.changes]


class CompareHandlers:
    """The actions of the Compare tab.

    Opening a pair returns values for `CompareTab.outputs`.
    """

    def __init__(self, service: SceneService) -> None:
        self.service = service

    @page_only
    def compare_two(
        self, session: Session, paths: list[str] | None, composite: str, request: gr.Request
    ) -> Outputs:
        """Open two uploaded scenes, sort them by date, and measure what changed."""
        client = identify_client(session, request)
        if not paths or len(paths) != 2:
            raise ValueError(NO_PAIR)
        with self.service.opening(client) as read:
            pair = [self.service.open(open_uploads([path], read)) for path in paths]
            return open_pair(session, pair, composite)

    @page_only
    def compare_with_chat(
        self, session: Session, path: str | None, composite: str, request: gr.Request
    ) -> Outputs:
        """Compare the scene that is open in Chat with an uploaded one."""
        client = identify_client(session, request)
        opened = session.require_opened()
        with self.service.opening(client) as read:
            other = self.service.open(open_uploads([path] if path else None, read))
            return open_pair(session, [opened, other], composite)

    @page_only
    def draw_pair(self, session: Session, composite: str, request: gr.Request) -> Any:
        """Draw both scenes with other bands."""
        with self.service.opening(identify_client(session, request)):
            return show_pair(session.pair, composite) if session.pair else gr.skip()

    @page_only
    def read_pixels(self, session: Session, event: gr.EventData, request: gr.Request) -> gr.HTML:
        """Return the reflectance of a block of pixels of each scene that the event names one of."""
        identify_client(session, request)
        blocks = getattr(event, "blocks", None)
        if not isinstance(blocks, list) or len(blocks) != len(session.pair):
            raise ValueError("the event has no block of pixels for each scene")
        return gr.HTML(
            pixels=[
                None if number is None else read_block(opened.scene, number)
                for opened, number in zip(session.pair, blocks, strict=True)
            ]
        )

    @page_only
    def describe_pair(self, session: Session, request: gr.Request) -> Iterator[tuple[str, str]]:
        """Let the model describe each of the two scenes on its own."""
        if not session.pair:
            raise ValueError(NO_PAIR)
        client = identify_client(session, request)
        descriptions, headings = ["", ""], make_headings(session.pair)
        for number, opened in enumerate(session.pair):
            with closing(self._describe(session, opened, client, headings[number])) as growing:
                for descriptions[number] in growing:
                    yield descriptions[0], descriptions[1]

    def _describe(
        self, session: Session, opened: OpenScene, client: Client, heading: str
    ) -> Generator[str, None, None]:
        """Yield HTML of a description as it grows, at last with the shares that it mentions."""
        stop = session.begin_turn().stop
        yield show_description("…", heading)
        text = ""
        conversation = [{"role": "user", "content": DEFAULT_PROMPT}]
        pieces = self.service.answer(opened.scene, conversation, client, stop=stop)
        with closing(accumulate_text(pieces)) as growing:
            for each in growing:
                if isinstance(each, Waiting):
                    yield show_description(describe_wait(each.ahead), heading)
                else:
                    text = each
                    yield show_description(text, heading)
        cover_map = self.service.find_map(opened.scene)
        compared = show_related_shares(opened, DEFAULT_PROMPT, text, cover_map)
        yield show_description(text, heading) + compared


def build_compare_tab(session: gr.State) -> CompareTab:
    """Lay the components out."""
    gr.HTML(f"<p>{NOTE}</p>", elem_id="compare-note")
    upload_pair, upload_one, composite = _build_uploads()
    with gr.Row(elem_classes="pair-and-changes"):
        pictures = gr.HTML(
            EMPTY, js_on_load=COMPARE_SCRIPT, pixels=None, label="Both scenes", elem_id="pair"
        )
        changes = gr.HTML(js_on_load=COMPARE_SCRIPT, label="Measured change", elem_id="changes")
    with gr.Row(elem_classes="search-by"):
        describe = gr.Button(
            "Describe both scenes", scale=0, min_width=220, elem_id="describe-pair"
        )
    with gr.Row(elem_classes="pair"):
        descriptions = [
            gr.HTML(
                elem_id=f"{which}-description",
                elem_classes="description",
                label=f"The model's description of the {which} scene",
                min_width=280,
            )
            for which in ("earlier", "later")
        ]
    return CompareTab(
        session=session,
        upload_pair=upload_pair,
        upload_one=upload_one,
        composite=composite,
        pictures=pictures,
        descriptions=descriptions,
        describe=describe,
        changes=changes,
    )


def _build_uploads() -> tuple[gr.UploadButton, gr.UploadButton, gr.Radio]:
    with gr.Row(elem_classes="search-by"):
        upload_pair = gr.UploadButton(
            "Upload two scenes …",
            file_count="multiple",
            file_types=SCENE_FILES,
            variant="primary",
            scale=0,
            min_width=210,
            elem_id="upload-pair",
        )
        upload_one = gr.UploadButton(
            "Compare a file with the scene in Chat …",
            file_types=SCENE_FILES,
            scale=0,
            min_width=320,
            elem_id="upload-one",
        )
        for button in (upload_pair, upload_one):
            take_uploads_only(button)
        composite = gr.Radio(
            list(COMPOSITES), value="true colour", label="Bands shown", elem_classes="pills"
        )
    return upload_pair, upload_one, composite


def wire_compare_tab(tab: CompareTab, service: SceneService) -> None:
    """Connect the components to their handlers."""
    handlers, session, composite = CompareHandlers(service), tab.session, tab.composite
    tab.upload_pair.upload(
        handlers.compare_two,
        [session, tab.upload_pair, composite],
        tab.outputs,
        api_name="compare_two",
        show_progress_on=tab.pictures,
        **OPENING,
    )
    tab.upload_one.upload(
        handlers.compare_with_chat,
        [session, tab.upload_one, composite],
        tab.outputs,
        api_name="compare_with_chat",
        show_progress_on=tab.pictures,
        **OPENING,
    )
    composite.input(
        handlers.draw_pair, [session, composite], tab.pictures, api_name="draw_pair", **OPENING
    )
    tab.pictures.select(
        handlers.read_pixels,
        session,
        tab.pictures,
        api_visibility="private",
        concurrency_limit=None,
        show_progress="hidden",
    )
    tab.describe.click(
        handlers.describe_pair,
        session,
        tab.descriptions,
        api_name="describe_pair",
        concurrency_limit=None,
        show_progress="hidden",
    )


def open_pair(session: Session, scenes: Sequence[OpenScene], composite: str) -> Outputs:
    """Keep two scenes by date in the session, and return what the tab shows of them."""
    ordered = in_order_of_date([opened.scene for opened in scenes])
    session.pair = sorted(scenes, key=lambda opened: ordered.index(opened.scene))
    limit_memory(session)
    if not session.pair:
        raise ValueError(
            "The two scenes are too large to be open at once; upload a smaller part of each"
        )
    return session, show_pair(session.pair, composite), "", "", show_changes(session.pair)
