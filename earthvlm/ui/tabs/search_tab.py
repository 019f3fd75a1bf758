"""The Search tab: find scenes by words or by another scene, and take the list home."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.search.index import SceneResult
from earthvlm.serving.exports import results_to_csv, results_to_geojson
from earthvlm.serving.service import Example, SceneService
from earthvlm.ui.downloads import SAVE_TEXT
from earthvlm.ui.session import (
    SearchQuery,
    Session,
    check_index,
    identify_client,
    limit_memory,
    page_only,
)
from earthvlm.ui.tabs.chat_tab import ChatTab, show_opened
from earthvlm.ui.tabs.filters import ALL_SPLITS, add_filters, read_filter
from earthvlm.ui.tabs.search_results import ThumbnailFiles, describe_result, describe_search
from earthvlm.ui.uploads import SCENE_FILES, open_uploads, take_uploads_only

SEARCHES = (
    "a lake beside forest",
    "a village among fields",
    "dense forest",
    "open water",
    "haze over the land",
)
MOST_RESULTS = 96
FIRST_RESULTS = 12


@dataclass(frozen=True)
class SearchTab:
    """What the map needs of the Search tab.

    bbox: the field that holds the box. again: does the last search again after an event, as where
    the box was changed, and returns what ends then.
    """

    bbox: gr.Textbox
    again: Callable[[Any], Any]


def add_search_tab(
    session: gr.State, service: SceneService, tabs: gr.Tabs, chat: ChatTab
) -> SearchTab:
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
    with gr.Row(elem_classes="alike"):
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
        with_words = gr.Checkbox(
            False, label="and with the words above", min_width=200, elem_id="with-words"
        )
    filters = add_filters()
    first, thumbnails = index.browse(k=FIRST_RESULTS), ThumbnailFiles()
    with gr.Row(elem_classes="found"):
        found = gr.HTML(
            describe_search(None, first, len(index), SceneFilter()),
            label="What was found",
            elem_id="found",
        )
        save_csv = gr.Button("Save as CSV", size="sm", scale=0, min_width=110)
        save_geojson = gr.Button("Save as GeoJSON", size="sm", scale=0, min_width=130)
    gallery = gr.Gallery(
        [(thumbnails.path(result), describe_result(result)) for result in first],
        label="Scenes, with cosine similarity and rank in each comparison: click one to open it",
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
        query: SearchQuery,
        count: float,
        where: SceneFilter,
        request: gr.Request,
    ) -> Any:
        k = max(1, min(int(count), MOST_RESULTS))
        results = service.search(query, k, identify_client(session, request), where)
        session.query, session.results = query, tuple(results)
        limit_memory(session)
        pictures = [(thumbnails.path(result), describe_result(result)) for result in results]
        found = describe_search(query, results, len(service.index), where)
        if results.warning:
            found += f'<p class="notice">{html.escape(results.warning)}</p>'
        return session, found, pictures

    @page_only
    def search_words(
        session: Session,
        words: str,
        split: str,
        count: float,
        first_date: str,
        last_date: str,
        source: str,
        bbox: str,
        request: gr.Request,
    ) -> Any:
        """Find scenes by words, in captions and in the scenes themselves; no words lists all.

        Dates as in 2020-06-30; source: words it contains; bbox: west, south, east, north in
        degrees.
        """
        where = read_filter(first_date, last_date, source, bbox, split)
        return search(session, words if words.strip() else None, count, where, request)

    @page_only
    def search_alike(
        session: Session,
        words: str,
        with_words: bool,
        split: str,
        count: float,
        first_date: str,
        last_date: str,
        source: str,
        bbox: str,
        request: gr.Request,
    ) -> Any:
        """Find scenes like the one that is open in Chat, with words too where that is wanted."""
        opened = session.require_opened()
        where = read_filter(first_date, last_date, source, bbox, split)
        # The index keeps its scenes' embeddings: only a visitor's own needs the model.
        example = opened.entry or service.embed(opened.scene, identify_client(session, request))
        query = join(words, with_words, example)
        return search(session, query, count, where, request)

    @page_only
    def search_file(
        session: Session,
        paths: list[str] | None,
        words: str,
        with_words: bool,
        split: str,
        count: float,
        first_date: str,
        last_date: str,
        source: str,
        bbox: str,
        request: gr.Request,
    ) -> Any:
        """Find scenes like an uploaded one, with words too where that is wanted."""
        where = read_filter(first_date, last_date, source, bbox, split)
        client = identify_client(session, request)
        with service.opening(client) as read:
            scene = open_uploads(paths, read)
        query = join(words, with_words, service.embed(scene, client))
        return search(session, query, count, where, request)

    @page_only
    def search_again(
        session: Session,
        split: str,
        count: float,
        first_date: str,
        last_date: str,
        source: str,
        bbox: str,
        request: gr.Request,
    ) -> Any:
        """Do the last search again with other filters or another number of scenes."""
        where = read_filter(first_date, last_date, source, bbox, split)
        return search(session, session.query, count, where, request)

    def join(words: str, with_words: bool, example: Example | SceneResult) -> SearchQuery:
        return (words, example) if with_words and words.strip() else example

    def last_results(session: Session) -> Sequence[SceneResult]:
        """What the page shows: the scenes found last, which may be none, or those it began with."""
        return first if session.results is None else session.results

    def open_result(session: Session, event: gr.SelectData, request: gr.Request) -> Any:
        """Open one of the scenes found in the Chat tab, chosen by its place in the list."""
        results = last_results(session)
        place = check_index(event.index, len(results))
        with service.opening(identify_client(session, request)):
            opened = service.open_result(results[place])
            return gr.Tabs(selected="chat"), *show_opened(session, opened)

    @page_only
    def save_results_csv(session: Session) -> str:
        """Return the scenes found last as CSV."""
        return results_to_csv(last_results(session))

    @page_only
    def save_results_geojson(session: Session) -> str:
        """Return the scenes found last as a GeoJSON FeatureCollection."""
        return results_to_geojson(last_results(session))

    outputs = [session, found, gallery]
    shown = [session, split, count, *filters.inputs]
    # Those who wait do so in the service's lines, where no address keeps others out.
    searching = {"concurrency_limit": None, "show_progress": "minimal"}
    private = {"api_visibility": "private"}

    def again(event: Any) -> Any:
        return event.success(search_again, shown, outputs, **private, **searching)

    typed, joined = [session, words, *shown[1:]], [words, with_words, *shown[1:]]
    gr.on([words.submit, find.click], search_words, typed, outputs, api_name="search", **searching)
    for button in suggestions:
        written = button.click(lambda text: text, button, words, queue=False, **private)
        written.success(search_words, typed, outputs, **private, **searching)
    alike.click(search_alike, [session, *joined], outputs, api_name="search_alike", **searching)
    like_file = [session, upload, *joined]
    upload.upload(search_file, like_file, outputs, api_name="search_file", **searching)
    changed = [split.input, count.release, filters.apply.click]
    gr.on(
        [*changed, *(field.submit for field in filters.inputs)],
        search_again,
        shown,
        outputs,
        api_name="search_again",
        **searching,
    )
    again(filters.clear.click(lambda: [""] * 4, None, filters.inputs, queue=False, **private))
    gallery.select(
        open_result,
        session,
        [tabs, *chat.outputs],
        api_visibility="private",
        **searching,
    )
    for button, action, name, kind in (
        (save_csv, save_results_csv, "scenes.csv", "text/csv"),
        (save_geojson, save_results_geojson, "scenes.geojson", "application/geo+json"),
    ):
        button.click(action, session, saved, show_progress="hidden").success(
            None, saved, None, js=SAVE_TEXT.format(name=name, kind=kind)
        )
    return SearchTab(filters.bbox, again)
