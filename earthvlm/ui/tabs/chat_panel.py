"""The conversation about the open scene: asked, streamed, stopped, edited and saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from earthvlm.generation.sampling import check_prompt
from earthvlm.models.chat_templates import Message
from earthvlm.serving.exports import conversation_to_markdown
from earthvlm.serving.measurements import suggest_questions
from earthvlm.serving.service import OpenScene, SceneService, Waiting
from earthvlm.ui.downloads import SAVE_TEXT
from earthvlm.ui.scene_html import show_beside, show_viewer
from earthvlm.ui.session import Session, identify_client, page_only, tell_errors
from earthvlm.ui.tabs.kept_conversation import KeptConversation, keep_conversation
from earthvlm.ui.tabs.streaming import (
    LOOKING,
    NEUTRAL,
    NOTHING_SAID,
    describe_wait,
    read_along,
    show_conversation,
    unescape_message,
)

# Asked again at 0, a question gets the same answer again.
RETRY_TEMPERATURE = 0.7


@dataclass(frozen=True)
class ChatPanel:
    """What the Chat tab needs of the conversation in it.

    outputs: what `start_conversation` returns values for.
    prompt: where a question is typed.
    ask_after: puts the question of the page's address when an event ended well.
    """

    outputs: list[gr.components.Component]
    prompt: gr.Textbox
    ask_after: Callable[[Any], None]


def add_conversation(
    session: gr.State,
    service: SceneService,
    first: OpenScene | None,
    picture: gr.HTML,
) -> ChatPanel:
    """Add the components and wire them.

    first: the scene that is open at the start. picture: where the scene is drawn, and where an
    answer looked is laid over it.
    """
    chat = gr.Chatbot(
        label="Conversation about the scene",
        height=340,
        buttons=["copy"],
        editable="user",
        feedback_options=None,
        render_markdown=False,
        latex_delimiters=[],
        placeholder="Ask about the scene, in your own words or with a question below.",
        layout="bubble",
        elem_id="chat",
    )
    beside = gr.HTML(NEUTRAL, label="SpectralIndices beside the answer", elem_id="beside")
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
        max_length = gr.Slider(16, 512, value=160, step=16, label="Longest answer, in tokens")
        temperature = gr.Slider(
            0, 1.5, value=0, step=0.1, label="Temperature: 0 always gives the same answer"
        )
    saved = gr.Textbox(visible=False)
    kept = gr.HTML("", elem_id="kept")  # page.js keeps it in the browser
    place, question = gr.Number(0, visible=False), gr.Textbox(visible=False)  # for programs
    session_state = session

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
        bare = {picture: draw_bare(session)}
        pieces = service.answer(
            opened.scene,
            asked,
            identify_client(session, request),
            int(max_length),
            temperature,
            turn.stop,
        )
        text = ""
        begun = {session_state: session, prompt: "", chat: show_conversation(asked, LOOKING)}
        begun[kept] = keep_conversation(opened, asked[:-1], asked[-1]["content"])
        with turn.speaking():
            try:
                yield {**begun, **bare, **busy(True)}
                with closing(read_along(pieces)) as reading:
                    for told in reading:
                        if isinstance(told, Waiting):
                            yield {chat: show_conversation(asked, describe_wait(told.ahead))}
                            continue
                        text = told
                        if not turn.stop.is_set():
                            yield {chat: show_conversation(asked, answer=text)}
                answered = [*asked, {"role": "assistant", "content": text or NOTHING_SAID}]
                if session.turn is turn:
                    session.conversation = answered if text else before
                    yield {
                        kept: keep_conversation(opened, session.conversation),
                        chat: show_conversation(answered),
                        beside: show_beside(opened, f"{asked[-1]['content']} {text}") or NEUTRAL,
                    }
            except Exception:
                if session.turn is turn:  # nothing is lost: the question can be sent again
                    yield {chat: show_conversation(before), prompt: asked[-1]["content"]}
                raise
            finally:
                if session.turn is turn:
                    session.turn = None

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
        yield {prompt: gr.skip()}  # a generator without a yield empties its outputs
        if question.strip():
            yield from ask(session, question, max_length, temperature, request)

    @page_only
    @tell_errors
    def retry(session: Session, max_length: float, temperature: float, request: gr.Request) -> Any:
        """Put the last question again, for other words."""
        asked = session.conversation[:-1]
        if not asked:
            raise ValueError("There is nothing to ask again yet")
        yield from speak(session, asked, max_length, max(temperature, RETRY_TEMPERATURE), request)

    @page_only
    @tell_errors
    def edit(
        session: Session,
        place: float,
        question: str,
        max_length: float,
        temperature: float,
        request: gr.Request,
    ) -> Any:
        """Put a question in other words; what was said after it is forgotten.

        place: the question's in the conversation, from 0, answers counted too. Raises ValueError
        where no question stands there.
        """
        session.require_opened()
        session.end_turn()
        if place not in range(0, len(session.conversation), 2):
            raise ValueError(f"no question stands at place {place:g} of the conversation")
        asked = [*session.conversation[: int(place)], {"role": "user", "content": question}]
        yield from speak(session, asked, max_length, temperature, request)

    @tell_errors
    def edit_bubble(
        session: Session,
        max_length: float,
        temperature: float,
        request: gr.Request,
        event: gr.EditData,
    ) -> Any:
        """Put a question in other words, which were written where it stands."""
        place = event.index[0] if isinstance(event.index, list) and event.index else event.index
        if type(place) is not int or not isinstance(event.value, str):
            raise ValueError("no question was edited")
        question = unescape_message(event.value)
        yield from edit(session, place, question, max_length, temperature, request)

    @page_only
    def stop_answer(session: Session) -> None:
        """Stop the answer that is being written; what is there stays."""
        session.stop_turn()

    @page_only
    def clear_chat(session: Session) -> Any:
        """Stop the answer and forget the conversation; the scene stays open."""
        session.end_turn()
        session.conversation = []
        forgotten = keep_conversation(session.opened, []) if session.opened else gr.skip()
        return [], NEUTRAL, draw_bare(session), forgotten

    @page_only
    @tell_errors
    def where_it_looked(session: Session, request: gr.Request) -> str:
        """Lay over the scene where the last answer looked, as a whole and by word."""
        opened = session.require_opened()
        client = identify_client(session, request)
        session.attention = service.attend(opened.scene, session.conversation, client)
        return show_viewer(opened, session.composite, session.attention)

    @page_only
    @tell_errors
    def save_chat(session: Session) -> str:
        """Return the conversation as Markdown, with what was measured and who answered."""
        opened = session.require_opened()
        return conversation_to_markdown(
            opened.scene, session.conversation, opened.measurements, service.bridge.summary
        )

    def rest(session: Session) -> Any:
        """Make the buttons ready for the next question."""
        return tuple(busy(session.turn is not None).values())

    def busy(is_busy: bool) -> dict[Any, Any]:
        return {
            send: gr.Button(interactive=not is_busy),
            stop: gr.Button(interactive=is_busy),
        }

    # Those who wait for the model wait in the service's line, where their page can be told so.
    asking = {"concurrency_limit": None, "show_progress": "hidden"}
    private = {"api_visibility": "private", **asking}
    settings = [max_length, temperature]
    spoken = [session, prompt, chat, send, stop, beside, picture, kept]

    def ready_after(answered: Any) -> None:
        for afterwards in (answered.then, answered.failure):
            afterwards(rest, session, [send, stop], queue=False, api_visibility="private")

    def ask_after(opened: Any) -> None:
        ready_after(opened.success(ask_by_link, [session, *settings], spoken, **private))

    typed = [session, prompt, *settings]
    ready_after(gr.on([prompt.submit, send.click], ask, typed, spoken, api_name="ask", **asking))
    for button in questions:
        ready_after(button.click(ask, [session, button, *settings], spoken, **private))
    ready_after(chat.retry(retry, [session, *settings], spoken, api_name="retry", **asking))
    ready_after(chat.edit(edit_bubble, [session, *settings], spoken, **private))
    rewritten = [session, place, question, *settings]
    question.submit(edit, rewritten, spoken, api_name="edit", **asking)
    stop.click(stop_answer, session, None, api_name="stop", queue=False, show_progress="hidden")
    clear.click(
        clear_chat,
        session,
        [chat, beside, picture, kept],
        api_name="clear",
        queue=False,
        show_progress="hidden",
    )
    look.click(
        where_it_looked,
        session,
        picture,
        api_name="where_it_looked",
        concurrency_limit=None,
    )
    save.click(save_chat, session, saved, api_name="save_chat", show_progress="hidden").success(
        None, saved, None, js=SAVE_TEXT.format(name="conversation.md", kind="text/markdown")
    )
    return ChatPanel([chat, beside, *questions, kept], prompt, ask_after)


def draw_bare(session: Session) -> Any:
    """Take away where the last answer looked, as the next one looks elsewhere."""
    had, session.attention = session.attention is not None, None
    return show_viewer(session.opened, session.composite) if had else gr.skip()


def start_conversation(opened: OpenScene, given_back: KeptConversation | None = None) -> list[Any]:
    """Return what is shown of a conversation about a scene that was just opened.

    given_back: what was said of it before the server lost it, if anything was.
    """
    said = list(given_back.messages) if given_back else []
    questions = [gr.Button(question) for question in opened.questions]
    return [show_conversation(said), NEUTRAL, *questions, keep_conversation(opened, said)]
