"""The conversation in the Chat tab: its components, and what each is connected to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from earthvlm.ui.downloads import SAVE_TEXT
from earthvlm.ui.tabs.chat_handlers import ChatHandlers
from earthvlm.ui.tabs.streaming import ANSWER_NOTE

# Who waits for the model waits in the service's queue, which reports the position to the page.
ASKING: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden"}
PRIVATE: dict[str, Any] = {"api_visibility": "private", **ASKING}
AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden"}


@dataclass(frozen=True)
class ChatPanel:
    """The components of the conversation.

    session, picture: of the page and the Chat tab. measured: the shares an answer is compared with.
    message_index, question: for API clients, who cannot edit a message in place. saved: the
    Markdown that the browser saves. stored: the conversation that the browser keeps.
    """

    session: gr.State
    picture: gr.HTML
    chat: gr.Chatbot
    measured: gr.HTML
    questions: list[gr.Button]
    prompt: gr.Textbox
    send: gr.Button
    stop: gr.Button
    attention: gr.Button
    cover_map: gr.Button
    save: gr.Button
    clear: gr.Button
    max_length: gr.Slider
    temperature: gr.Slider
    saved: gr.Textbox
    stored: gr.HTML
    message_index: gr.Number
    question: gr.Textbox

    @property
    def outputs(self) -> list[gr.components.Component]:
        """The components that `start_conversation` returns values for."""
        return [self.chat, self.measured, *self.questions, self.stored]

    @property
    def answer_outputs(self) -> list[gr.components.Component]:
        """The components that `ChatUpdate.values` are for."""
        buttons = [self.send, self.stop]
        shown = [self.measured, self.picture, self.stored]
        return [self.session, self.prompt, self.chat, *buttons, *shown]

    @property
    def settings(self) -> list[gr.Slider]:
        """How answers are generated: maximum length and temperature."""
        return [self.max_length, self.temperature]


def build_chat_panel(session: gr.State, picture: gr.HTML, suggestions: Sequence[str]) -> ChatPanel:
    """Lay the components out. suggestions: questions that fit the scene open at the start."""
    chat = gr.Chatbot(
        label="Conversation about the scene",
        height=340,
        buttons=["copy"],
        editable="user",
        feedback_options=None,
        render_markdown=False,
        latex_delimiters=[],
        placeholder="Ask about the scene in your own words, or choose a question below.",
        layout="bubble",
        elem_id="chat",
    )
    measured = gr.HTML(ANSWER_NOTE, label="Measured shares", elem_id="measured")
    with gr.Row(elem_classes="questions"):
        questions = [gr.Button(text, size="sm", min_width=60) for text in suggestions]
    prompt, send, stop = _build_prompt()
    with gr.Row(elem_classes="after"):
        cover_map = gr.Button("Land-cover map", size="sm", min_width=90, elem_id="cover-map")
        attention = gr.Button("Attention map", size="sm", min_width=90, elem_id="attention")
        save = gr.Button("Save as Markdown", size="sm", min_width=90, elem_id="save")
        clear = gr.Button("Clear", size="sm", min_width=60, elem_id="clear")
    with gr.Accordion("Answer settings", open=False, elem_classes="settings"):
        max_length = gr.Slider(16, 512, value=160, step=16, label="Maximum length in tokens")
        temperature = gr.Slider(
            0, 1.5, value=0, step=0.1, label="Temperature (0: always the same answer)"
        )
    return ChatPanel(
        session=session,
        picture=picture,
        chat=chat,
        measured=measured,
        questions=questions,
        prompt=prompt,
        send=send,
        stop=stop,
        attention=attention,
        cover_map=cover_map,
        save=save,
        clear=clear,
        max_length=max_length,
        temperature=temperature,
        saved=gr.Textbox(visible=False),
        stored=gr.HTML("", elem_id="stored"),  # page.js keeps it in the browser
        message_index=gr.Number(0, visible=False),
        question=gr.Textbox(visible=False),
    )


def _build_prompt() -> tuple[gr.Textbox, gr.Button, gr.Button]:
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
    return prompt, send, stop


def wire_chat_panel(panel: ChatPanel, handlers: ChatHandlers) -> None:
    """Connect the components to their handlers."""
    session, settings, outputs = panel.session, panel.settings, panel.answer_outputs
    typed = [session, panel.prompt, *settings]
    asked = gr.on(
        [panel.prompt.submit, panel.send.click],
        handlers.ask,
        typed,
        outputs,
        api_name="ask",
        **ASKING,
    )
    retried = panel.chat.retry(
        handlers.retry, [session, *settings], outputs, api_name="retry", **ASKING
    )
    edited = panel.chat.edit(handlers.edit_in_place, [session, *settings], outputs, **PRIVATE)
    suggested = [
        button.click(handlers.ask, [session, button, *settings], outputs, **PRIVATE)
        for button in panel.questions
    ]
    for answered in (asked, retried, edited, *suggested):
        enable_send_after(answered, panel, handlers)
    rewritten = [session, panel.message_index, panel.question, *settings]
    panel.question.submit(handlers.edit, rewritten, outputs, api_name="edit", **ASKING)
    panel.stop.click(handlers.stop, session, None, api_name="stop", **AT_ONCE)
    cleared = [panel.chat, panel.measured, panel.picture, panel.stored]
    panel.clear.click(handlers.clear, session, cleared, api_name="clear", **AT_ONCE)
    for button, draw in (
        (panel.attention, handlers.attention_map),
        (panel.cover_map, handlers.land_cover_map),
    ):
        button.click(draw, session, panel.picture, api_name=draw.__name__, concurrency_limit=None)
    saved = panel.save.click(
        handlers.save_chat, session, panel.saved, api_name="save_chat", show_progress="hidden"
    )
    download = SAVE_TEXT.format(name="conversation.md", kind="text/markdown")
    saved.success(None, panel.saved, None, js=download)


def ask_linked_question_after(event: Any, panel: ChatPanel, handlers: ChatHandlers) -> None:
    """Ask the question in the page's address when an event has succeeded."""
    inputs = [panel.session, *panel.settings]
    linked = event.success(handlers.ask_linked_question, inputs, panel.answer_outputs, **PRIVATE)
    enable_send_after(linked, panel, handlers)


def enable_send_after(event: Any, panel: ChatPanel, handlers: ChatHandlers) -> None:
    """Enable Send when an event has ended, with success or without."""
    for ended in (event.then, event.failure):
        ended(
            handlers.show_ready,
            panel.session,
            [panel.send, panel.stop],
            queue=False,
            api_visibility="private",
        )
