"""The data of the world map: which scenes it shows, and bounding boxes drawn across its copies."""

from __future__ import annotations

import base64

import numpy as np

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.serving.map_data import map_scenes, normalize_bbox
from tests.support.world_index import make_world_index


def decode(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_map_shows_scenes_with_coordinates(tmp_path):
    index = make_world_index(tmp_path)
    value = map_scenes(index, index.browse(k=2), SceneFilter(bbox=(170, -20, -170, 0)))
    assert decode(value["rows"], "<i4").tolist() == [5]
    assert decode(value["points"], "<f4").tolist() == [179.5, -17.0]
    assert value["bbox"] == [170, -20, -170, 0]
    assert [(each["row"], each["rank"]) for each in value["results"]] == [(0, 1), (1, 2)]
    assert value["names"][0].endswith("Fiji, 1 January 2020") and len(value["outlines"]) == 1


def test_map_samples_a_large_index(tmp_path):
    index = make_world_index(tmp_path)
    sample = map_scenes(index, index.browse(), max_points=3)
    assert (sample["count"], len(decode(sample["rows"], "<i4"))) == (6, 3)
    assert len(sample["results"]) == 6


def test_drawn_bounding_box_is_normalized():
    assert normalize_bbox([170, -10, 190, 10]) == (170, -10, -170, 10)
    assert normalize_bbox([-200, -95, -100, 10]) == (160, -90, -100, 10)
    assert normalize_bbox([-300, 0, 100, 1]) == (-180, 0, 180, 1)
    assert normalize_bbox([-5, 0, 196, 1]) == (-180, 0, 180, 1)
    assert normalize_bbox([-100, 0, 101, 1]) == (-100, 0, 101, 1)
