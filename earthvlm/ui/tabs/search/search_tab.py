"""The Search tab: find scenes by words, places or other scenes, open one in Chat, save the list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.ui.downloads import SAVE_BYTES, SAVE_TEXT
from earthvlm.ui.search_query import SORTS, SearchQuery
from earthvlm.ui.tabs.chat.chat_tab import ChatTab
from earthvlm.ui.tabs.search.filters import OptionFields, build_near_field, build_options
from earthvlm.ui.tabs.search.search_handlers import SearchHandlers
from earthvlm.ui.tabs.search.search_results import summarize_search
from earthvlm.ui.uploads import SCENE_FILES, take_uploads_only

RESULTS_SCRIPT = (Path(__file__).parents[2] / "search_results.js").read_text("utf-8")
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
QUIETLY: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}


@dataclass(frozen=True)
class SearchTab:
    """The components of the Search tab.

    by_chat_scene, by_file: search for scenes similar to one. with_words: whether these searches
    also match the words. summary: the query, the filters and any warning. marks_row: shown where
    scenes are marked; its buttons search by the marked scenes and clear the marks. save_buttons:
    by the format's name. saved: what the browser saves as a file.
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
    sort: gr.Dropdown
    marks_row: gr.Row
    marks: gr.HTML
    by_marks: gr.Button
    clear_marks: gr.Button
    results: gr.HTML
    save_buttons: dict[str, gr.Button]
    saved: gr.Textbox

    @property
    def outputs(self) -> list[Any]:
        """The components that a search returns values for."""
        return [self.session, self.summary, self.results, self.marks_row, self.marks]


def build_search_tab(session: gr.State, handlers: SearchHandlers) -> SearchTab:
    """Lay the components out, with the first scenes of the index."""
    index, results = handlers.service.index, handlers.first_results
    words, near, submit = _build_words()
    with gr.Row(elem_classes="questions"):
        suggestions = [gr.Button(text, size="sm", min_width=60) for text in SUGGESTED_SEARCHES]
    by_chat_scene, by_file, with_words = _build_similar()
    options = build_options(index.splits, near)
    with gr.Row(elem_classes="search-summary"):
        summary = gr.HTML(
            summarize_search(SearchQuery(), results, len(index), SceneFilter()),
            label="Summary of the results",
            elem_id="search-summary",
        )
        sort = gr.Dropdown(
            list(SORTS), value=SORTS[0], label="Sorted by", scale=0, min_width=170, elem_id="sort"
        )
    marks_row, marks, by_marks, clear_marks = _build_marks()
    shown = gr.HTML(
        "",  # drawn when the tab is opened, so that the page is light
        js_on_load=RESULTS_SCRIPT,
        label="Scenes found",
        elem_id="search-results",
    )
    with gr.Row(elem_classes="save-results"):
        save_buttons = {
            name: gr.Button(f"Save as {name}", size="sm", scale=0, min_width=110)
            for name in DOWNLOADS
        }
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
        sort=sort,
        marks_row=marks_row,
        marks=marks,
        by_marks=by_marks,
        clear_marks=clear_marks,
        results=shown,
        save_buttons=save_buttons,
        saved=gr.Textbox(visible=False),
    )


def _build_words() -> tuple[gr.Textbox, gr.Textbox, gr.Button]:
    with gr.Row(elem_classes="search-by"):
        words = gr.Textbox(
            "",
            label="What the scene shows",
            placeholder="a lake beside forest; leave something out with a minus: river -city",
            max_lines=1,
            scale=4,
            elem_id="search-words",
        )
        near = build_near_field()
        submit = gr.Button("Search", variant="primary", scale=0, min_width=120, elem_id="search")
    return words, near, submit


def _build_similar() -> tuple[gr.Button, gr.UploadButton, gr.Checkbox]:
    with gr.Row(elem_classes="search-similar"):
        by_chat_scene = gr.Button(
            "Like the scene in Chat", scale=0, min_width=200, elem_id="search-similar"
        )
        by_file = gr.UploadButton(
            "Like a file of yours …",
            file_count="multiple",
            file_types=SCENE_FILES,
            scale=0,
            min_width=180,
            elem_id="search-file",
        )
        take_uploads_only(by_file)
        with_words = gr.Checkbox(
            False, label="Match the words above, too", min_width=230, elem_id="with-words"
        )
    return by_chat_scene, by_file, with_words


