"""The Map tab without a browser: its summary, and the events of its map."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from earthvlm.serving.map_data import map_scenes
from earthvlm.serving.service import SceneService
from earthvlm.ui.session import Session
from earthvlm.ui.tabs.map.map_component import get_clicked_scene, get_drawn_bbox
from earthvlm.ui.tabs.map.map_tab import MapHandlers, summarize_map
from tests.support.world_index import make_world_index


def test_summary_counts_results_with_coordinates(tmp_path):
    index = make_world_index(tmp_path)
    value = map_scenes(index, index.browse())
    assert "Numbers mark 6 of 7 results of the last search" in summarize_map(index, value, 7)
    assert "Numbers mark all 6 results" in summarize_map(index, value, 6)
    assert "results" not in summarize_map(index, map_scenes(index))


def test_map_shows_the_last_results_inside_the_box(tmp_path):
    index = make_world_index(tmp_path)
    handlers = MapHandlers(SceneService(None, index))
    session = Session(query="a lake", results=tuple(index.browse(k=3)))
    value, summary, bbox = handlers.show_map(session, "11.5, 51, 13.5, 53")
    assert value["count"] == 2 and len(value["results"]) == 3
    assert bbox == "11.5, 51, 13.5, 53"
    assert "2 scenes in the bounding box (11.50° E to 13.50° E" in summary


def test_typed_box_gets_its_usual_form():
    handlers = MapHandlers(SceneService(None, None))
    assert handlers.type_bbox("4 47 16.00001 55") == "4, 47, 16, 55"
    assert handlers.type_bbox(" ") == ""
    with pytest.raises(ValueError, match="west, south, east and north"):
        handlers.type_bbox("far away")


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
