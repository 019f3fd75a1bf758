"""The app's parts that need no browser: uploads, sessions, and what is shown as text."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from earthvlm.scene import Scene
from earthvlm.ui.chat import describe_scene, is_awaited, plain_messages, show_thinking
from earthvlm.ui.search import describe_search
from earthvlm.ui.state import Session, tell_errors
from earthvlm.ui.uploads import open_uploads


def make_scene(name: str) -> Scene:
    array = np.random.default_rng(0).integers(300, 3000, (16, 16, 3)).astype(np.float32)
    return Scene.from_array(array, ("B04", "B03", "B02"), name=name)


def save_pictures(folder: Path, *names: str) -> list[str]:
    pixels = np.random.default_rng(0).integers(20, 200, (64, 64, 3), dtype=np.uint8)
    for name in names:
        Image.fromarray(pixels).save(folder / name)
    return [str(folder / name) for name in names]


def test_three_pngs_are_told_apart_by_their_names(tmp_path: Path):
    names = ("a_band_8_11_12.png", "a_rgb.png", "a_band_5_6_7.png")
    scene = open_uploads(save_pictures(tmp_path, *names))
    assert len(scene.bands) == 9
    assert scene.name == "a_rgb"


@pytest.mark.parametrize(
    "names", [("a_rgb.png", "b_rgb.png", "a_band_5_6_7.png"), ("a.png", "b.png"), ()]
)
def test_files_that_are_not_one_scene_are_refused(tmp_path: Path, names: tuple[str, ...]):
    with pytest.raises(ValueError, match="files? arrived"):
        open_uploads(save_pictures(tmp_path, *names))


def test_names_and_queries_are_shown_as_text_and_not_as_html():
    scene = make_scene("<img src=x>")
    assert "<img" not in describe_scene(scene)
    assert "<img" not in describe_search(scene, 1, 1)
    assert "<img" not in describe_search("<img src=x>", 1, 1)


def test_a_conversation_is_plain_text_without_the_sign_of_waiting():
    turn = Session().begin_turn()
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Is there water?"}]},
        {"role": "assistant", "content": "Yes.", "metadata": None},
        show_thinking(turn),
    ]
    assert plain_messages(messages) == [
        {"role": "user", "content": "Is there water?"},
        {"role": "assistant", "content": "Yes."},
    ]
    assert is_awaited(messages, turn)
    assert not is_awaited(messages[:2], turn)


def test_a_new_question_or_scene_ends_the_answer_under_way():
    session = Session()
    first = session.begin_turn()
    second = session.begin_turn()
    assert first.stop.is_set() and not second.stop.is_set()
    assert not is_awaited([show_thinking(first)], second)
    session.open_scene(make_scene("another"))
    assert second.stop.is_set() and session.turn is None


def test_ending_an_answer_waits_until_it_shows_no_more():
    session, said = Session(), []
    turn = session.begin_turn()
    started = threading.Event()

    def speak() -> None:
        with turn.speaking():
            started.set()
            turn.stop.wait(10)
            said.append("last word")

    threading.Thread(target=speak).start()
    assert started.wait(10)
    session.end_turn()
    assert said == ["last word"]


def test_an_action_without_a_scene_asks_for_one():
    with pytest.raises(ValueError, match="No scene is open"):
        Session().require_scene()


@pytest.mark.filterwarnings("ignore::UserWarning:gradio")
def test_errors_become_one_sentence(caplog: pytest.LogCaptureFixture):
    @tell_errors
    def refuse() -> None:
        raise ValueError("the file is empty; give another")

    @tell_errors
    def fail():
        yield 1
        raise RuntimeError("secret detail")

    with pytest.raises(gr.Error, match=r"^'The file is empty; give another\.'$"):
        refuse()
    with caplog.at_level(logging.ERROR), pytest.raises(gr.Error) as caught:
        list(fail())
    assert "secret" not in str(caught.value)
    assert "secret detail" in caplog.text
