"""The Chat tab: choose a scene, look at it, ask about it."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import Any

import gradio as gr

from earthvlm.bridge import OlmoEarthVLMBridge
from earthvlm.generation import check_prompt
from earthvlm.retrieval import SceneIndex, SceneResult
from earthvlm.scene import Scene
from earthvlm.sentinel2 import COMPOSITES
from earthvlm.ui.state import MODEL_QUEUE, Session, Turn, tell_errors
from earthvlm.ui.uploads import BOA_OFFSETS, SCENE_FILES, open_uploads
from earthvlm.ui.zero_gpu import ON_ZERO_GPU, on_gpu

QUESTIONS = (
    "Describe this scene.",
    "Which land cover dominates?",
    "Is there water?",
    "How much is built up?",
    "What is in the top left?",
)
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
THINKING = "Looking at the scene …"
NOTHING_SAID = "(stopped before the first word)"


@dataclass(frozen=True)
class ChatTab:
    """What other parts of the page need to know of the Chat tab to open a scene in it."""

    scene_outputs: list[gr.components.Component]


def add_chat_tab(
    page: gr.Blocks, session: gr.State, bridge: OlmoEarthVLMBridge, examples: list[SceneResult]
) -> ChatTab:
    """Add the tab's components and wire them; `examples` are the scenes offered for a start."""
    with gr.Row(elem_classes="choose"):
        gallery = gr.Gallery(
            [(example.thumbnail, example.caption) for example in examples],
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
        with gr.Column(scale=2, min_width=260):
            upload = gr.File(
                label="Your own: GeoTIFF, ChatEarthNet PNGs or a photo",
                file_count="multiple",
                file_types=SCENE_FILES,
                height=92,
                elem_id="upload",
            )
            with gr.Accordion("How files are read", open=False, elem_classes="settings"):
                boa_offset = gr.Radio(
                    [(label, choice) for choice, (label, _) in BOA_OFFSETS.items()],
                    value="auto",
                    label="The offset of +1000 in products from 2022-01-25 on (boa_offset)",
                    elem_id="boa_offset",
                )
    with gr.Row(elem_classes="look-and-ask"):
        with gr.Column(scale=0, min_width=440):
            picture = gr.Image(
                label="Scene",
                format="png",
                interactive=False,
                buttons=["download", "fullscreen"],
                elem_id="picture",
            )
            composite = gr.Radio(
                list(COMPOSITES), value="true colour", label="Bands shown", elem_id="composite"
            )
            facts = gr.HTML(label="Facts about the scene", elem_id="facts")
        with gr.Column(scale=1, min_width=320):
            chat = gr.Chatbot(
                label="Conversation about the scene",
                height=432,
                buttons=["copy"],
                feedback_options=None,
                placeholder="Ask about the scene, in your own words or with a question below.",
                layout="bubble",
                elem_id="chat",
            )
            with gr.Row(elem_classes="questions"):
                questions = [gr.Button(text, size="sm", min_width=60) for text in QUESTIONS]
            with gr.Row(elem_classes="actions"):
                prompt = gr.Textbox(
                    "",
                    label="Your question",
                    placeholder="Is there water, and where?",
                    lines=1,
                    max_lines=4,
                    scale=6,
                    min_width=240,
                    elem_id="prompt",
                )
                send = gr.Button("Send", variant="primary", min_width=70, elem_id="send")
                stop = gr.Button("Stop", interactive=False, min_width=70, elem_id="stop")
                clear = gr.Button("Clear", min_width=70, elem_id="clear")
            with gr.Accordion("Answer settings", open=False, elem_classes="settings"):
                max_length = gr.Slider(
                    16, 512, value=160, step=16, label="Longest answer, in tokens"
                )
                temperature = gr.Slider(
                    0, 1.5, value=0, step=0.1, label="Temperature: 0 always gives the same answer"
                )

    @tell_errors
    def open_example(session: Session, event: gr.SelectData) -> Any:
        """Open one of the example scenes, chosen by its place in the gallery."""
        return show_result(session, examples[event.index])

    @tell_errors
    def open_first(session: Session) -> Any:
        """Open the first example, so that a visitor has something to ask about."""
        return show_result(session, examples[0]) if examples else gr.skip()

    @tell_errors
    def open_files(session: Session, paths: list[str] | None, boa_offset: str) -> Any:
        """Open an uploaded scene: one GeoTIFF or photo, or a ChatEarthNet scene's three PNGs."""
        return show_scene(session, open_uploads(paths, BOA_OFFSETS[boa_offset][1]))

    @tell_errors
    def draw(session: Session, name: str) -> Any:
        """Draw the open scene with other bands."""
        scene = session.require_scene()
        return gr.Image(scene.composite(name), alt_text=f"{scene.name}, {name}")

    @tell_errors
    def ask(session: Session, question: str, messages: list[dict[str, Any]]) -> Any:
        """Put a question to the open scene; the answer follows."""
        session.require_scene()
        check_prompt(question)
        turn = session.begin_turn()
        spoken = plain_messages(messages)
        if spoken and spoken[-1]["role"] == "user":  # overtaken before its first word
            spoken.pop()
        asked = {"role": "user", "content": question}
        return session, "", [*spoken, asked, show_thinking(turn)], *set_busy(True)

    @on_gpu
    def stream(
        scene: Scene,
        spoken: list[dict[str, Any]],
        max_length: int,
        temperature: float,
        stop: Event | None,
    ) -> Iterator[str]:
        yield from bridge.stream(scene, spoken, max_length, temperature, stop=stop)

    @tell_errors
    def answer(
        session: Session, messages: list[dict[str, Any]], max_length: int, temperature: float
    ) -> Iterator[list[dict[str, Any]]]:
        """Stream the answer to the question that was put last."""
        turn, spoken = session.turn, plain_messages(messages)
        if turn is None or not is_awaited(messages, turn):
            return  # cleared, or overtaken by another question, while it waited for its turn
        text = ""
        with turn.speaking():
            try:
                pieces = stream(
                    session.require_scene(),
                    spoken,
                    int(max_length),
                    temperature,
                    None if ON_ZERO_GPU else turn.stop,
                )
                with closing(pieces):
                    while not turn.stop.is_set() and (piece := next(pieces, None)) is not None:
                        text += piece
                        yield [*spoken, {"role": "assistant", "content": text}]
                if not text and session.turn is turn:
                    yield [*spoken, {"role": "assistant", "content": NOTHING_SAID}]
            except Exception:
                if session.turn is turn:
                    yield spoken[:-1]
                raise
            finally:
                if session.turn is turn:
                    session.turn = None

    def rest(session: Session) -> Any:
        """Make the buttons ready for the next question."""
        return set_busy(session.turn is not None)

    def stop_answer(session: Session) -> None:
        """Stop the answer that is being written; what is there stays."""
        session.stop_turn()

    def clear_chat(session: Session) -> Any:
        """Stop the answer and forget the conversation; the scene stays open."""
        session.end_turn()
        return []

    scene_outputs = [session, picture, composite, facts, chat]
    opening = {"concurrency_limit": 2, "concurrency_id": "open", "show_progress": "minimal"}
    gallery.select(open_example, session, scene_outputs, api_visibility="private", **opening)
    opened = upload.upload(
        open_files, [session, upload, boa_offset], scene_outputs, api_name="open_scene", **opening
    )
    for afterwards in (opened.then, opened.failure):  # room for the next file
        afterwards(lambda: None, None, upload, queue=False, api_visibility="private")
    page.load(open_first, session, scene_outputs, api_visibility="private", **opening)
    composite.input(draw, [session, composite], picture, api_name="draw", show_progress="hidden")

    def answer_on(triggers: list[Any], question: gr.components.Component, **options: Any) -> None:
        answered = gr.on(
            triggers,
            ask,
            [session, question, chat],
            [session, prompt, chat, send, stop],
            api_name="ask",
            concurrency_limit=None,
            **options,
        ).success(
            answer,
            [session, chat, max_length, temperature],
            chat,
            api_name="answer",
            concurrency_limit=1,
            concurrency_id=MODEL_QUEUE,
            **options,
        )
        for afterwards in (answered.then, answered.failure):
            afterwards(rest, session, [send, stop], queue=False, api_visibility="private")

    answer_on([prompt.submit, send.click], prompt, show_progress="hidden")
    for button in questions:
        answer_on([button.click], button, show_progress="hidden", api_visibility="private")
    stop.click(stop_answer, session, None, api_name="stop", queue=False, show_progress="hidden")
    clear.click(clear_chat, session, chat, api_name="clear", queue=False, show_progress="hidden")
    return ChatTab(scene_outputs)


def show_scene(session: Session, scene: Scene, origin: SceneResult | None = None) -> Any:
    """Open a scene and return what the Chat tab shows of it, with an empty conversation."""
    composites = scene.available_composites()
    picture = scene.composite(composites[0]) if composites else scene.thumbnail(scene.width)
    session.open_scene(scene)
    return (
        session,
        gr.Image(picture, alt_text=f"{scene.name}, {composites[0] if composites else 'grey'}"),
        gr.Radio(composites, value=composites[0] if composites else None),
        describe_scene(scene, origin),
        [],
    )


def show_result(session: Session, result: SceneResult) -> Any:
    """Open a scene of the embedding dataset. Raises ValueError where only its caption is there."""
    if result.scene_file is None:
        raise ValueError(
            f"The dataset holds a thumbnail of {result.image_id} but not its bands; "
            "open the scene's own file instead"
        )
    return show_scene(session, Scene.open(result.scene_file), result)


def describe_scene(scene: Scene, origin: SceneResult | None = None) -> str:
    """Return HTML: the scene's name and measured facts, where it comes from, and its notes."""
    name, summary = html.escape(scene.name), html.escape(scene.summary())
    text = f"<p><strong>{name}</strong> {summary}</p>"
    if origin is not None and origin.source:
        source = html.escape(origin.source)
        text += f"<details><summary>Source and licence</summary>{source}</details>"
    if scene.notes:
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in scene.notes)
        text += f'<ul class="notes" aria-label="Good to know about this scene">{notes}</ul>'
    return text


