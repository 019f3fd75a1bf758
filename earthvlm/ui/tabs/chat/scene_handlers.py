"""What happens when a visitor opens a scene in the Chat tab, or draws it with other bands."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from earthvlm.scenes.bands import COMPOSITES
from earthvlm.scenes.rasters.band_identification import BandOrderError
from earthvlm.scenes.scene import Scene
from earthvlm.serving.measurements import suggest_questions
from earthvlm.serving.service import OpenScene
from earthvlm.ui.html.scene_html import name_scene, show_details
from earthvlm.ui.scene_viewer import (
    get_chosen_bands,
    get_chosen_part,
    show_orders,
    show_session,
)
from earthvlm.ui.session import Session, check_index, identify_client, limit_memory, page_only
from earthvlm.ui.tabs.chat.chat_handlers import (
    ChatHandlers,
    Outputs,
    show_suggestions,
    start_conversation,
)
from earthvlm.ui.tabs.chat.stored_conversation import (
    StoredConversation,
    read_stored,
    store_conversation,
)
from earthvlm.ui.uploads import BOA_OFFSETS, GONE, Upload, parse_window

MAX_ID_CHARACTERS = 200
MEASURING = "<p>The land cover is being measured …</p>"
# To measure a scene of more pixels takes longer than to draw it, so its picture comes first.
MEASURED_AT_ONCE = 1024 * 1024


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
    ) -> Iterator[Outputs]:
        """Open an uploaded scene: a GeoTIFF, photo or zipped product, or a scene's band files."""
        upload = Upload(tuple(paths or ()), BOA_OFFSETS[boa_offset][1])
        with self.service.opening(identify_client(session, request)) as read:
            try:
                yield from self._open_upload(session, upload, read, parse_window(window))
            except Exception:
                upload.discard()
                raise

    @page_only
    def open_part(
        self, session: Session, event: gr.EventData, request: gr.Request
    ) -> Iterator[Outputs]:
        """Open a part of the uploaded image at full resolution, or its overview again."""
        opened, upload = session.require_opened(), session.upload
        if upload is None:
            raise ValueError(GONE)
        part = get_chosen_part(event, opened.scene)
        with self.service.opening(identify_client(session, request)) as read:
            yield from self._open_upload(session, upload, read, part, keep=True)

    @page_only
    def open_order(
        self, session: Session, event: gr.EventData, request: gr.Request
    ) -> Iterator[Outputs]:
        """Open the upload whose bands have no names in the order that was chosen."""
        index = check_index(getattr(event, "index", None), len(session.orders))
        if session.upload is None:
            raise ValueError(GONE)
        upload = replace(session.upload, bands=list(session.orders.values())[index])
        with self.service.opening(identify_client(session, request)) as read:
            yield from self._open_upload(session, upload, read)

    def _open_upload(
        self,
        session: Session,
        upload: Upload,
        read: Callable[..., Scene],
        part: Sequence[int] | None = None,
        *,
        keep: bool = False,
    ) -> Iterator[Outputs]:
        """Open a part of an upload; keep its files, for other parts, if it is large or if asked to.

        The picture of a large scene is shown before what is measured. Where its bands may be in
        several orders, these are shown to choose from.
        """
        try:
            scene = upload.read(read, part)
        except BandOrderError as error:
            choices = {
                name: replace(upload, bands=order).read(read)
                for name, order in error.orders.items()
            }
            session.open_scene(None, upload)
            session.orders = error.orders
            name = Path(upload.paths[0]).name
            shown = show_orders(name, choices)
            details = f"<h2>{html.escape(name)}</h2><p>The order of its bands is to be chosen.</p>"
            # The bands, the details and the conversation come before what stays as it is.
            kept = [gr.skip()] * (self.output_count - 5)
            yield session, shown, gr.skip(), details, [], *kept
            return
        kept_upload = upload if keep or scene.overview_of is not None else None
        if scene.height * scene.width <= MEASURED_AT_ONCE:
            yield show_opened(session, self.service.open(scene), upload=kept_upload)
        else:
            unmeasured = OpenScene(scene, None, (), tuple(suggest_questions(None)))
            yield show_opened(session, unmeasured, upload=kept_upload, details=MEASURING)
            yield self._show_measured(session, unmeasured)
        if kept_upload is None:
            upload.discard()

    def _show_measured(self, session: Session, shown: OpenScene) -> Outputs:
        """Measure a scene whose picture is shown; return what changes, for `ChatTab.outputs`."""
        measured = self.service.open(shown.scene)
        if session.opened is not shown:  # another was opened meanwhile
            return (gr.skip(),) * self.output_count
        session.opened = measured
        same = gr.skip()  # the conversation may have begun
        suggestions = show_suggestions(session)
        return session, same, same, show_details(measured), same, *suggestions, same

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
        restored, opened, upload = read_stored(stored), session.opened, session.upload
        if restored.image_id:
            with self.service.opening(identify_client(session, request)):
                opened, upload = self.service.open_named(restored.image_id), None
        elif opened is None or opened.entry is not None or opened.scene.name != restored.name:
            raise ValueError(
                f"The file {restored.name} is no longer open: open it again to ask about it"
            )
        checks = self.conversation.check_answers(opened, list(restored.messages))
        return *show_opened(session, opened, restored, checks, upload), restored.question

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
            drawn = replace(session, composite=composite, stretch=stretch, attention=None)
            value = show_session(drawn)
        session.composite, session.stretch, session.attention = composite, stretch, None
        return value


def show_opened(
    session: Session,
    opened: OpenScene,
    restored: StoredConversation | None = None,
    checks: Sequence[str] = (),
    upload: Upload | None = None,
    details: str = "",
) -> Outputs:
    """Open a scene and return values for `ChatTab.outputs`, with an empty conversation.

    restored: the conversation about it to continue instead. checks: of its answers. upload: the
    files that it is a part of. details: HTML in place of what is measured, until it is.
    """
    session.open_scene(opened, upload)
    if restored is not None:
        session.conversation, session.talk = list(restored.messages), restored.talk
    limit_memory(session)
    return (
        session,
        show_session(session),
        gr.Radio(opened.scene.available_composites(), value=session.composite),
        (details and name_scene(opened.scene) + details) or show_details(opened),
        *start_conversation(session, opened, checks),
    )
