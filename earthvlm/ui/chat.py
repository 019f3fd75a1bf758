"""The Chat tab: choose a scene, look at it, ask about it, see where the answer looked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from earthvlm.exports import conversation_to_markdown
from earthvlm.generation import check_prompt
from earthvlm.measured import describe_briefly, suggest_questions
from earthvlm.prompts import Message
from earthvlm.retrieval import SceneIndex, SceneResult
from earthvlm.sentinel2 import COMPOSITES
from earthvlm.service import OpenScene, SceneService, Waiting
from earthvlm.ui.downloads import SAVE_TEXT
from earthvlm.ui.scene_view import (
    VIEWER_SCRIPT,
    make_title,
    show_beside,
    show_facts,
    show_viewer,
)
from earthvlm.ui.state import Session, know_asker, make_room, page_only, tell_errors
from earthvlm.ui.uploads import BOA_OFFSETS, SCENE_FILES, open_uploads, take_uploads_only

EXAMPLE_COUNT = 8
# A dataset may have a split of scenes chosen to start with; these searches fill up the row.
EXAMPLE_SPLIT = "examples"
EXAMPLE_SEARCHES = (
    "a chain of lakes between forest and fields",
    "dense forest",
    "a village with houses and streets",
    "crop fields in large parcels",
    "open water",
    "a city, built-up land everywhere",
    "a river through meadows",
    "haze or cloud over the land",
)
QUESTION_COUNT = len(suggest_questions(None))
LOOKING = "Looking at the scene …"
NOTHING_SAID = "(stopped before the first word)"
# Asked again at 0, a question gets the same answer again.
RETRY_TEMPERATURE = 0.7
NEUTRAL = "The answers are a model's and can be wrong; what is marked as measured was computed."


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
            [(example.origin.thumbnail, describe_example(example)) for example in examples],
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
            chat = gr.Chatbot(
                label="Conversation about the scene",
                height=340,
                buttons=["copy"],
                editable="user",
                feedback_options=None,
                render_markdown=False,
                placeholder="Ask about the scene, in your own words or with a question below.",
                layout="bubble",
                elem_id="chat",
            )
            beside = gr.HTML(
                f"<p>{NEUTRAL}</p>", label="Measured beside the answer", elem_id="beside"
            )
            with gr.Row(elem_classes="questions"):
                questions = [
                    gr.Button(text, size="sm", min_width=60)
                    for text in (first.questions if first else suggest_questions(None))
                ]
            with gr.Row(elem_classes="actions"):
                prompt = gr.Textbox(
                    "",
                    label="Your question",
                    placeholder="Is there water, and where?",
                    lines=1,
                    max_lines=4,
                    scale=6,
                    min_width=200,
                    elem_id="prompt",
                )
                send = gr.Button("Send", variant="primary", min_width=70, elem_id="send")
                stop = gr.Button("Stop", interactive=False, min_width=70, elem_id="stop")
            with gr.Row(elem_classes="after"):
                look = gr.Button("Where it looked", size="sm", min_width=90, elem_id="look")
                save = gr.Button("Save as Markdown", size="sm", min_width=90, elem_id="save")
                clear = gr.Button("Clear", size="sm", min_width=60, elem_id="clear")
            with gr.Accordion("Answer settings", open=False, elem_classes="settings"):
                max_length = gr.Slider(
                    16, 512, value=160, step=16, label="Longest answer, in tokens"
                )
                temperature = gr.Slider(
                    0, 1.5, value=0, step=0.1, label="Temperature: 0 always gives the same answer"
                )
        with gr.Column(scale=0, min_width=270, elem_classes="know"):
            facts = gr.HTML(
                show_facts(first) if first else "", label="Measured facts", elem_id="facts"
            )
    saved = gr.Textbox(visible=False)
    view = [picture, composite, facts]
    outputs = [session, *view, chat, beside, *questions]

    @tell_errors
    def open_example(session: Session, event: gr.SelectData) -> Any:
        """Open one of the example scenes, chosen by its place in the gallery."""
        return show_opened(session, examples[event.index])

    @page_only
    @tell_errors
    def open_named(session: Session, image_id: str) -> Any:
        """Open a scene of the index by its image_id; see search_scenes for those there are."""
        return show_opened(session, service.open_named(image_id))

    @tell_errors
    def open_link(session: Session, request: gr.Request) -> Any:
        """Open what the page's address asks for (?scene=...&q=...), else the first example."""
        know_asker(session, request)
        image_id = str(request.query_params.get("scene", ""))[:200]
        session.asked_by_link = str(request.query_params.get("q", ""))
        if first is not None:  # also where the address names a scene that there is not
            session.open_scene(first)
        if image_id:
            return show_opened(session, service.open_named(image_id))
        return session, *[gr.skip()] * (len(outputs) - 1)

    @page_only
    @tell_errors
    def open_scene(
        session: Session, paths: list[str] | None, boa_offset: str, request: gr.Request
    ) -> Any:
        """Open an uploaded scene: one GeoTIFF or photo, or a ChatEarthNet scene's three PNGs."""
        know_asker(session, request)
        scene = open_uploads(paths, BOA_OFFSETS[boa_offset][1])
        return show_opened(session, service.open(scene))

    @page_only
    @tell_errors
    def draw(session: Session, name: str) -> str:
        """Draw the open scene with other bands: "true colour", "NDVI" and so on."""
        return show_viewer(session.require_opened(), name, session.attention)

    def speak(
        session: Session,
        asked: list[Message],
        max_length: float,
        temperature: float,
        request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:
        """Stream the answer to a conversation's last question into the page."""
        opened = session.require_opened()
        check_prompt(asked[-1]["content"])
        before, turn = session.conversation, session.begin_turn()
        session.attention = None
        pieces = service.answer(
            opened.scene,
            asked,
            know_asker(session, request),
            int(max_length),
            temperature,
            turn.stop,
        )
        text = ""
        with turn.speaking():
            try:
                yield {session_state: session, prompt: "", chat: show(asked, LOOKING), **busy(True)}
                with closing(pieces):
                    for piece in pieces:
                        if isinstance(piece, Waiting):
                            yield {chat: show(asked, describe_wait(piece.ahead))}
                            continue
                        text += piece
                        if not turn.stop.is_set():
                            yield {chat: show(asked, answer=text)}
                answered = [*asked, {"role": "assistant", "content": text or NOTHING_SAID}]
                if session.turn is turn:
                    session.conversation = answered if text else before
                    yield {
                        chat: show(answered),
                        beside: show_beside(opened, f"{asked[-1]['content']} {text}")
                        or f"<p>{NEUTRAL}</p>",
                    }
            except Exception:
                if session.turn is turn:  # nothing is lost: the question can be sent again
                    yield {chat: show(before), prompt: asked[-1]["content"]}
                raise
            finally:
                if session.turn is turn:
                    session.turn = None

    session_state = session

    @page_only
    @tell_errors
    def ask(
        session: Session,
        question: str,
        max_length: float,
        temperature: float,
        request: gr.Request,
    ) -> Any:
        """Put a question to the open scene; the conversation comes back as the answer grows."""
        asked = [*session.conversation, {"role": "user", "content": question}]
        yield from speak(session, asked, max_length, temperature, request)

    @tell_errors
    def ask_by_link(
        session: Session, max_length: float, temperature: float, request: gr.Request
    ) -> Any:
        """Put the question that stood in the page's address, if one did."""
        question, session.asked_by_link = session.asked_by_link, ""
        yield {chat: show(session.conversation)}  # a generator without a yield empties its outputs
        if question.strip():
            yield from ask(session, question, max_length, temperature, request)

    @tell_errors
    def retry(session: Session, max_length: float, temperature: float, request: gr.Request) -> Any:
        """Put the last question again, for other words."""
        asked = session.conversation[:-1]
        if not asked:
            raise ValueError("There is nothing to ask again yet")
        session.conversation = asked[:-1]
        yield from speak(session, asked, max_length, max(temperature, RETRY_TEMPERATURE), request)

    @tell_errors
    def edit(
        session: Session,
        max_length: float,
        temperature: float,
        request: gr.Request,
        event: gr.EditData,
    ) -> Any:
        """Put a question in other words; what was said after it is forgotten."""
        index = event.index[0] if isinstance(event.index, list | tuple) else event.index
        session.end_turn()
        session.conversation = session.conversation[:index]
        yield from ask(session, str(event.value), max_length, temperature, request)

    @page_only
    def stop_answer(session: Session) -> None:
        """Stop the answer that is being written; what is there stays."""
        session.stop_turn()

    @page_only
    def clear_chat(session: Session) -> Any:
        """Stop the answer and forget the conversation; the scene stays open."""
        session.end_turn()
        session.conversation, session.attention = [], None
        return [], f"<p>{NEUTRAL}</p>"

    @page_only
    @tell_errors
    def where_it_looked(session: Session, name: str, request: gr.Request) -> str:
        """Lay over the scene where the last answer looked, as a whole and by word."""
        opened = session.require_opened()
        asker = know_asker(session, request)
        session.attention = service.attend(opened.scene, session.conversation, asker)
        return show_viewer(opened, name, session.attention)

    @page_only
    @tell_errors
    def save_chat(session: Session) -> str:
        """Return the conversation as Markdown, with what was measured and who answered."""
        opened = session.require_opened()
        return conversation_to_markdown(
            opened.scene, session.conversation, opened.measured, service.bridge.summary
        )

    def rest(session: Session) -> Any:
        """Make the buttons ready for the next question."""
        return tuple(busy(session.turn is not None).values())

    def busy(is_busy: bool) -> dict[Any, Any]:
        return {
            send: gr.Button(interactive=not is_busy),
            stop: gr.Button(interactive=is_busy),
        }

    opening = {"concurrency_limit": 2, "concurrency_id": "open", "show_progress": "minimal"}
    # Those who wait for the model wait in the service's line, where their page can be told so.
    asking = {"concurrency_limit": None, "show_progress": "hidden"}
    gallery.select(open_example, session, outputs, api_visibility="private", **opening)
    opened = upload.upload(
        open_scene, [session, upload, boa_offset], outputs, api_name="open_scene", **opening
    )
    for afterwards in (opened.then, opened.failure):  # room for the next file
        afterwards(lambda: None, None, upload, queue=False, api_visibility="private")
    named = gr.Textbox(label="image_id", visible=False)
    named.submit(open_named, [session, named], outputs, api_name="open_named", **opening)
    composite.input(draw, [session, composite], picture, api_name="draw", show_progress="hidden")

    settings = [max_length, temperature]
    spoken = [session, prompt, chat, send, stop, beside, picture]

    def ready_after(answered: Any) -> None:
        for afterwards in (answered.then, answered.failure):
            afterwards(rest, session, [send, stop], queue=False, api_visibility="private")

    ready_after(
        gr.on(
            [prompt.submit, send.click],
            ask,
            [session, prompt, *settings],
            spoken,
            api_name="ask",
            **asking,
        )
    )
    for button in questions:
        ready_after(
            button.click(
                ask,
                [session, button, *settings],
                spoken,
                api_visibility="private",
                **asking,
            )
        )
    private = {"api_visibility": "private", **asking}
    ready_after(chat.retry(retry, [session, *settings], spoken, **private))
    ready_after(chat.edit(edit, [session, *settings], spoken, **private))
    linked = page.load(
        open_link,
        session,
        outputs,
        api_visibility="private",
        **opening | {"show_progress": "hidden"},
    )
    ready_after(linked.success(ask_by_link, [session, *settings], spoken, **private))
    stop.click(stop_answer, session, None, api_name="stop", queue=False, show_progress="hidden")
    clear.click(
        clear_chat, session, [chat, beside], api_name="clear", queue=False, show_progress="hidden"
    )
    look.click(
        where_it_looked,
        [session, composite],
        picture,
        api_name="where_it_looked",
        concurrency_limit=None,
    )
    save.click(save_chat, session, saved, api_name="save_chat", show_progress="hidden").success(
        None, saved, None, js=SAVE_TEXT.format(name="conversation.md", kind="text/markdown")
    )
    return ChatTab(outputs)


def show_opened(session: Session, opened: OpenScene) -> Any:
    """Open a scene and return what the Chat tab shows of it, with an empty conversation."""
    composites = opened.scene.available_composites()
    shown = composites[0] if composites else None
    session.open_scene(opened)
    make_room()
    questions = [gr.Button(question) for question in opened.questions]
    return (
        session,
        show_viewer(opened, shown),
        gr.Radio(composites, value=shown),
        show_facts(opened),
        [],
        f"<p>{NEUTRAL}</p>",
        *questions,
    )


def show(conversation: list[Message], pending: str = "", answer: str = "") -> list[dict[str, Any]]:
    """A conversation as the chatbot takes it, with a sign of waiting or an answer so far."""
    messages: list[dict[str, Any]] = [dict(message) for message in conversation]
    if pending:
        waiting = {"title": pending, "status": "pending"}
        messages.append({"role": "assistant", "content": "", "metadata": waiting})
    if answer:
        messages.append({"role": "assistant", "content": answer})
    return messages


def describe_wait(ahead: int) -> str:
    """What is shown while others are answered first."""
    return f"{ahead} question{'s' if ahead > 1 else ''} before yours …"


def describe_example(opened: OpenScene) -> str:
    """A sentence on an example scene: what it is, when, and what was measured in it."""
    date = opened.scene.date
    when = f", {date:%B %Y}" if date else ""
    return f"{make_title(opened.scene.name)}{when}. {describe_briefly(opened.measured)}."


def choose_examples(index: SceneIndex) -> list[SceneResult]:
    """Pick scenes for a start that can be opened: the dataset's examples, then unlike finds."""
    finds = list(index.browse(EXAMPLE_SPLIT)) if EXAMPLE_SPLIT in index.splits else []
    for words in EXAMPLE_SEARCHES:
        found = {result.image_id for result in finds}
        finds += [r for r in index.search(words, k=len(finds) + 1) if r.image_id not in found][:1]
    return [result for result in finds if result.scene_file is not None][:EXAMPLE_COUNT]
