"""The Search tab's handlers without a browser: queries, filters, results and exports."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.serving.service import Example, SceneService
from earthvlm.ui.session import Session
from earthvlm.ui.tabs.search.search_handlers import SearchHandlers
from earthvlm.ui.tabs.search.search_tab import build_search_tab
from tests.conftest import random_scene
from tests.support.world_index import make_world_index

REQUEST = SimpleNamespace(session_hash="visitor", client=None)
OPTIONS = ("all", 4, "", "", "", "", "")
BRIDGE = SimpleNamespace(config=SimpleNamespace(training_tiles=None))
VECTOR = np.ones(384, np.float32)


class RecordingService(SceneService):
    """A service that notes what is searched for, and returns the first scenes."""

    def __init__(self, index) -> None:
        super().__init__(BRIDGE, index)
        self.searches: list[tuple] = []

    def search(self, query, k, client, where=None, unlike=()):
        self.searches.append((query, k, where))
        self.unlike = unlike
        return self.index.browse(k=k, where=where)

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
    options = ("tiles", 4, "2020-01-01", "", "", "11, 51, 15, 53", "")
    _, summary, shown, *_ = handlers.search(session, "a lake", *options, REQUEST)
    (query, k, where), *_ = service.searches
    assert (query, k, where.split, where.bbox) == (["a lake"], 4, "tiles", (11, 51, 15, 53))
    assert session.query.words == "a lake"
    assert len(session.results) == shown.count("<li") == 2
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
    assert [query for query, _, _ in service.searches] == [
        [entry],
        ["a lake", entry],
        [entry],
    ]


def test_similar_search_embeds_a_visitors_scene(service, handlers):
    session = Session()
    with pytest.raises(ValueError, match="No scene is open"):
        handlers.search_similar(session, "", False, *OPTIONS, REQUEST)
    session.opened = service.open(random_scene())
    handlers.search_similar(session, "", False, *OPTIONS, REQUEST)
    assert service.searches[0][0][0].vector is VECTOR


def test_search_again_keeps_the_query(service, handlers):
    session = Session()
    handlers.search(session, "a lake", *OPTIONS, REQUEST)
    handlers.search_again(session, "tiles", 8, "", "", "", "", "", REQUEST)
    assert service.searches[1] == (["a lake"], 8, SceneFilter("tiles"))
    with pytest.raises(ValueError, match="no date as in"):
        handlers.search_again(session, "all", 8, "1.6.2017", "", "", "", "", REQUEST)
    assert len(service.searches) == 2 and session.query.words == "a lake"


def test_results_at_the_start_can_be_saved(handlers):
    assert len(handlers.save_results_csv(Session()).splitlines()) == 8
    with pytest.raises(ValueError, match="no results to save"):
        handlers.save_results_geojson(Session(results=()))


@pytest.mark.filterwarnings("ignore::UserWarning:gradio")
def test_tab_offers_the_splits_and_first_results(service, handlers):
    with gr.Blocks():
        tab = build_search_tab(gr.State(Session()), handlers)
    assert [value for _, value in tab.options.split.choices] == ["all", "examples", "tiles"]
    assert handlers.show_page(Session()).count("<li") == 7
    assert tab.summary.value == "7 of 7 scenes"


def test_place_in_the_words_becomes_a_filter(service, handlers):
    session = Session()
    _, summary, *_ = handlers.search(session, "a lake near Berlin", *OPTIONS, REQUEST)
    query, _, where = service.searches[0]
    assert query == ["a lake"] and where.bbox == pytest.approx((11.9, 51.6, 14.9, 53.4), abs=0.1)
    assert summary.startswith(
        "3 scenes closest to <strong>a lake</strong>, within 100 km of Berlin"
    )
    for words in ("a lake near fields", "a lake near Nowhereville", "near"):
        handlers.search(session, words, *OPTIONS, REQUEST)
        assert service.searches[-1] == ([words], 4, SceneFilter())
    _, summary, *_ = handlers.search(session, "", *OPTIONS[:-1], "Porto", REQUEST)
    assert "No scene matches the filters: within 100 km of Porto, Portugal" in summary
    assert summary.endswith(
        "The nearest scene is 1,973 km away, near Zerbst, Germany"
        '<p class="warning">1 scene without a place was left out.</p>'
    )
    with pytest.raises(ValueError, match="not both"):
        handlers.search(session, "", "all", 4, "", "", "", "4, 47, 16, 55", "Porto", REQUEST)
    with pytest.raises(ValueError, match="no town of more than 15,000"):
        handlers.search(session, "", *OPTIONS[:-1], "Nowhereville", REQUEST)


def test_marked_scenes_are_searched_for_and_avoided(service, handlers):
    session = Session()
    with pytest.raises(ValueError, match="mark a scene first"):
        handlers.search_marked(session, "", False, *OPTIONS, REQUEST)
    for index, wanted in ((0, True), (1, True), (2, False), (3, True), (3, None)):
        _, row, text = handlers.mark(session, SimpleNamespace(index=index, wanted=wanted))
    assert row.visible and "2 wanted, 1 unwanted" in text
    _, summary, shown, *_ = handlers.search_marked(session, "a lake", True, *OPTIONS, REQUEST)
    words, *like = service.searches[-1][0]
    assert words == "a lake" and [each.image_id for each in like] == ["tile_00", "tile_01"]
    assert [each.image_id for each in service.unlike] == ["tile_02"]
    assert "similar to 2 wanted scenes and unlike 1 unwanted scene" in summary
    assert shown.count('aria-pressed="true"') == 3
    handlers.clear_marks(session)
    handlers.mark(session, SimpleNamespace(index=1, wanted=False))
    with pytest.raises(ValueError, match="mark a wanted one, too"):
        handlers.search_marked(session, " ", True, *OPTIONS, REQUEST)
    with pytest.raises(ValueError, match="no scene at"):
        handlers.mark(session, SimpleNamespace(index=99, wanted=True))


def test_results_are_sorted_and_turned(handlers):
    session = Session()
    _, shown = handlers.sort(session, "place, A to Z")
    assert session.results[-1].longitude is None and shown.count("<li") == 7
    with pytest.raises(ValueError, match="sorted by best match"):
        handlers.sort(session, "size")
    session.results = tuple(session.results * 3)
    _, shown = handlers.turn_page(session, SimpleNamespace(page=1))
    assert "13 to 21 of 21" in shown and 'data-index="12"' in shown
    with pytest.raises(ValueError, match="no scene at"):
        handlers.turn_page(session, SimpleNamespace(page=2))
