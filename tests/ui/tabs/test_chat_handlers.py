"""The conversation's handlers without a browser: land-cover maps, and answers next to them."""

from __future__ import annotations

import base64
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from earthvlm.scenes.land_cover import COVER_COLOURS, COVERS, NO_DATA, CoverMap
from earthvlm.serving.service import SceneService
from earthvlm.ui.cover_map_html import MAX_SIDE, show_legend, show_overlay
from earthvlm.ui.session import Session
from earthvlm.ui.tabs.chat_handlers import ChatHandlers
from tests.support.made_spectra import paint
from tests.ui.opened_scenes import open_scene

REQUEST = SimpleNamespace(session_hash="visitor", client=None)


def lake_and_town(side: int = 24) -> CoverMap:
    classes = np.full((side, side), COVERS.index("water"), np.uint8)
    classes[side // 2 :] = COVERS.index("built-up land")
    return CoverMap(classes)


class MappingBridge:
    """Answers with one text, and has mapped each scene that it answered about."""

    def __init__(self, answer: str) -> None:
        self.answer, self.cover_maps = answer, {}
        self.summary = "a stand-in"

    def map_land_cover(self, scene) -> CoverMap:
        return self.cover_maps.setdefault(scene, lake_and_town())

    def stream(self, scene, conversation, max_length, temperature, stop):
        self.map_land_cover(scene)
        yield self.answer


@pytest.fixture
def session() -> Session:
    session = Session()
    session.open_scene(open_scene(paint("water", "dense vegetation")))
    return session


def read_overlay(shown: str) -> Image.Image:
    source = re.search(r'class="covers" src="data:image/png;base64,([^"]+)"', shown).group(1)
    return Image.open(io.BytesIO(base64.b64decode(source)))


def test_overlay_has_the_colours_of_its_legend():
    classes = lake_and_town().classes.copy()
    classes[0] = NO_DATA
    cover_map = CoverMap(classes)
    pixels = np.asarray(read_overlay(show_overlay(cover_map)).convert("RGBA"))
    assert tuple(pixels[1, 0]) == (*COVER_COLOURS["water"], 255)
    assert tuple(pixels[-1, 0]) == (*COVER_COLOURS["built-up land"], 255)
    assert pixels[0, 0, 3] == 0
    legend = show_legend(cover_map)
    assert f"rgb{COVER_COLOURS['water']}" in legend and "water <b>48" in legend
    assert 'type="range"' in legend and "burnt land" not in legend


def test_overlay_of_a_large_map_is_shrunk():
    large = CoverMap(np.zeros((40, 2 * MAX_SIDE), np.uint8))
    assert read_overlay(show_overlay(large)).size == (MAX_SIDE, 20)


def test_map_stays_until_another_scene_is_opened(session):
    handlers = ChatHandlers(SceneService(MappingBridge("Water."), None))
    shown = handlers.land_cover_map(session, REQUEST)
    assert 'class="covers"' in shown and "built-up land <b>50" in shown
    assert sum(session.held_parts().values()) > 24 * 24
    session.open_scene(open_scene(paint("water")))
    assert session.cover_map is None


def answer(session: Session, question: str, text: str) -> list[str]:
    """Ask, and return the last HTML of the shares and of the picture."""
    handlers = ChatHandlers(SceneService(MappingBridge(text), None))
    shown = [list(values) for values in handlers.ask(session, question, 32, 0, REQUEST)]
    return [str(value) for value in shown[-1]]


def test_where_questions_show_the_map(session):
    assert any('class="covers"' in part for part in answer(session, "Where is it?", "On the left."))
    session.cover_map = None
    told = answer(session, "How much is water?", "Water covers about 50 percent of the scene.")
    assert not any('class="covers"' in part for part in told)


def test_answers_are_compared_with_the_map_too(session):
    claim = "Built-up land covers about 10 percent of the scene."
    compared = " ".join(answer(session, "How much is built up?", claim)).replace("\u00a0", " ")
    assert "The model says 10 % built-up land; on the map: 50 %" in compared
