"""The Search tab: find scenes by words or by another scene, open one in Chat, save the list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.ui.downloads import SAVE_BYTES, SAVE_TEXT
from earthvlm.ui.tabs.chat.chat_tab import ChatTab
from earthvlm.ui.tabs.search.filters import OptionFields, build_options
from earthvlm.ui.tabs.search.search_handlers import SearchHandlers
from earthvlm.ui.tabs.search.search_results import summarize_search
from earthvlm.ui.uploads import SCENE_FILES, take_uploads_only

SUGGESTED_SEARCHES = (
    "a lake beside forest",
    "a village among fields",
    "dense forest",
    "open water",
    "haze over the land",
)
# By the name on a button: a method of SearchHandlers, the file's name and its media type.
TEXTS = ("text/csv", "application/geo+json")
DOWNLOADS = {
    "CSV": ("save_results_csv", "scenes.csv", TEXTS[0]),
    "GeoJSON": ("save_results_geojson", "scenes.geojson", TEXTS[1]),
    "GeoPackage": ("save_results_geopackage", "scenes.gpkg", "application/geopackage+sqlite3"),
    "GeoParquet": (
        *("save_results_geoparquet", "scenes.parquet", "application/vnd.apache.parquet"),
    ),
}
# Requests wait in the service's queues, where no address can keep others out.
SEARCHING: dict[str, Any] = {"concurrency_limit": None, "show_progress": "minimal"}
PRIVATE: dict[str, Any] = {"api_visibility": "private", **SEARCHING}
AT_ONCE: dict[str, Any] = {"api_visibility": "private", "queue": False}


@dataclass(frozen=True)
class SearchTab:
    """The components of the Search tab.

    by_chat_scene, by_file: search for scenes similar to one. with_words: whether these searches
    also match the words. summary: the query, the filters and any warning. save_buttons: by the
    format's name. saved: what the browser saves as a file.
    """

    session: gr.State
    words: gr.Textbox
    submit: gr.Button
    suggestions: list[gr.Button]
    options: OptionFields
    by_chat_scene: gr.Button
    by_file: gr.UploadButton
    with_words: gr.Checkbox
    summary: gr.HTML
    save_buttons: dict[str, gr.Button]
    gallery: gr.Gallery
    saved: gr.Textbox

    @property
    def outputs(self) -> list[gr.components.Component]:
        """The components that a search returns values for."""
        return [self.session, self.summary, self.gallery]


def build_search_tab(session: gr.State, handlers: SearchHandlers) -> SearchTab:
    """Lay the components out, with the first scenes of the index."""
    index, results = handlers.service.index, handlers.first_results
    words, submit = _build_words()
    with gr.Row(elem_classes="questions"):
        suggestions = [gr.Button(text, size="sm", min_width=60) for text in SUGGESTED_SEARCHES]
    by_chat_scene, by_file, with_words = _build_similar()
    options = build_options(index.splits)
    with gr.Row(elem_classes="search-summary"):
        summary = gr.HTML(
            summarize_search(None, results, len(index), SceneFilter()),
            label="Summary of the results",
            elem_id="search-summary",
        )
        save_buttons = {
            name: gr.Button(f"Save as {name}", size="sm", scale=0, min_width=110)
            for name in DOWNLOADS
        }
    gallery = gr.Gallery(
        handlers.thumbnails.items(results),
        label="Results: cosine similarity of caption and scene to the query, and the rank of each. "
        "Click a scene to open it in Chat.",
        columns=4,
        height="auto",
        allow_preview=False,
        interactive=False,
        object_fit="cover",
        buttons=[],
        elem_id="search-results",
    )
    return SearchTab(
        session=session,
        words=words,
        submit=submit,
        suggestions=suggestions,
        options=options,
        by_chat_scene=by_chat_scene,
        by_file=by_file,
        with_words=with_words,
        summary=summary,
        save_buttons=save_buttons,
        gallery=gallery,
        saved=gr.Textbox(visible=False),
    )


def _build_words() -> tuple[gr.Textbox, gr.Button]:
    with gr.Row(elem_classes="search-by"):
        words = gr.Textbox(
            "",
            label="What the scene shows",
            placeholder="a lake beside forest; a minus excludes a word: river -city",
            max_lines=1,
            scale=4,
            elem_id="search-words",
        )
        submit = gr.Button("Search", variant="primary", scale=0, min_width=120, elem_id="search")
    return words, submit


def _build_similar() -> tuple[gr.Button, gr.UploadButton, gr.Checkbox]:
    with gr.Row(elem_classes="search-similar"):
        by_chat_scene = gr.Button(
            "Similar to the scene in Chat", scale=0, min_width=240, elem_id="search-similar"
        )
        by_file = gr.UploadButton(
            "Similar to a file …",
            file_count="multiple",
            file_types=SCENE_FILES,
            scale=0,
            min_width=160,
            elem_id="search-file",
        )
        take_uploads_only(by_file)
        with_words = gr.Checkbox(
            False, label="Also match the words above", min_width=230, elem_id="with-words"
        )
    return by_chat_scene, by_file, with_words


def wire_search_tab(tab: SearchTab, handlers: SearchHandlers, tabs: gr.Tabs, chat: ChatTab) -> None:
    """Connect the components to their handlers; a result opens in the Chat tab."""
    session, words, options, outputs = tab.session, tab.words, tab.options, tab.outputs
    typed = [session, words, *options.inputs]
    similar = [words, tab.with_words, *options.inputs]
    gr.on(
        [words.submit, tab.submit.click],
        handlers.search,
        typed,
        outputs,
        api_name="search",
        **SEARCHING,
    )
    for button in tab.suggestions:
        written = button.click(lambda text: text, button, words, **AT_ONCE)
        written.success(handlers.search, typed, outputs, **PRIVATE)
    tab.by_chat_scene.click(
        handlers.search_similar,
        [session, *similar],
        outputs,
        api_name="search_similar",
        **SEARCHING,
    )
    tab.by_file.upload(
        handlers.search_file,
        [session, tab.by_file, *similar],
        outputs,
        api_name="search_file",
        **SEARCHING,
    )
    chosen = [options.split.input, options.count.release, options.apply.click]
    gr.on(
        [*chosen, *(text.submit for text in options.texts)],
        handlers.search_again,
        [session, *options.inputs],
        outputs,
        api_name="search_again",
        **SEARCHING,
    )
    count = len(options.texts)
    cleared = options.clear.click(lambda: [""] * count, None, options.texts, **AT_ONCE)
    search_again_after(cleared, tab, handlers)
    opened = [tabs, *chat.outputs]
    tab.gallery.select(handlers.open_result, session, opened, **PRIVATE)
    _wire_downloads(tab, handlers)


def search_again_after(event: Any, tab: SearchTab, handlers: SearchHandlers) -> Any:
    """Repeat the last search after an event succeeded, and return the dependency that does."""
    inputs = [tab.session, *tab.options.inputs]
    return event.success(handlers.search_again, inputs, tab.outputs, **PRIVATE)


def _wire_downloads(tab: SearchTab, handlers: SearchHandlers) -> None:
    for format_name, button in tab.save_buttons.items():
        handler, name, kind = DOWNLOADS[format_name]
        saved = button.click(
            getattr(handlers, handler), tab.session, tab.saved, show_progress="hidden"
        )
        script = SAVE_TEXT if kind in TEXTS else SAVE_BYTES
        saved.success(None, tab.saved, None, js=script.format(name=name, kind=kind))
