"""What happens when a visitor asks, stops, edits, saves or clears the conversation."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import gradio as gr

from earthvlm.generation.sampling import check_prompt
from earthvlm.metrics.agreement import mentioned_covers
from earthvlm.models.language.chat_templates import Message
from earthvlm.serving.exports import conversation_to_markdown, quote_last_answer
from earthvlm.serving.measurements import SUGGESTED_QUESTIONS, suggest_next
from earthvlm.serving.service import OpenScene, SceneService, Waiting
from earthvlm.ui.html.cover_map_html import overlay_map, overlay_measured
from earthvlm.ui.html.scene_html import show_related_shares
from earthvlm.ui.html.titles import make_title
from earthvlm.ui.scene_viewer import show_session
from earthvlm.ui.session import Session, Turn, identify_client, page_only
from earthvlm.ui.tabs.chat.stored_conversation import store_conversation
from earthvlm.ui.tabs.streaming import (
    LOOKING,
    NO_ANSWER,
    accumulate_text,
    describe_wait,
    show_conversation,
    unescape_message,
)

# At temperature 0, a question that is asked again gets the same answer again.
RETRY_TEMPERATURE = 0.7
STILL_ANSWERING = "Your last question is still being answered: wait for that, or press Stop"
# Land cover over the picture shows what such a question asks for.
_ASKS_WHERE = re.compile(r"\b(?:where|map|which (?:part|side|corner|quarter))\b", re.IGNORECASE)

Outputs = tuple[Any, ...]


@dataclass(frozen=True)
class ChatUpdate:
    """New values of the components that an answer changes; the others stay as they are.

    The fields have the order of `ChatPanel.answer_outputs`.
    """

    session: Any = field(default_factory=gr.skip)
    prompt: Any = field(default_factory=gr.skip)
    chat: Any = field(default_factory=gr.skip)
    send: Any = field(default_factory=gr.skip)
    stop: Any = field(default_factory=gr.skip)
    picture: Any = field(default_factory=gr.skip)
    stored: Any = field(default_factory=gr.skip)

    def values(self) -> Outputs:
        """Return the values in the order of the fields."""
        return tuple(getattr(self, each.name) for each in fields(self))


class ChatHandlers:
    """The actions of the conversation about the open scene, answered by `service`.

    A generator yields `ChatUpdate.values()` while the answer grows.
    """

    def __init__(self, service: SceneService) -> None:
        self.service = service

    @page_only
    def ask(
        self,
        session: Session,
        question: str,
        max_length: float,
        temperature: float,
        request: gr.Request,
    ) -> Iterator[Outputs]:
        """Ask a question about the open scene; the conversation comes back as the answer grows.

        Raises ValueError while another question is being answered, which would be lost.
        """
        if session.is_answering:
            raise ValueError(STILL_ANSWERING)
        asked = [*session.conversation, _as_user(question)]
        yield from self._answer(session, asked, max_length, temperature, request)

    def ask_linked_question(
        self, session: Session, max_length: float, temperature: float, request: gr.Request
    ) -> Iterator[Outputs]:
        """Ask the question in the page's address, if there is one."""
        question, session.linked_question = session.linked_question, ""
        yield ChatUpdate().values()  # Gradio empties the outputs of a generator without a yield.
        if question.strip():
            yield from self.ask(session, question, max_length, temperature, request)

    @page_only
    def retry(
        self, session: Session, max_length: float, temperature: float, request: gr.Request
    ) -> Iterator[Outputs]:
        """Ask the last question again, at a temperature that lets the answer differ.

        Raises ValueError as `ask` does.
        """
        if session.is_answering:
            raise ValueError(STILL_ANSWERING)
        asked = session.conversation[:-1]
        if not asked:
            raise ValueError("There is no question yet that could be asked again")
        temperature = max(temperature, RETRY_TEMPERATURE)
        yield from self._answer(session, asked, max_length, temperature, request)

    @page_only
    def edit(
        self,
        session: Session,
        message_index: float,
        question: str,
        max_length: float,
        temperature: float,
        request: gr.Request,
    ) -> Iterator[Outputs]:
        """Replace a question and ask it; the messages after it are deleted.

        message_index: the question's index among all messages, from 0. Raises ValueError where
        the message at that index is no question.
        """
        session.require_opened()
        session.end_turn()
        if message_index not in range(0, len(session.conversation), 2):
            raise ValueError(f"message {message_index:g} of the conversation is not a question")
        asked = [*session.conversation[: int(message_index)], _as_user(question)]
        yield from self._answer(session, asked, max_length, temperature, request)

    def edit_in_place(
        self,
        session: Session,
        max_length: float,
        temperature: float,
        request: gr.Request,
        event: gr.EditData,
    ) -> Iterator[Outputs]:
        """Ask a question that the visitor edited in the conversation itself."""
        index = event.index[0] if isinstance(event.index, list) and event.index else event.index
        if type(index) is not int or not isinstance(event.value, str):
            raise ValueError("no question was edited")
        question = unescape_message(event.value)
        yield from self.edit(session, index, question, max_length, temperature, request)

    @page_only
    def stop(self, session: Session) -> None:
        """Stop the answer that is being generated; the text so far stays."""
        session.stop_turn()

    @page_only
    def clear(self, session: Session) -> Outputs:
        """Stop the answer and delete the conversation; the scene stays open."""
        session.end_turn()
        session.conversation = []
        return self._show_empty(session)

    def begin(self, session: Session) -> Outputs:
        """Begin another conversation about the open scene; the browser keeps the last one."""
        session.begin_conversation()
        return self._show_empty(session)

    def _show_empty(self, session: Session) -> Outputs:
        """Return the values of `ChatPanel.emptied`."""
        picture, opened = remove_attention(session), session.opened
        stored = store_conversation(session.talk, opened, []) if opened else gr.skip()
        return [], picture, stored

    @page_only
    def attention_map(self, session: Session, request: gr.Request) -> dict[str, Any]:
        """Overlay the scene with the attention of the last answer, as a whole and for each word."""
        opened = session.require_opened()
        client = identify_client(session, request)
        session.attention = self.service.attend(opened.scene, session.conversation, client)
        session.covers = None  # colours over colours tell nothing
        return show_session(session)

    @page_only
    def land_cover_map(self, session: Session, request: gr.Request) -> dict[str, Any]:
        """Overlay the scene with the model's land-cover map; it stays until another is opened."""
        opened = session.require_opened()
        client = identify_client(session, request)
        session.covers = overlay_map(self.service.map_land_cover(opened.scene, client))
        session.attention = None
        return show_session(session)

    @page_only
    def save_chat(self, session: Session) -> str:
        """Return the conversation as Markdown, with the measured shares and the model's name."""
        opened = session.require_opened()
        return conversation_to_markdown(
            opened.scene,
            session.conversation,
            opened.measurements,
            self.service.bridge.summary,
            self.service.find_map(opened.scene),
            opened.source,
        )

    @page_only
    def quote(self, session: Session) -> str:
        """Return the last answer with its question, scene, model, measurements and source."""
        opened = session.require_opened()
        return quote_last_answer(
            opened.scene,
            session.conversation,
            opened.measurements,
            (make_title(opened.scene), *self.service.bridge.model_names),
            self.service.find_map(opened.scene),
            opened.source,
        )

    def check_answers(self, opened: OpenScene, conversation: list[Message]) -> list[str]:
        """Return HTML for each answer: measured shares of what it mentions, and what differs."""
        cover_map = self.service.find_map(opened.scene)
        contents = [message["content"] for message in conversation]
        pairs = zip(contents[::2], contents[1::2], strict=False)
        return [show_related_shares(opened, *pair, cover_map) for pair in pairs]

    def show_ready(self, session: Session) -> Outputs:
        """Show Send, or Stop while an answer is being generated; suggest what to ask next."""
        return *show_busy(session.turn is not None), *show_suggestions(session)

    def _answer(
        self,
        session: Session,
        asked: list[Message],
        max_length: float,
        temperature: float,
        request: gr.Request,
    ) -> Iterator[Outputs]:
        """Stream the answer to a conversation's last question into the page."""
        opened, question = session.require_opened(), asked[-1]["content"]
        check_prompt(question)
        before, turn = session.conversation, session.begin_turn()
        show = partial(show_conversation, asked, checks=self.check_answers(opened, asked))
        picture = remove_attention(session)
        client = identify_client(session, request)
        pieces = self.service.answer(
            opened.scene, asked, client, int(max_length), temperature, turn.stop
        )
        with turn.streaming():
            try:
                send, stop = show_busy(True)
                yield ChatUpdate(
                    session=session,
                    prompt="",
                    chat=show(LOOKING),
                    send=send,
                    stop=stop,
                    picture=picture,
                    stored=store_conversation(session.talk, opened, asked[:-1], question),
                ).values()
                show_where = partial(self._show_where, session, question)
                text = yield from _stream_text(show, pieces, turn, show_where)
                answered = [*asked, Message(role="assistant", content=text or NO_ANSWER)]
                if session.turn is turn:
                    session.conversation = answered if text else before
                    checks = self.check_answers(opened, answered)
                    yield ChatUpdate(
                        chat=show_conversation(answered, checks=checks),
                        stored=store_conversation(session.talk, opened, session.conversation),
                    ).values()
            except Exception:
                if session.turn is turn:  # The visitor can send the question again.
                    shown = show_conversation(before, checks=self.check_answers(opened, before))
                    yield ChatUpdate(chat=shown, prompt=question).values()
                raise
            finally:
                if session.turn is turn:
                    session.turn = None

    def _show_where(self, session: Session, question: str) -> Any:
        """Return the picture with the covers of which a question asks where they are.

        It is unchanged for other questions. Without a map of the model's, what was measured is
        shown.
        """
        if session.opened is None or not _ASKS_WHERE.search(question):
            return gr.skip()
        scene, asked = session.opened.scene, mentioned_covers(question)
        cover_map = self.service.find_map(scene)
        covers = overlay_map(cover_map, asked) if cover_map else overlay_measured(scene, asked)
        if covers is None:
            return gr.skip()
        session.covers = covers
        return show_session(session)


