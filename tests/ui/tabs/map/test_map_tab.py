"""The Map tab without a browser: its summary, and the events of its map."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest

from earthvlm.serving.map_data import OWN_SCENE, map_scenes
from earthvlm.serving.service import OpenScene, SceneService
from earthvlm.ui.search_query import SearchQuery
from earthvlm.ui.session import Session
from earthvlm.ui.tabs.map.map_component import get_clicked_scene, get_drawn_bbox
from earthvlm.ui.tabs.map.map_tab import MapHandlers, summarize_map
from earthvlm.ui.tabs.search.search_handlers import SearchHandlers
from tests.conftest import random_scene
from tests.support.world_index import make_world_index


@pytest.fixture
def handlers(tmp_path) -> MapHandlers:
    service = SceneService(None, make_world_index(tmp_path))
    return MapHandlers(service, SearchHandlers(service))


def test_summary_counts_results_with_coordinates(tmp_path):
    index = make_world_index(tmp_path)
    value = map_scenes(index, index.browse())
    assert "Orange: 6 of 7 results" in summarize_map(index, value, 7)
    assert "Orange: the 6 results" in summarize_map(index, value, 6)
    summary = summarize_map(index, map_scenes(index))
    assert "results" not in summary and "7 scenes, 1 without a place." in summary


def test_map_shows_the_last_results_inside_the_box(handlers):
    index = handlers.service.index
    session = Session(query=SearchQuery("a lake"), results=tuple(index.browse(k=3)))
    _, value, summary, near, bbox = handlers.show_map(session, "11.5, 51, 13.5, 53", "")
    assert value["count"] == 2 and len(value["results"]) == 3
    assert (near, bbox) == ("", "11.5, 51, 13.5, 53")
    assert "2 scenes in the area 11.50° E to 13.50° E" in summary
    assert "1 scene without a place was left out." in summary
    _, value, summary, near, bbox = handlers.show_map(session, "", "Berlin")
    assert value["count"] == 3 and "3 scenes within 100 km of Berlin, Germany" in summary
    assert (near, bbox) == ("Berlin", "")
    # What is typed while the map opens again stays.
    assert handlers.show_map(session, "", "Berlin")[3:] == (gr.skip(), gr.skip())


def test_map_shows_one_scene_when_asked_to(handlers):
    session = Session()
    handlers.locate_result(session, SimpleNamespace(index=3))
    _, value, *_ = handlers.show_map(session, "", "")
    assert value["located"] == 3 and session.located is None
    assert handlers.show_map(session, "", "")[1]["located"] is None
    with pytest.raises(ValueError, match="No scene is open"):
        handlers.locate_opened(session)
    scene = random_scene()
    session.opened = OpenScene(scene, None, (), ())
    with pytest.raises(ValueError, match="does not say where it lies"):
        handlers.locate_opened(session)
    session.opened = OpenScene(replace(scene, longitude=1.0, latitude=2.0), None, (), ())
    handlers.locate_opened(session)
    value = handlers.show_map(session, "", "")[1]
    assert value["located"] == OWN_SCENE
    own = value["own"]
    assert own == {"name": scene.name, "longitude": 1.0, "latitude": 2.0}


def test_typed_area_and_town_replace_each_other(handlers):
    assert handlers.type_bbox("4 47 16.00001 55") == ("4, 47, 16, 55", "")
    assert handlers.type_bbox(" ") == handlers.type_place(" ") == ("", "")
    assert handlers.type_place("münchen") == ("", "Munich, Germany")
    with pytest.raises(ValueError, match="west, south, east and north"):
        handlers.type_bbox("far away")
    with pytest.raises(ValueError, match="no town"):
        handlers.type_place("Nowhereville")


def test_peek_returns_name_and_picture(handlers):
    peeked = handlers.peek(SimpleNamespace(index=0)).props["peeked"]
    assert peeked["row"] == 0 and peeked["title"].startswith("Near Zerbst")
    assert peeked["source"].startswith("data:image/webp;base64,")


def test_invalid_map_events_are_rejected(tmp_path):
    index = make_world_index(tmp_path)
    assert get_clicked_scene(index, SimpleNamespace(index=1)).image_id == "tile_01"
    for row in (-1, 7, "1", None):
        with pytest.raises(ValueError, match="no scene at"):
            get_clicked_scene(index, SimpleNamespace(index=row))
    assert get_drawn_bbox(SimpleNamespace(bbox=[170, -10, 190, 10])) == (170, -10, -170, 10)
    for bbox in ([1, 2, 3], "abcd", None, [0, 0, float("nan"), "x"]):
        with pytest.raises(ValueError, match="no bounding box"):
            get_drawn_bbox(SimpleNamespace(bbox=bbox))
