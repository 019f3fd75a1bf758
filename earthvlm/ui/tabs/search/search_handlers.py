"""What happens when a visitor searches, opens a result or saves the results."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import gradio as gr

from earthvlm.search.index import SceneResult
from earthvlm.search.result_files import results_to_bytes
from earthvlm.serving.service import Example, SceneService
from earthvlm.ui.session import (
    SearchQuery,
    Session,
    check_index,
    identify_client,
    limit_memory,
    page_only,
)
from earthvlm.ui.tabs.chat.chat_handlers import Outputs
from earthvlm.ui.tabs.chat.scene_handlers import show_opened
from earthvlm.ui.tabs.search.filters import DEFAULT_RESULTS, SearchOptions, takes_options
from earthvlm.ui.tabs.search.search_results import ThumbnailFiles, summarize_search
from earthvlm.ui.uploads import open_uploads


class SearchHandlers:
    """The actions of the Search tab.

    A search returns values for `SearchTab.outputs`.
    """

    def __init__(self, service: SceneService) -> None:
        self.service = service
        self.thumbnails = ThumbnailFiles()
        self.first_results = service.index.browse(k=DEFAULT_RESULTS)

    @page_only
    @takes_options
    def search(
        self, session: Session, words: str, options: SearchOptions, request: gr.Request
    ) -> Outputs:
        """Find scenes by words, in their captions and in the scenes; empty words list all scenes.

        Dates are written as in 2020-06-30. source: text that a scene's source contains. bbox: west,
        south, east, north in degrees.
        """
        return self._search(session, words if words.strip() else None, options, request)

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
        query = _combine(words, with_words, example)
        return self._search(session, query, options, request)

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
        query = _combine(words, with_words, self.service.embed(scene, client))
        return self._search(session, query, options, request)

    @page_only
    @takes_options
    def search_again(
        self, session: Session, options: SearchOptions, request: gr.Request
    ) -> Outputs:
        """Repeat the last search with other filters or another number of results."""
        return self._search(session, session.query, options, request)

    def open_result(self, session: Session, event: gr.SelectData, request: gr.Request) -> Outputs:
        """Open a result in the Chat tab, chosen by its index in the gallery."""
        results = self.last_results(session)
        entry = results[check_index(event.index, len(results))]
        with self.service.opening(identify_client(session, request)):
            opened = self.service.open_result(entry)
            return gr.Tabs(selected="chat"), *show_opened(session, opened)

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
        where, client = options.read_filter(), identify_client(session, request)
        results = self.service.search(query, int(options.count), client, where)
        session.keep_search(query, results)
        limit_memory(session)
        summary = summarize_search(query, results, len(self.service.index), where)
        return session, summary, self.thumbnails.items(results)


def _to_base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _combine(words: str, with_words: bool, example: Example | SceneResult) -> SearchQuery:
    return (words, example) if with_words and words.strip() else example
