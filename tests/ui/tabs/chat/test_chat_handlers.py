"""The conversation's handlers without a browser: land-cover maps, and answers next to them."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from earthvlm.bridge.scene_memory import SceneMemory
from earthvlm.scenes.land_cover import COVER_COLOURS, COVERS, NO_DATA, CoverMap
from earthvlm.serving.service import SceneService
from earthvlm.ui.html.cover_map_html import MAX_SIDE, overlay_map, show_overlay
from earthvlm.ui.session import Session
from earthvlm.ui.tabs.chat.chat_handlers import ChatHandlers
from tests.support.made_spectra import paint
from tests.ui.opened_scenes import open_scene

REQUEST = SimpleNamespace(session_hash="visitor", client=None)


def lake_and_town(side: int = 24) -> CoverMap:
    classes = np.full((side, side), COVERS.index("water"), np.uint8)
    classes[side // 2 :] = COVERS.index("built-up land")
    return CoverMap(classes)


class MappingBridge:
    """Answers with one text, and has mapped each scene that it answered about, if it maps."""

    def __init__(self, answer: str, *, maps: bool = True) -> None:
        self.answer, self.maps, self.memory = answer, maps, SceneMemory()
        self.summary = "a stand-in"

    def map_land_cover(self, scene) -> CoverMap:
        return self.memory.cover_maps.setdefault(scene, lake_and_town())

    def stream(self, scene, conversation, max_length, temperature, stop):
        if self.maps:
            self.map_land_cover(scene)
        yield self.answer


@pytest.fixture
def session() -> Session:
    session = Session()
    session.open_scene(open_scene(paint("water", "dense vegetation")))
    return session


def read_overlay(shown: dict) -> np.ndarray:
    source = shown["picture"].removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))


def test_overlay_holds_the_classes_of_its_legend():
    classes = lake_and_town().classes.copy()
    classes[0] = NO_DATA
    shown = show_overlay(overlay_map(CoverMap(classes), asked=["water"]))
    assert np.array_equal(read_overlay(shown), classes)
    town, water = shown["covers"]  # the larger share first, and no cover that is nowhere
    assert (town["name"], water["name"], water["share"]) == ("built-up land", "water", "48\u00a0%")
    assert water["colour"] == list(COVER_COLOURS["water"])
    assert shown["shown"] == [water["number"]]
    everything = show_overlay(overlay_map(CoverMap(classes), asked=["snow or ice"]))
    assert len(everything["shown"]) == 3  # of what is nowhere, nothing could be shown


def test_overlay_of_a_large_map_is_shrunk():
    large = CoverMap(np.zeros((40, 2 * MAX_SIDE), np.uint8))
    assert read_overlay(show_overlay(overlay_map(large))).shape == (20, MAX_SIDE)


def test_map_stays_until_another_scene_is_opened(session):
    handlers = ChatHandlers(SceneService(MappingBridge("Water."), None))
    shown = handlers.land_cover_map(session, REQUEST)
    assert shown["covers"]["source"] == "model" and len(shown["covers"]["shown"]) == 2
    assert sum(session.held_parts().values()) > 24 * 24
    session.open_scene(open_scene(paint("water")))
    assert session.covers is None


def answer(session: Session, question: str, text: str, *, maps: bool = True) -> list[list]:
    """Ask, and return what the page was given, one list of values an update."""
    handlers = ChatHandlers(SceneService(MappingBridge(text, maps=maps), None))
    return [list(values) for values in handlers.ask(session, question, 32, 0, REQUEST)]


@pytest.mark.parametrize(("maps", "source"), [(True, "model"), (False, "measured")])
def test_where_questions_show_the_cover_with_the_first_word(session, maps, source):
    updates = answer(session, "Where is the water?", "On the left.", maps=maps)
    with_words = next(each for each in updates if "On the left." in str(each[2]))
    (covers,) = [part["covers"] for part in with_words if isinstance(part, dict) and "key" in part]
    assert covers["source"] == source
    shown = [each["name"] for each in covers["covers"] if each["number"] in covers["shown"]]
    assert shown == ["water"]

    session.covers = None
    told = answer(session, "How much is water?", "Water covers about 50 percent of the scene.")
    assert not [part for each in told for part in each if isinstance(part, dict) and "key" in part]


def test_answers_are_compared_with_the_map_too(session):
    claim = "Built-up land covers about 10 percent of the scene."
    updates = answer(session, "How much is built up?", claim)
    compared = " ".join(map(str, updates[-1])).replace("\\xa0", " ")
    assert "The model says 10 % built-up land; on the map: 50 %" in compared
