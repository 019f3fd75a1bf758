"""The conversation in the Chat tab: its components, and what each is connected to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from earthvlm.ui.downloads import COPY_QUOTE, SAVE_TEXT
from earthvlm.ui.tabs.chat.chat_handlers import ChatHandlers
from earthvlm.ui.tabs.streaming import ANSWER_NOTE

# Who waits for the model waits in the service's queue, which reports the position to the page.
ASKING: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden"}
PRIVATE: dict[str, Any] = {"api_visibility": "private", **ASKING}
AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
# conversations.js fills the list.
TALKS = '<select aria-label="Conversation"><option>New conversation</option></select>'


@dataclass(frozen=True)
class ChatPanel:
    """The components of the conversation.

    session, picture: of the page and the Chat tab. begin: another conversation. restore: the one
    that the browser's history names; conversations.js clicks it. message_index, question: for API
    clients, who cannot edit a message in place. saved: the Markdown that the browser saves. stored:
    the conversation that the browser keeps.
    """

    session: gr.State
    picture: gr.HTML
    chat: gr.Chatbot
    questions: list[gr.Button]
    prompt: gr.Textbox
    send: gr.Button
    stop: gr.Button
    attention: gr.Button
    cover_map: gr.Button
    begin: gr.Button
    restore: gr.Button
    save: gr.Button
    quote: gr.Button
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
        return [self.chat, *self.questions, self.stored]

    @property
    def answer_outputs(self) -> list[gr.components.Component]:
        """The components that `ChatUpdate.values` are for."""
        buttons = [self.send, self.stop]
        return [self.session, self.prompt, self.chat, *buttons, self.picture, self.stored]

    @property
    def emptied(self) -> list[gr.components.Component]:
        """What changes where a conversation is deleted or another one begins."""
        return [self.chat, self.picture, self.stored]

    @property
    def settings(self) -> list[gr.Slider]:
        """How answers are generated: maximum length and temperature."""
        return [self.max_length, self.temperature]


def build_chat_panel(
    session: gr.State,
    picture: gr.HTML,
    maps: tuple[gr.Button, gr.Button],
    suggestions: Sequence[str],
) -> ChatPanel:
    """Lay the components out: the conversation, and below it the question.

    maps: the buttons of the maps over the picture. suggestions: questions that fit the scene open
    at the start.
    """
    attention, cover_map = maps
    begin, restore, save, clear = _build_talks()
    chat, quote = _build_messages()
    with gr.Accordion("Answer settings", open=False, elem_classes="settings answer-settings"):
        max_length = gr.Slider(16, 512, value=160, step=16, label="Maximum length in tokens")
        temperature = gr.Slider(
            0, 1.5, value=0, step=0.1, label="Temperature (0: always the same answer)"
        )
    with gr.Column(elem_classes="question", min_width=0):
        with gr.Row(elem_classes="questions"):
            questions = [gr.Button(text, size="sm", min_width=60) for text in suggestions]
        prompt, send, stop = _build_prompt()
    return ChatPanel(
        session=session,
        picture=picture,
        chat=chat,
        questions=questions,
        prompt=prompt,
        send=send,
        stop=stop,
        attention=attention,
        cover_map=cover_map,
        begin=begin,
        restore=restore,
        save=save,
        quote=quote,
        clear=clear,
        max_length=max_length,
        temperature=temperature,
        saved=gr.Textbox(visible=False),
        stored=gr.HTML("", elem_id="stored"),  # conversations.js keeps it in the browser
        message_index=gr.Number(0, visible=False),
        question=gr.Textbox(visible=False),
    )


def _build_messages() -> tuple[gr.Chatbot, gr.Button]:
    """Lay out the messages, and below them what copies the last answer."""
    chat = gr.Chatbot(
        label="Conversation about the scene",
        show_label=False,
        height="100%",
        buttons=["copy"],
        editable="user",
        feedback_options=None,
        render_markdown=False,
        latex_delimiters=[],
        placeholder="Ask about the scene in your own words, or choose a question below.",
        layout="bubble",
        elem_id="chat",
    )
    with gr.Row(elem_classes="after-answer"):
        gr.HTML(ANSWER_NOTE, elem_id="answer-note", min_width=0)
        quote = gr.Button(
            "Copy answer with source", size="sm", scale=0, min_width=90, elem_id="quote"
        )
    return chat, quote


def _build_talks() -> tuple[gr.Button, gr.Button, gr.Button, gr.Button]:
    """Lay out the choice of a conversation, and what is done with the one that is shown."""
    with gr.Row(elem_classes="talks"):
        gr.HTML(TALKS, elem_id="talks")
        begin = gr.Button("New", size="sm", scale=0, min_width=52, elem_id="begin")
        save = gr.Button("Save", size="sm", scale=0, min_width=52, elem_id="save")
        clear = gr.Button("Delete", size="sm", scale=0, min_width=60, elem_id="clear")
        # conversations.js clicks it.
        restore = gr.Button("Restore", visible="hidden", elem_id="restore")
    return begin, restore, save, clear


def build_map_buttons(has_cover_map: bool) -> tuple[gr.Button, gr.Button]:
    """Lay out the buttons that put a map over the picture: of attention, and of land cover.

    has_cover_map: whether the bridge draws land-cover maps; without, its button is hidden.
    """
    with gr.Row(elem_classes="maps"):
        attention = gr.Button("Attention map", size="sm", min_width=90, elem_id="attention")
        cover_map = gr.Button(
            "Land-cover map", size="sm", min_width=90, elem_id="cover-map", visible=has_cover_map
        )
    return attention, cover_map


def _build_prompt() -> tuple[gr.Textbox, gr.Button, gr.Button]:
    with gr.Row(elem_classes="actions"):
        prompt = gr.Textbox(
            "",
            label="Your question",
            placeholder="Is there water, and where?",
            lines=1,
            max_lines=4,
            scale=6,
            min_width=160,
            elem_id="prompt",
        )
        send = gr.Button("Send", variant="primary", scale=0, min_width=76, elem_id="send")
        stop = gr.Button("Stop", scale=0, min_width=76, elem_id="stop", visible=False)
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
    cleared = panel.clear.click(handlers.clear, session, panel.emptied, api_name="clear", **AT_ONCE)
    begun = panel.begin.click(
        handlers.begin, session, panel.emptied, api_visibility="private", **AT_ONCE
    )
    for ended in (asked, retried, edited, *suggested, cleared, begun):
        enable_send_after(ended, panel, handlers)
    rewritten = [session, panel.message_index, panel.question, *settings]
    panel.question.submit(handlers.edit, rewritten, outputs, api_name="edit", **ASKING)
    panel.stop.click(handlers.stop, session, None, api_name="stop", **AT_ONCE)
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
    quoted = panel.quote.click(
        handlers.quote, session, panel.saved, api_visibility="private", show_progress="hidden"
    )
    quoted.success(None, panel.saved, None, js=COPY_QUOTE)


def ask_linked_question_after(event: Any, panel: ChatPanel, handlers: ChatHandlers) -> None:
    """Ask the question in the page's address when an event has succeeded."""
    inputs = [panel.session, *panel.settings]
    linked = event.success(handlers.ask_linked_question, inputs, panel.answer_outputs, **PRIVATE)
    enable_send_after(linked, panel, handlers)


def enable_send_after(event: Any, panel: ChatPanel, handlers: ChatHandlers) -> None:
    """Show Send and what to ask next when an event has ended, with success or without."""
    for ended in (event.then, event.failure):
        ended(
            handlers.show_ready,
            panel.session,
            [panel.send, panel.stop, *panel.questions],
            queue=False,
            api_visibility="private",
        )
