"""The Chat tab without a browser: stored conversations, large files, what a bridge cannot do."""

from __future__ import annotations

import html
from types import SimpleNamespace

import gradio as gr
import pytest

from earthvlm.scenes.scene import Scene
from earthvlm.serving.service import SceneService
from earthvlm.ui.session import Session
from earthvlm.ui.tabs.chat import scene_handlers
from earthvlm.ui.tabs.chat.chat_handlers import ChatHandlers
from earthvlm.ui.tabs.chat.chat_tab import build_chat_tab
from earthvlm.ui.tabs.chat.scene_handlers import SceneHandlers
from earthvlm.ui.tabs.chat.stored_conversation import store_conversation
from tests.support.made_spectra import paint
from tests.ui.opened_scenes import open_scene

REQUEST = SimpleNamespace(session_hash="visitor", client=None)
TALK = [{"role": "user", "content": "Is there water?"}, {"role": "assistant", "content": "Yes."}]


def test_stored_conversation_needs_its_file_open():
    bridge = SimpleNamespace(memory=SimpleNamespace(cover_maps={}))
    handlers = SceneHandlers(ChatHandlers(SceneService(bridge, None)), [], 0)
    session, opened = Session(), open_scene(paint("water", "dense vegetation"))
    session.open_scene(opened)
    stored = store_conversation("0" * 16, opened, TALK, "And trees?")
    stored = html.unescape(stored.removeprefix("<span data-talk>").removesuffix("</span>"))
    shown = handlers.open_stored(session, stored, REQUEST)
    assert (session.talk, session.conversation) == ("0" * 16, TALK)
    assert shown[-1] == "And trees?" and "measured" in str(shown)
    other = stored.replace(f'"name": "{opened.scene.name}"', '"name": "another"')
    with pytest.raises(ValueError, match="The file another is no longer open"):
        handlers.open_stored(session, other, REQUEST)


@pytest.mark.parametrize("is_left", [False, True])
def test_picture_of_a_large_scene_comes_before_its_shares(monkeypatch, tmp_path, is_left: bool):
    path = tmp_path / "lake.tif"
    paint("water", "dense vegetation").save(path)
    monkeypatch.setattr(scene_handlers, "MEASURED_AT_ONCE", 100)  # pixels
    config = SimpleNamespace(training_tiles=None)
    bridge = SimpleNamespace(memory=SimpleNamespace(cover_maps={}), config=config)
    with gr.Blocks():
        count = len(build_chat_tab(gr.State(Session()), []).outputs)
    handlers = SceneHandlers(ChatHandlers(SceneService(bridge, None)), [], count)
    handlers.service.reader.open = Scene.open
    session = Session()
    shown = handlers.open_scene(session, [str(path)], "auto", "", REQUEST)
    _, picture, _, details, *_ = first = next(shown)
    assert len(first) == count and picture["picture"].startswith("data:image")
    assert "lake" in details and "is being measured" in details
    assert session.opened.measurements is None
    if is_left:  # another scene is opened while this one is measured
        session.open_scene(open_scene(paint("water")))
    (last,) = shown
    assert len(last) == count
    assert ("Measured shares" in str(last[3])) is not is_left
    assert session.opened.measurements.share("water") == (1 if is_left else 0.5)


@pytest.mark.parametrize("has_cover_map", [True, False])
def test_cover_map_is_offered_by_bridges_that_draw_it(has_cover_map):
    with gr.Blocks():
        tab = build_chat_tab(gr.State(Session()), [], has_cover_map=has_cover_map)
    assert tab.panel.cover_map.visible is has_cover_map