def set_busy(busy: bool) -> tuple[gr.Button, gr.Button]:
    """Return how Send and Stop look while an answer is under way, or not."""
    return gr.Button(interactive=not busy), gr.Button(interactive=busy)


def show_thinking(turn: Turn) -> dict[str, Any]:
    """Return the message that stands where the answer of a turn will be."""
    metadata = {"title": THINKING, "status": "pending", "id": str(turn.number)}
    return {"role": "assistant", "content": "", "metadata": metadata}


def is_awaited(messages: list[dict[str, Any]], turn: Turn) -> bool:
    """Whether a conversation ends with the sign that the answer of this turn is awaited."""
    return bool(messages) and (messages[-1].get("metadata") or {}).get("id") == str(turn.number)


def plain_messages(messages: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Turn the chatbot's messages into a role and a text each, without its signs of waiting."""
    return [
        {"role": message["role"], "content": plain_text(message["content"])}
        for message in messages
        if not (message.get("metadata") or {}).get("title")
    ]


def plain_text(content: str | list[dict[str, Any]]) -> str:
    """Return the text of a chatbot message, which arrives whole or in typed parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def choose_examples(index: SceneIndex) -> list[SceneResult]:
    """Pick scenes for a start that can be opened: the dataset's examples, then unlike finds."""
    finds = list(index.browse(EXAMPLE_SPLIT)) if EXAMPLE_SPLIT in index.splits else []
    for words in EXAMPLE_SEARCHES:
        found = {result.image_id for result in finds}
        finds += [r for r in index.search(words, k=len(finds) + 1) if r.image_id not in found][:1]
    return [result for result in finds if result.scene_file is not None][:EXAMPLE_COUNT]
