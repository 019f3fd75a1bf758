"""What happens when a visitor searches, marks or opens a result, or saves the results."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import gradio as gr
import numpy as np

from earthvlm.scenes.places.gazetteer import Place, describe_nearest, find_place
from earthvlm.search.index import SceneIndex, SceneResult
from earthvlm.search.result_files import results_to_bytes
from earthvlm.serving.service import Example, SceneService
from earthvlm.ui.search_query import SORTS, SearchQuery
from earthvlm.ui.session import Session, check_index, identify_client, limit_memory, page_only
from earthvlm.ui.tabs.chat.chat_handlers import Outputs
from earthvlm.ui.tabs.chat.scene_handlers import show_opened
from earthvlm.ui.tabs.search.filters import DEFAULT_RESULTS, SearchOptions, takes_options
from earthvlm.ui.tabs.search.search_results import (
    PAGE_SIZE,
    Thumbnails,
    show_results,
    sort_results,
    summarize_search,
)
from earthvlm.ui.uploads import open_uploads

MAX_MARKS = 100
NOTHING_MARKED = "mark a scene first: thumbs up for more like it, thumbs down for less"
# "a lake near Porto" names a place if the last words begin with a capital and a town is called so.
_NEAR = re.compile(r"^(.*?)\s*\bnear\s+([^\W\d_a-z][^\"]*)$", re.DOTALL)


class SearchHandlers:
    """The actions of the Search tab.

    A search returns values for `SearchTab.outputs`.
    """

    def __init__(self, service: SceneService) -> None:
        self.service = service
        self.thumbnails = Thumbnails()
        self._numbers = count()
        self.first_results = service.index.browse(k=DEFAULT_RESULTS)

    @page_only
    @takes_options
    def search(
        self, session: Session, words: str, options: SearchOptions, request: gr.Request
    ) -> Outputs:
        """Find scenes by words, in their captions and in the scenes; empty words list all scenes.

        Dates are written as in 2020-06-30. source: text that a scene's source contains. bbox: west,
        south, east, north in degrees. near: the name of a town.
        """
        return self._search(session, SearchQuery(words.strip()), options, request)

    @page_only
    @takes_options
    def search_similar(
        self,
        session: Session,
        words: str,
        with_words: bool,
        options: SearchOptions,
        request: gr.Request,
    ) -> Outputs:
        """Find scenes similar to the one that is open in Chat, and that match words if asked to."""
        opened = session.require_opened()
        options.read_filter()  # raises for an invalid filter before the model runs
        # The index stores the embeddings of its own scenes; a visitor's scene needs the model.
        example = opened.entry or self.service.embed(
            opened.scene, identify_client(session, request)
        )
        return self._search(session, _combine(words, with_words, example), options, request)

    @page_only
    @takes_options
    def search_file(
        self,
        session: Session,
        paths: list[str] | None,
        words: str,
        with_words: bool,
        options: SearchOptions,
        request: gr.Request,
    ) -> Outputs:
        """Find scenes similar to an uploaded one, and that match words if asked to."""
        options.read_filter()  # raises for an invalid filter before the file is read
        client = identify_client(session, request)
        with self.service.opening(client) as read:
            scene = open_uploads(paths, read)
        example = self.service.embed(scene, client)
        return self._search(session, _combine(words, with_words, example), options, request)

    @page_only
    @takes_options
    def search_marked(
        self,
        session: Session,
        words: str,
        with_words: bool,
        options: SearchOptions,
        request: gr.Request,
    ) -> Outputs:
        """Find scenes like those marked as wanted, and unlike those marked as unwanted."""
        if not session.marks:
            raise ValueError(NOTHING_MARKED)
        marked = {name: self.service.index.get(name) for name in session.marks}
        like, unlike = (
            tuple(_strip(marked[name]) for name, wanted in session.marks.items() if wanted is kind)
            for kind in (True, False)
        )
        text = words.strip() if with_words or not like else ""
        if not like and not text:
            raise ValueError(
                "only unwanted scenes are marked; mark a wanted one, too (thumbs up), or type words"
            )
        return self._search(session, SearchQuery(text, like, unlike), options, request)

    @page_only
    @takes_options
    def search_again(
        self, session: Session, options: SearchOptions, request: gr.Request
    ) -> Outputs:
        """Repeat the last search with other filters or another number of results."""
        return self._search(session, session.query, options, request)

    def search_like_row(
        self, session: Session, row: object, options: SearchOptions, request: gr.Request
    ) -> Outputs:
        """Find scenes similar to the one in a row of the index, which was chosen on the map."""
        entry = self.service.index.browse_rows([check_index(row, len(self.service.index))])[0]
        return self._search(session, SearchQuery(like=(_strip(entry),)), options, request)

    def open_result(self, session: Session, event: gr.SelectData, request: gr.Request) -> Outputs:
        """Open a result in the Chat tab, chosen by its index among the results."""
        with self.service.opening(identify_client(session, request)):
            opened = self.service.open_result(self.chosen(session, event.index))
            return gr.Tabs(selected="chat"), *show_opened(session, opened)

    def mark(self, session: Session, event: gr.EventData) -> Outputs:
        """Mark a result as wanted or unwanted, or take the mark away; returns the bar of marks."""
        name = self.chosen(session, getattr(event, "index", None)).image_id
        wanted = getattr(event, "wanted", None)
        session.marks.pop(name, None)
        if isinstance(wanted, bool):
            if len(session.marks) >= MAX_MARKS:
                raise ValueError(f"at most {MAX_MARKS} scenes can be marked; clear the marks first")
            session.marks[name] = wanted
        return session, *show_marks(session)

    def clear_marks(self, session: Session) -> Outputs:
        """Take all marks away."""
        session.marks.clear()
        return session, *show_marks(session), self._show(session)

    def show_page(self, session: Session) -> str:
        """Show the page of results that the session is at, when the tab is opened."""
        return self._show(session)

    def turn_page(self, session: Session, event: gr.EventData) -> Outputs:
        """Show another page of the results."""
        last = max(len(self.last_results(session)) - 1, 0) // PAGE_SIZE
        session.page = check_index(getattr(event, "page", None), last + 1)
        return session, self._show(session)

    def sort(self, session: Session, order: str) -> Outputs:
        """Show the results in another order, from the first page."""
        if order not in SORTS:
            raise ValueError(f"results are sorted by {', '.join(SORTS)}")
        session.sort, session.page = order, 0
        session.results = tuple(map(_strip, sort_results(self.last_results(session), order)))
        return session, self._show(session)

    @page_only
    def save_results_csv(self, session: Session) -> str:
        """Return the results of the last search as CSV."""
        return results_to_bytes(self.last_results(session), ".csv").decode()

    @page_only
    def save_results_geojson(self, session: Session) -> str:
        """Return the results of the last search as a GeoJSON FeatureCollection."""
        return results_to_bytes(self.last_results(session), ".geojson").decode()

    @page_only
    def save_results_geopackage(self, session: Session) -> str:
        """Return the results of the last search as a GeoPackage, in base64."""
        return _to_base64(results_to_bytes(self.last_results(session), ".gpkg"))

    @page_only
    def save_results_geoparquet(self, session: Session) -> str:
        """Return the results of the last search as GeoParquet, in base64."""
        return _to_base64(results_to_bytes(self.last_results(session), ".parquet"))

    def last_results(self, session: Session) -> Sequence[SceneResult]:
        """Return the results that the page shows: of the last search, or those at the start."""
        return self.first_results if session.results is None else session.results

    def _search(
        self, session: Session, query: SearchQuery, options: SearchOptions, request: gr.Request
    ) -> Outputs:
        shown, query, options = query, *_find_place_in_words(query, options)
        where, near = options.read_filter(), options.read_place()
        client, index = identify_client(session, request), self.service.index
        results = self.service.search(query.parts, int(options.count), client, where, query.unlike)
        nearest = _tell_nearest(index, near) if near is not None and not results else ""
        summary = summarize_search(query, results, len(index), where, near, nearest)
        results[:] = sort_results(results, session.sort)
        session.keep_search(shown, results)
        limit_memory(session)
        return session, summary, self._show(session), *show_marks(session)

    def _show(self, session: Session) -> str:
        """Return HTML of the page of results that the session is at."""
        results, index = list(self.last_results(session)), self.service.index
        first = session.page * PAGE_SIZE
        # The session keeps no thumbnails.
        for number in range(first, min(first + PAGE_SIZE, len(results))):
            entry = index.get(results[number].image_id)
            results[number] = replace(results[number], thumbnail=entry.thumbnail)
        shown = show_results(results, session.page, self.thumbnails, session.marks)
        # Gradio draws only what differs, and the browser has pressed buttons since.
        return f"{shown}<!-- {next(self._numbers)} -->"

    def chosen(self, session: Session, index: object) -> SceneResult:
        """Return a result by its index. Raises ValueError for any other index."""
        results = self.last_results(session)
        return results[check_index(index, len(results))]


def show_marks(session: Session) -> Outputs:
    """Return values for the row of marks, which is hidden where there are none, and its text."""
    liked = sum(session.marks.values())
    text = f"<p>Marked: {liked} wanted, {len(session.marks) - liked} unwanted</p>"
    return gr.Row(visible=bool(session.marks)), text


def _find_place_in_words(
    query: SearchQuery, options: SearchOptions
) -> tuple[SearchQuery, SearchOptions]:
    """Take "near Porto" out of the words as a filter, if no place or area was given."""
    found = _NEAR.match(query.words)
    if found is None or options.near.strip() or options.bbox.strip():
        return query, options
    try:
        find_place(found[2])
    except ValueError:
        return query, options
    return replace(query, words=found[1].strip()), replace(options, near=found[2])


def _tell_nearest(index: SceneIndex, near: Place) -> str:
    """Say where the scene nearest to a place is, for a search that found none near it."""
    longitudes, latitudes = (
        index.table.column(name).to_numpy() for name in ("longitude", "latitude")
    )
    rows = np.flatnonzero(~(np.isnan(longitudes) | np.isnan(latitudes)))
    if not len(rows):
        return ". No scene of this collection tells its place"
    distances = near.distances_km(longitudes[rows], latitudes[rows])
    row = rows[distances.argmin()]
    there = describe_nearest(float(longitudes[row]), float(latitudes[row]))
    return f". The nearest scene is {distances.min():,.0f} km away, {there}"


def _strip(result: SceneResult) -> SceneResult:
    return replace(result, thumbnail=None)


def _to_base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _combine(words: str, with_words: bool, example: Example | SceneResult) -> SearchQuery:
    return SearchQuery(words.strip() if with_words else "", (example,))
