"""The Search tab: find scenes by words or by another scene, and open one in Chat."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from earthvlm.bridge import OlmoEarthVLMBridge
from earthvlm.retrieval import SceneIndex, SceneResult
from earthvlm.scene import Scene
from earthvlm.ui.chat import ChatTab, show_result
from earthvlm.ui.state import MODEL_QUEUE, Session, tell_errors
from earthvlm.ui.uploads import SCENE_FILES, open_uploads
from earthvlm.ui.zero_gpu import on_gpu

SEARCHES = (
    "a lake beside forest",
    "a village among fields",
    "dense forest",
    "open water",
    "haze over the land",
)
ALL_SPLITS = "all"
MOST_RESULTS = 96
FIRST_RESULTS = 12


def add_search_tab(
    page: gr.Blocks,
    session: gr.State,
    bridge: OlmoEarthVLMBridge,
    index: SceneIndex,
    tabs: gr.Tabs,
    chat: ChatTab,
) -> None:
    """Add the tab's components and wire them; a result opens in the Chat tab."""
    with gr.Row(elem_classes="search-by"):
        words = gr.Textbox(
            "",
            label="What the scene shows",
            placeholder="a lake beside forest",
            max_lines=1,
            scale=4,
            elem_id="search-words",
        )
        find = gr.Button("Search", variant="primary", scale=0, min_width=120, elem_id="search")
    with gr.Row(elem_classes="questions"):
        suggestions = [gr.Button(text, size="sm", min_width=60) for text in SEARCHES]
    with gr.Row(elem_classes="search-more"):
        split = gr.Radio(
            [ALL_SPLITS, *index.splits], value=ALL_SPLITS, label="Split", elem_id="split"
        )
        count = gr.Slider(
            4,
            MOST_RESULTS,
            value=FIRST_RESULTS,
            step=4,
            label="Scenes shown",
            elem_id="count",
        )
        alike = gr.Button("More like the scene in Chat", scale=0, min_width=240, elem_id="alike")
        upload = gr.UploadButton(
            "More like a file …",
            file_count="multiple",
            file_types=SCENE_FILES,
            scale=0,
            min_width=160,
            elem_id="alike-file",
        )
    found = gr.HTML(label="What was found", elem_id="found")
    gallery = gr.Gallery(
        label="Scenes, each with its cosine similarities: click one to open it in Chat",
        columns=4,
        height="auto",
        allow_preview=False,
        interactive=False,
        object_fit="cover",
        buttons=[],
        elem_id="results",
    )

    @on_gpu
    def rank(query: str | Scene, count: int, split: str | None) -> list[SceneResult]:
        return index.search(query, k=count, split=split, bridge=bridge)

    def search(session: Session, query: str | Scene | None, split: str, count: int) -> Any:
        split_wanted = None if split == ALL_SPLITS else split
        if query is None:
            results = index.browse(split_wanted, k=int(count))
        else:
            results = rank(query, int(count), split_wanted)
        session.query, session.results = query, tuple(results)
        pictures = [(result.thumbnail, describe_result(result)) for result in results]
        return session, describe_search(query, len(results), len(index)), pictures

    @tell_errors
    def search_words(session: Session, words: str, split: str, count: int) -> Any:
        """Find scenes by words, in captions and in the scenes themselves; no words lists all."""
        return search(session, words if words.strip() else None, split, count)

    @tell_errors
    def search_suggestion(session: Session, words: str, split: str, count: int) -> Any:
        """Find scenes by one of the suggested searches."""
        return words, *search(session, words, split, count)

    @tell_errors
    def search_alike(session: Session, split: str, count: int) -> Any:
        """Find scenes like the one that is open in Chat."""
        return search(session, session.require_scene(), split, count)

    @tell_errors
    def search_file(session: Session, paths: list[str] | None, split: str, count: int) -> Any:
        """Find scenes like an uploaded one."""
        return search(session, open_uploads(paths), split, count)

    @tell_errors
    def search_again(session: Session, split: str, count: int) -> Any:
        """Do the last search again with another split or number of scenes."""
        return search(session, session.query, split, count)

    @tell_errors
    def open_result(session: Session, event: gr.SelectData) -> Any:
        """Open one of the scenes found in the Chat tab, chosen by its place in the list."""
        return gr.Tabs(selected="chat"), *show_result(session, session.results[event.index])

    outputs = [session, found, gallery]
    by_words = {"concurrency_limit": 1, "concurrency_id": "search", "show_progress": "minimal"}
    by_scene = {"concurrency_limit": 1, "concurrency_id": MODEL_QUEUE, "show_progress": "minimal"}
    typed = [session, words, split, count]
    gr.on([words.submit, find.click], search_words, typed, outputs, api_name="search", **by_words)
    page.load(search_words, typed, outputs, api_visibility="private", **by_words)
    for button in suggestions:
        button.click(
            search_suggestion,
            [session, button, split, count],
            [words, *outputs],
            api_visibility="private",
            **by_words,
        )
    shown = [session, split, count]
    alike.click(search_alike, shown, outputs, api_name="search_alike", **by_scene)
    upload.upload(
        search_file, [session, upload, split, count], outputs, api_name="search_file", **by_scene
    )
    gr.on(
        [split.input, count.release],
        search_again,
        shown,
        outputs,
        api_name="search_again",
        **by_scene,
    )
    gallery.select(
        open_result,
        session,
        [tabs, *chat.scene_outputs],
        api_visibility="private",
        show_progress="minimal",
    )


def describe_result(result: SceneResult) -> str:
    """Return a result's text under its picture: cosine similarities, place, split, caption."""
    similarities = [
        f"{name} {similarity:.2f}"
        for name, similarity in (
            ("caption", result.caption_similarity),
            ("scene", result.scene_similarity),
        )
        if similarity is not None
    ]
    lines = [" · ".join(similarities), describe_place(result), result.caption or "no caption"]
    return "\n".join(line for line in lines if line)


def describe_place(result: SceneResult) -> str:
    """Return where a result lies, in degrees, and its split."""
    if result.longitude is None or result.latitude is None:
        return result.split
    north = f"{abs(result.latitude):.2f}° {'N' if result.latitude >= 0 else 'S'}"
    east = f"{abs(result.longitude):.2f}° {'E' if result.longitude >= 0 else 'W'}"
    return f"{north} {east} · {result.split}"


def describe_search(query: str | Scene | None, found: int, total: int) -> str:
    """Return HTML: one line that says what is shown below it."""
    if query is None:
        return f"{found} of the {total} scenes there are"
    if isinstance(query, Scene):
        return f"{found} scenes most like <strong>{html.escape(query.name)}</strong>"
    return f"{found} scenes nearest to <strong>{html.escape(query)}</strong>"
