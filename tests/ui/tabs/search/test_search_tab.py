"""The Search tab's handlers without a browser: queries, filters, results and exports."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.search.index import SearchResults
from earthvlm.serving.service import Example, SceneService
from earthvlm.ui.session import Session
from earthvlm.ui.tabs.search.search_handlers import SearchHandlers
from earthvlm.ui.tabs.search.search_tab import build_search_tab
from tests.conftest import random_scene
from tests.support.world_index import make_world_index

REQUEST = SimpleNamespace(session_hash="visitor", client=None)
OPTIONS = ("all", 4, "", "", "", "")
BRIDGE = SimpleNamespace(config=SimpleNamespace(training_tiles=None))
VECTOR = np.ones(384, np.float32)


class RecordingService(SceneService):
    """A service that notes what is searched for, and returns the first scenes."""

    def __init__(self, index) -> None:
        super().__init__(BRIDGE, index)
        self.searches: list[tuple] = []

    def search(self, query, k, client, where=None):
        self.searches.append((query, k, where))
        return SearchResults(self.index.browse(k=k, where=where))

    def embed(self, scene, client):
        return Example(scene.name, VECTOR)


@pytest.fixture
def service(tmp_path) -> RecordingService:
    return RecordingService(make_world_index(tmp_path))


@pytest.fixture
def handlers(service: RecordingService) -> SearchHandlers:
    return SearchHandlers(service)


def test_search_passes_words_count_and_filter(service, handlers):
    session = Session()
    options = ("tiles", 4, "2020-01-01", "", "", "11, 51, 15, 53")
    _, summary, items = handlers.search(session, "a lake", *options, REQUEST)
    (query, k, where), *_ = service.searches
    assert (query, k, where.split, where.bbox) == ("a lake", 4, "tiles", (11, 51, 15, 53))
    assert session.query == "a lake" and len(session.results) == len(items) == 2
    assert summary.startswith("2 scenes closest to <strong>a lake</strong>")


def test_empty_words_list_all_scenes(service, handlers):
    handlers.search(Session(), " ", *OPTIONS, REQUEST)
    assert service.searches == [(None, 4, SceneFilter())]


def test_similar_search_uses_the_stored_embedding_of_an_entry(service, handlers):
    entry = service.index.get("tile_03")
    session = Session(opened=service.open(random_scene(), entry))
    handlers.search_similar(session, "a lake", False, *OPTIONS, REQUEST)
    handlers.search_similar(session, "a lake", True, *OPTIONS, REQUEST)
    handlers.search_similar(session, " ", True, *OPTIONS, REQUEST)
    assert [query for query, _, _ in service.searches] == [entry, ("a lake", entry), entry]


def test_similar_search_embeds_a_visitors_scene(service, handlers):
    session = Session()
    with pytest.raises(ValueError, match="No scene is open"):
        handlers.search_similar(session, "", False, *OPTIONS, REQUEST)
    session.opened = service.open(random_scene())
    handlers.search_similar(session, "", False, *OPTIONS, REQUEST)
    assert service.searches[0][0].vector is VECTOR


def test_search_again_keeps_the_query(service, handlers):
    session = Session()
    handlers.search(session, "a lake", *OPTIONS, REQUEST)
    handlers.search_again(session, "tiles", 8, "", "", "", "", REQUEST)
    assert service.searches[1] == ("a lake", 8, SceneFilter("tiles"))
    with pytest.raises(ValueError, match="no date as in"):
        handlers.search_again(session, "all", 8, "1.6.2017", "", "", "", REQUEST)
    assert len(service.searches) == 2 and session.query == "a lake"


def test_results_at_the_start_can_be_saved(handlers):
    assert len(handlers.save_results_csv(Session()).splitlines()) == 8
    with pytest.raises(ValueError, match="no results to save"):
        handlers.save_results_geojson(Session(results=()))


@pytest.mark.filterwarnings("ignore::UserWarning:gradio")
def test_tab_offers_the_splits_and_first_results(service, handlers):
    with gr.Blocks():
        tab = build_search_tab(gr.State(Session()), handlers)
    assert [value for _, value in tab.options.split.choices] == ["all", "examples", "tiles"]
    assert len(tab.gallery.value) == 7
    assert tab.summary.value == "7 of 7 scenes"
