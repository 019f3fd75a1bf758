"""The Search tab: find scenes by words or by another scene, and take the list home."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from earthvlm.exports import results_to_csv, results_to_geojson
from earthvlm.retrieval import SceneResult
from earthvlm.scene import Scene
from earthvlm.search_query import SceneFilter
from earthvlm.service import SceneService
from earthvlm.ui.chat import ChatTab, show_opened
from earthvlm.ui.downloads import SAVE_TEXT
from earthvlm.ui.state import Session, know_asker, page_only, tell_errors
from earthvlm.ui.uploads import SCENE_FILES, open_uploads, take_uploads_only

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
    page: gr.Blocks, session: gr.State, service: SceneService, tabs: gr.Tabs, chat: ChatTab
) -> None:
    """Add the tab's components and wire them; a result opens in the Chat tab."""
    index = service.index
    with gr.Row(elem_classes="search-by"):
        words = gr.Textbox(
            "",
            label="What the scene shows",
            placeholder="a lake beside forest; a minus unwants, as in: river -city",
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
        take_uploads_only(upload)
    with gr.Row(elem_classes="found"):
        found = gr.HTML(
            describe_search(None, min(FIRST_RESULTS, len(index)), len(index)),
            label="What was found",
            elem_id="found",
        )
        save_csv = gr.Button("Save as CSV", size="sm", scale=0, min_width=110)
        save_geojson = gr.Button("Save as GeoJSON", size="sm", scale=0, min_width=130)
    first = index.browse(k=FIRST_RESULTS)
    gallery = gr.Gallery(
        [(result.thumbnail, describe_result(result)) for result in first],
        label="Scenes, each with its cosine similarities: click one to open it in Chat",
        columns=4,
        height="auto",
        allow_preview=False,
        interactive=False,
        object_fit="cover",
        buttons=[],
        elem_id="results",
    )
    saved = gr.Textbox(visible=False)

    def search(
        session: Session,
        query: str | Scene | SceneResult | None,
        split: str,
        count: float,
        request: gr.Request,
    ) -> Any:
        where = SceneFilter(split=None if split == ALL_SPLITS else split, box=session.box)
        k = max(1, min(int(count), MOST_RESULTS))
        results = service.find(query, k, know_asker(session, request), where)
        session.query, session.results = query, tuple(results)
        pictures = [(result.thumbnail, describe_result(result)) for result in results]
        found = describe_search(query, len(results), len(index))
        if session.box is not None:
            found += ", inside the box on the map"
        # A list without a query is read from the table, whatever became of the engine.
        if query is not None and index.notice:
            found += f'<p class="notice">{html.escape(index.notice)}</p>'
        return session, found, pictures

    @page_only
    @tell_errors
    def search_words(
        session: Session, words: str, split: str, count: float, request: gr.Request
    ) -> Any:
        """Find scenes by words, in captions and in the scenes themselves; no words lists all."""
        return search(session, words if words.strip() else None, split, count, request)

    @tell_errors
    def search_suggestion(
        session: Session, words: str, split: str, count: float, request: gr.Request
    ) -> Any:
        """Find scenes by one of the suggested searches."""
        return words, *search(session, words, split, count, request)

    @page_only
    @tell_errors
    def search_alike(session: Session, split: str, count: float, request: gr.Request) -> Any:
        """Find scenes like the one that is open in Chat."""
        opened = session.require_opened()
        # The index keeps its scenes' embeddings: only a visitor's own needs the model.
        query = opened.origin or opened.scene
        return search(session, query, split, count, request)

    @page_only
    @tell_errors
    def search_file(
        session: Session,
        paths: list[str] | None,
        split: str,
        count: float,
        request: gr.Request,
    ) -> Any:
        """Find scenes like an uploaded one."""
        return search(session, open_uploads(paths), split, count, request)

    @page_only
    @tell_errors
    def search_again(session: Session, split: str, count: float, request: gr.Request) -> Any:
        """Do the last search again with another split or number of scenes."""
        return search(session, session.query, split, count, request)

    @tell_errors
    def open_result(session: Session, event: gr.SelectData) -> Any:
        """Open one of the scenes found in the Chat tab, chosen by its place in the list."""
        results = session.results or first
        opened = service.open_result(results[event.index])
        return gr.Tabs(selected="chat"), *show_opened(session, opened)

    @page_only
    @tell_errors
    def save_results_csv(session: Session) -> str:
        """Return the scenes found last as CSV."""
        return results_to_csv(session.results or first)

    @page_only
    @tell_errors
    def save_results_geojson(session: Session) -> str:
        """Return the scenes found last as a GeoJSON FeatureCollection."""
        return results_to_geojson(session.results or first)

    outputs = [session, found, gallery]
    searching = {"concurrency_limit": 4, "concurrency_id": "search", "show_progress": "minimal"}
    typed = [session, words, split, count]
    gr.on([words.submit, find.click], search_words, typed, outputs, api_name="search", **searching)
    for button in suggestions:
        button.click(
            search_suggestion,
            [session, button, split, count],
            [words, *outputs],
            api_visibility="private",
            **searching,
        )
    # A scene may have to wait for the model, and nobody's words should wait behind it.
    waiting = searching | {"concurrency_limit": None, "concurrency_id": "search-scene"}
    shown = [session, split, count]
    alike.click(search_alike, shown, outputs, api_name="search_alike", **waiting)
    upload.upload(
        search_file, [session, upload, split, count], outputs, api_name="search_file", **waiting
    )
    gr.on(
        [split.input, count.release],
        search_again,
        shown,
        outputs,
        api_name="search_again",
        **waiting,
    )
    gallery.select(
        open_result,
        session,
        [tabs, *chat.outputs],
        api_visibility="private",
        show_progress="minimal",
    )
    for button, action, name, kind in (
        (save_csv, save_results_csv, "scenes.csv", "text/csv"),
        (save_geojson, save_results_geojson, "scenes.geojson", "application/geo+json"),
    ):
        button.click(action, session, saved, show_progress="hidden").success(
            None, saved, None, js=SAVE_TEXT.format(name=name, kind=kind)
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


def describe_search(query: str | Scene | SceneResult | None, found: int, total: int) -> str:
    """Return HTML: one line that says what is shown below it."""
    if query is None:
        return f"{found} of the {total} scenes there are"
    if isinstance(query, str):
        return f"{found} scenes nearest to <strong>{html.escape(query)}</strong>"
    name = query.name if isinstance(query, Scene) else query.image_id
    return f"{found} scenes most like <strong>{html.escape(name)}</strong>"
