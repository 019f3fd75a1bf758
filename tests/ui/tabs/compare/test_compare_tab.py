"""The Compare tab without a browser: its handlers, and the HTML of the measured change."""

from __future__ import annotations

import datetime
import html
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from earthvlm.bridge.scene_memory import SceneMemory
from earthvlm.scenes.bands import BANDS, NDVI_BANDS, VISIBLE_BANDS
from earthvlm.scenes.scene import Scene
from earthvlm.serving.service import OpenScene, SceneService
from earthvlm.ui.session import Session
from earthvlm.ui.tabs.compare.compare_html import make_headings, show_changes, show_pair
from earthvlm.ui.tabs.compare.compare_tab import CompareHandlers, open_pair
from tests.conftest import random_scene

REQUEST = SimpleNamespace(session_hash="visitor", client=None)
BRIDGE = SimpleNamespace(config=SimpleNamespace(training_tiles=None))


def open_scene(seed: int, date: datetime.date | None, name: str = "lake") -> OpenScene:
    """A scene at one place and date, ready to be compared."""
    place = {"longitude": 12.5, "latitude": 52.4}
    scene = replace(random_scene(seed=seed), name=name, date=date, **place)
    return SceneService(BRIDGE, None).open(scene)


@pytest.fixture
def pair() -> list[OpenScene]:
    """Two dates of one place, the later one first."""
    return [open_scene(0, datetime.date(2022, 3, 8)), open_scene(1, datetime.date(2020, 2, 2))]


def test_pair_is_sorted_by_date(pair):
    session = Session()
    _, shown, *descriptions, changes = open_pair(session, pair, "NDVI")
    assert session.pair == pair[::-1]
    assert shown.index("2 February 2020") < shown.index("8 March 2022")
    assert 'data-mode="swipe"' in shown and 'type="range"' in shown
    assert descriptions == ["", ""] and "What changed" in changes


def test_two_files_are_needed():
    handlers = CompareHandlers(SceneService(BRIDGE, None))
    for paths in (None, ["one.tif"], ["one.tif"] * 3):
        with pytest.raises(ValueError, match="Two scenes are needed"):
            handlers.compare_two(Session(), paths, "true colour", REQUEST)
    with pytest.raises(ValueError, match="Two scenes are needed"):
        next(handlers.describe_pair(Session(), REQUEST))
    with pytest.raises(ValueError, match="No scene is open"):
        handlers.compare_with_chat(Session(), "one.tif", "true colour", REQUEST)


def test_each_scene_is_described_on_its_own(pair):
    asked = []

    def stream(scene, conversation, max_length, temperature, stop):
        asked.append((scene, conversation))
        yield "A lake"
        yield " <b>here</b>."

    service = SceneService(SimpleNamespace(stream=stream, memory=SceneMemory()), None)
    session = Session(pair=pair)
    first, second = list(CompareHandlers(service).describe_pair(session, REQUEST))[-1]
    assert [scene for scene, _ in asked] == [opened.scene for opened in pair]
    assert all(len(conversation) == 1 for _, conversation in asked)
    for description in (first, second):
        assert "A lake &lt;b&gt;here&lt;/b&gt;." in description and "open water" in description


def test_pixels_of_both_scenes_are_read(pair):
    handlers, session = CompareHandlers(SceneService(BRIDGE, None)), Session(pair=pair)
    shown = show_pair(pair, "NDVI")
    given = json.loads(html.unescape(re.search('data-scenes="(.*?)"', shown)[1]))
    assert [scene["shown"] for scene in given] == [list(NDVI_BANDS)] * 2
    first, second = handlers.read_pixels(session, SimpleNamespace(blocks=[0, None]), REQUEST).props[
        "pixels"
    ]
    assert second is None and first["key"] == given[0]["key"] and first["block"] == 0
    for blocks in ([0], [0, 9], [0, "0"], None):
        with pytest.raises(ValueError, match="block"):
            handlers.read_pixels(session, SimpleNamespace(blocks=blocks), REQUEST)


def test_headings_tell_the_scenes_apart(pair):
    assert make_headings(pair) == ["8 March 2022", "2 February 2020"]
    same_day = [open_scene(0, None, "<a>"), open_scene(1, None, "b")]
    assert make_headings(same_day) == ["&lt;a&gt;", "b"]


def test_change_needs_near_infrared_in_both(pair):
    values = pair[1].scene.reflectance[:, :, [BANDS.index(band) for band in VISIBLE_BANDS]]
    known = {name: getattr(pair[1].scene, name) for name in ("date", "longitude", "latitude")}
    photo = SceneService(BRIDGE, None).open(Scene.from_array(values, VISIBLE_BANDS, **known))
    shown = show_changes([pair[0], photo])
    assert "cannot be measured, because a scene has no near-infrared band" in shown
    assert "<table>" in show_changes(pair) and "<table>" not in shown


def test_change_of_each_cover_is_a_map(pair):
    shown = show_changes(pair)
    covers = re.findall(r'<button type="button" data-cover="([^"]+)"', shown)
    assert (
        len(covers) >= 2
        and re.findall(r'<img src="data:image/png[^>]+data-cover="([^"]+)"', shown) == covers
    )
    assert shown.count(" hidden>") == len(covers) - 1


def test_two_places_are_refused_and_shown_side_by_side(pair):
    there = open_scene(1, datetime.date(2020, 2, 2))
    moved = replace(there.scene, longitude=-8.6, latitude=41.1)
    two = [pair[0], replace(there, scene=moved)]
    shown = show_changes(two)
    assert "cannot be compared over time" in shown and "<table>" not in shown
    assert "near Brandenburg an der Havel, Germany and near" in shown and "Portugal" in shown
    assert re.search(r"two places, 2,\d{3} km apart", shown)
    assert 'data-mode="side"' in show_pair(two, "NDVI") and "range" not in show_pair(two, "NDVI")
    assert make_headings(two)[0] == "Near Brandenburg an der Havel, Germany"