def show_busy(is_busy: bool) -> Outputs:
    """Return the Send and Stop buttons, of which one is shown."""
    return gr.Button(visible=not is_busy), gr.Button(visible=is_busy)


def remove_attention(session: Session) -> Any:
    """Return the picture without the last answer's attention map; unchanged where it has none."""
    had, session.attention = session.attention is not None, None
    if not had or session.opened is None:
        return gr.skip()
    return show_session(session)


def show_suggestions(session: Session) -> Outputs:
    """Return the buttons of the questions that continue the conversation."""
    if session.opened is None:
        return (gr.skip(),) * SUGGESTED_QUESTIONS
    asked = [each["content"] for each in session.conversation[::2]]
    answer = session.conversation[-1]["content"] if asked else ""
    return tuple(map(gr.Button, suggest_next(asked, answer, session.opened.questions)))


def start_conversation(session: Session, opened: OpenScene, checks: Sequence[str] = ()) -> Outputs:
    """Return the values of `ChatPanel.outputs` for a scene that was just opened.

    checks: of the answers of a conversation that continues.
    """
    stored = store_conversation(session.talk, opened, session.conversation)
    messages = show_conversation(session.conversation, checks=checks)
    return messages, *show_suggestions(session), stored


def _as_user(question: str) -> Message:
    return {"role": "user", "content": question}


def _stream_text(
    show: Callable[..., list[dict[str, Any]]],
    pieces: Generator[Waiting | str, None, None],
    turn: Turn,
    show_where: Callable[[], Any],
) -> Generator[Outputs, None, str]:
    """Show the position in the queue, then the text as it grows; return the whole text.

    show: returns the conversation with a pending note or the answer so far. show_where: returns the
    picture that is shown with the first word.
    """
    text = ""
    with closing(accumulate_text(pieces)) as growing:
        for each in growing:
            if isinstance(each, Waiting):
                yield ChatUpdate(chat=show(describe_wait(each.ahead))).values()
                continue
            picture = show_where() if each and not text else gr.skip()
            text = each
            if not turn.stop.is_set():
                yield ChatUpdate(chat=show(answer=text), picture=picture).values()
    return text