def _build_marks() -> tuple[gr.Row, gr.HTML, gr.Button, gr.Button]:
    with gr.Row(visible=False, elem_id="marks", elem_classes="search-similar") as row:
        marks = gr.HTML(label="Marked scenes", min_width=150)
        by_marks = gr.Button(
            "More like these", variant="primary", size="sm", scale=0, min_width=150
        )
        clear = gr.Button("Clear the marks", size="sm", scale=0, min_width=130)
    return row, marks, by_marks, clear


def wire_search_tab(
    tab: SearchTab, handlers: SearchHandlers, tabs: gr.Tabs, chat: ChatTab, item: gr.Tab
) -> None:
    """Connect the components to their handlers; a result opens in the Chat tab.

    item: the tab that holds them, which shows the results when it is opened.
    """
    session, words, options, outputs = tab.session, tab.words, tab.options, tab.outputs
    searching: dict[str, Any] = {**SEARCHING, "show_progress_on": tab.summary}
    private = {**searching, "api_visibility": "private"}
    typed = [session, words, *options.inputs]
    similar = [words, tab.with_words, *options.inputs]
    gr.on(
        [words.submit, tab.submit.click, options.near.submit],
        handlers.search,
        typed,
        outputs,
        api_name="search",
        **searching,
    )
    for button in tab.suggestions:
        written = button.click(lambda text: text, button, words, **AT_ONCE)
        written.success(handlers.search, typed, outputs, **private)
    tab.by_chat_scene.click(
        handlers.search_similar,
        [session, *similar],
        outputs,
        api_name="search_similar",
        **searching,
    )
    tab.by_file.upload(
        handlers.search_file,
        [session, tab.by_file, *similar],
        outputs,
        api_name="search_file",
        **searching,
    )
    tab.by_marks.click(handlers.search_marked, [session, *similar], outputs, **private)
    chosen = [options.split.input, options.count.release, options.apply.click]
    typed_filters = [text.submit for text in options.texts if text is not options.near]
    gr.on(
        [*chosen, *typed_filters],
        handlers.search_again,
        [session, *options.inputs],
        outputs,
        api_name="search_again",
        **searching,
    )
    cleared = options.clear.click(
        lambda: ("",) * len(options.texts), None, options.texts, **AT_ONCE
    )
    search_again_after(cleared, tab, handlers)
    item.select(handlers.show_page, session, tab.results, **QUIETLY)
    _wire_results(tab, handlers, tabs, chat)
    _wire_downloads(tab, handlers)


def search_again_after(
    event: gr.events.Dependency, tab: SearchTab, handlers: SearchHandlers
) -> gr.events.Dependency:
    """Repeat the search when an event succeeded, and return the dependency that does."""
    inputs = [tab.session, *tab.options.inputs]
    return event.success(
        handlers.search_again, inputs, tab.outputs, show_progress_on=tab.summary, **PRIVATE
    )


def _wire_results(tab: SearchTab, handlers: SearchHandlers, tabs: gr.Tabs, chat: ChatTab) -> None:
    session, marks = tab.session, [tab.session, tab.marks_row, tab.marks]
    tab.results.select(
        handlers.open_result,
        session,
        [tabs, *chat.outputs],
        show_progress_on=tab.summary,
        **PRIVATE,
    )
    # A mark that is set while another is on its way would be lost otherwise.
    tab.results.mark(handlers.mark, session, marks, trigger_mode="multiple", **QUIETLY)
    tab.results.turn(handlers.turn_page, session, [session, tab.results], **QUIETLY)
    tab.clear_marks.click(handlers.clear_marks, session, [*marks, tab.results], **QUIETLY)
    tab.sort.input(handlers.sort, [session, tab.sort], [session, tab.results], **QUIETLY)


def _wire_downloads(tab: SearchTab, handlers: SearchHandlers) -> None:
    for format_name, button in tab.save_buttons.items():
        handler, name, kind = DOWNLOADS[format_name]
        saved = button.click(
            getattr(handlers, handler), tab.session, tab.saved, show_progress="hidden"
        )
        script = SAVE_TEXT if kind in TEXTS else SAVE_BYTES
        saved.success(None, tab.saved, None, js=script.format(name=name, kind=kind))
