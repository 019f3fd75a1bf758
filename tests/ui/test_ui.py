"""The app's parts that need no browser: uploads, sessions, and what is shown as text."""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import earthvlm.ui.session as session_module
import earthvlm.ui.tabs.streaming as streaming
from earthvlm.bridge.attention_maps import AnswerAttention
from earthvlm.scenes.distribution_shift import warn_out_of_distribution
from earthvlm.scenes.scene import Scene
from earthvlm.scenes.spectral_indices import measure
from earthvlm.search.index import SceneIndex, SceneResult
from earthvlm.serving.measurements import suggest_questions
from earthvlm.serving.service import Example, OpenScene, Waiting
from earthvlm.ui import Models, build_app, warm_up
from earthvlm.ui.errors import UNEXPECTED, report_error
from earthvlm.ui.scene_html import make_title, show_facts, show_related_shares, show_viewer
from earthvlm.ui.session import Session, limit_memory
from earthvlm.ui.uploads import open_uploads
from tests.conftest import random_scene

HTML = "<img src=x onerror=alert(1)>"


def make_scene(name: str) -> Scene:
    array = np.random.default_rng(0).integers(300, 3000, (16, 16, 3)).astype(np.float32)
    return Scene.from_array(array, ("B04", "B03", "B02"), name=name)


def make_result(caption: float | None = 0.4, scene: float | None = 0.5) -> SceneResult:
    cosines = {"caption_similarity": caption, "scene_similarity": scene}
    return SceneResult("a", "A lake.", "tiles", None, None, "made up", None, None, **cosines)


def opened(scene: Scene) -> OpenScene:
    measured = measure(scene)
    return OpenScene(
        scene, measured, tuple(warn_out_of_distribution(scene)), tuple(suggest_questions(measured))
    )


def save_pictures(folder: Path, *names: str) -> list[str]:
    pixels = np.random.default_rng(0).integers(20, 200, (64, 64, 3), dtype=np.uint8)
    for name in names:
        Image.fromarray(pixels).save(folder / name)
    return [str(folder / name) for name in names]


def test_three_pngs_are_recognized_by_their_names(tmp_path: Path):
    names = ("a_band_8_11_12.png", "a_rgb.png", "a_band_5_6_7.png")
    scene = open_uploads(save_pictures(tmp_path, *names), Scene.open)
    assert len(scene.bands) == 9
    assert scene.name == "a_rgb"


@pytest.mark.parametrize(
    "names", [("a_rgb.png", "b_rgb.png", "a_band_5_6_7.png"), ("a.png", "b.png"), ()]
)
def test_files_of_several_scenes_are_refused(tmp_path: Path, names: tuple[str, ...]):
    with pytest.raises(ValueError, match="files? arrived"):
        open_uploads(save_pictures(tmp_path, *names), Scene.open)


def test_texts_of_files_and_models_are_escaped():
    scene = opened(make_scene(HTML))
    attention = AnswerAttention((HTML,), np.full((1, 2, 2), 0.25), np.full((2, 2), 0.25))
    for shown in (
        show_viewer(scene, "true colour", attention),
        show_facts(scene),
    ):
        assert "&lt;img" in shown
        assert "<img src=x" not in shown
    assert "onerror" not in show_related_shares(scene, HTML)


def test_viewer_holds_its_picture_once():
    assert show_viewer(opened(make_scene("photo")), "true colour").count(";base64,") == 1


def test_facts_are_marked_as_measured():
    assert "measured" in show_facts(opened(random_scene()))
    assert "cannot be measured" in show_facts(opened(make_scene("photo")))
    assert "open water" in show_related_shares(opened(random_scene()), "A lake lies in the north.")
    assert show_related_shares(opened(random_scene()), "Hello.") == ""


@pytest.mark.filterwarnings("ignore::UserWarning:gradio")
def test_examples_are_searched_for_once(tiny_bridge, monkeypatch):
    searches, search = [], SceneIndex.search

    def count(self, query, *args, **options):
        searches.append(query)
        return search(self, query, *args, **options)

    monkeypatch.setattr(SceneIndex, "search", count)
    models = Models(tiny_bridge, SceneIndex.from_pretrained("bundled"))
    build_app(models)
    warm_up(models)
    assert searches and len(searches) == len(set(searches))


def test_titles_are_made_of_image_ids():
    assert make_title("finland_2017-09-24_69_24") == "Finland"
    assert make_title("beetzsee_r0_c11") == "Beetzsee"
    assert make_title("1908_3064_patch00") == "1908_3064_patch00"


def test_each_threat_names_tests_that_there_are():
    tests = Path(__file__).parents[1]
    threats = (tests.parent / "docs" / "security.md").read_text("utf-8")
    named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", threats)
    assert len(named) > 15
    for file, test in named:
        (found,) = tests.rglob(file)
        assert f"def {test}" in found.read_text("utf-8"), (file, test)


def test_session_of_a_page_that_comes_back_is_kept():
    session = Session()
    session.open_scene(opened(random_scene()))
    turn, closed = session.begin_turn(), session.used
    session.used += 1
    session.clear_unless_used(since=closed)
    assert session.opened is not None and not turn.stop.is_set()
    session.clear_unless_used(since=session.used)
    assert session.opened is None and turn.stop.is_set()


def test_new_question_or_scene_ends_the_answer():
    session = Session()
    first = session.begin_turn()
    second = session.begin_turn()
    assert first.stop.is_set() and not second.stop.is_set()
    session.conversation = [{"role": "user", "content": "?"}]
    session.open_scene(opened(make_scene("another")))
    assert second.stop.is_set() and session.turn is None
    assert session.conversation == []


def test_sessions_unused_longest_are_cleared(monkeypatch):
    shared = opened(random_scene())
    monkeypatch.setattr(session_module, "_holding", weakref.WeakSet())  # not those of other tests
    monkeypatch.setattr(session_module, "MAX_BYTES", 3 * shared.scene.reflectance.nbytes)
    # The two that show the same scene were away longest, and closing one would gain nothing.
    scenes = [shared, shared, *(opened(random_scene(seed=n)) for n in range(3))]
    sessions = [Session(opened=scene, used=float(n)) for n, scene in enumerate(scenes)]
    for session in sessions:
        limit_memory(session)
    closed = [session.opened is None for session in sessions]
    assert closed == [False, False, True, False, False]
    with pytest.raises(ValueError, match="No scene is open"):
        sessions[2].require_opened()


def test_address_over_its_limit_loses_its_own_scenes(monkeypatch):
    monkeypatch.setattr(session_module, "_holding", weakref.WeakSet())
    scenes = [opened(random_scene(seed=number)) for number in range(4)]
    size = scenes[0].scene.reflectance.nbytes
    monkeypatch.setattr(session_module, "MAX_BYTES_PER_ADDRESS", 2 * size)
    addresses = ("honest", "greedy", "greedy", "greedy")
    sessions = [
        Session(opened=scene, used=float(number), address=address)
        for number, (scene, address) in enumerate(zip(scenes, addresses, strict=True))
    ]
    for session in sessions:
        limit_memory(session)
    assert [session.opened is None for session in sessions] == [False, True, False, False]


def test_all_that_a_session_holds_is_counted():
    scene = opened(random_scene())
    session = Session(
        opened=scene,
        conversation=[{"role": "user", "content": "water"}],
        attention=AnswerAttention(("a",), np.zeros((1, 4, 4)), np.zeros((4, 4))),
        pair=[scene, opened(random_scene(seed=1))],
        query=("a lake", Example("mine", np.zeros(384, np.float32))),
    )
    scenes = 2 * scene.scene.reflectance.nbytes
    expected = scenes + 20 + 2 * 16 * 8 + 4 * 384
    assert sum(session.held_parts().values()) == expected


def test_a_search_is_kept_without_its_thumbnails():
    result = dataclasses.replace(make_result(), thumbnail=Image.new("RGB", (96, 64)))
    session = Session()
    session.keep_search("a lake", [result, result])
    assert session.query == "a lake" and [each.thumbnail for each in session.results] == [None] * 2
    assert session.results[0].image_id == result.image_id


def test_ending_an_answer_waits_for_its_last_update():
    session, said = Session(), []
    turn = session.begin_turn()
    started = threading.Event()

    def speak() -> None:
        with turn.streaming():
            started.set()
            turn.stop.wait(10)
            said.append("last word")

    threading.Thread(target=speak).start()
    assert started.wait(10)
    session.end_turn()
    assert said == ["last word"]


def test_text_accumulates_and_closes_its_source(monkeypatch):
    closed = []

    def speak():
        try:
            yield Waiting(1)
            yield from ("A ", "lake", ".")
        finally:
            closed.append(True)

    monkeypatch.setattr(streaming, "SECONDS_BETWEEN_UPDATES", 0)
    assert list(streaming.accumulate_text(speak())) == [
        Waiting(1),
        "A ",
        "A lake",
        "A lake.",
        "A lake.",
    ]
    monkeypatch.setattr(streaming, "SECONDS_BETWEEN_UPDATES", 3600)
    assert list(streaming.accumulate_text(speak()))[-1] == "A lake."
    reading = streaming.accumulate_text(speak())
    next(reading)
    reading.close()
    assert len(closed) == 3


def test_session_without_a_scene_asks_for_one():
    with pytest.raises(ValueError, match="No scene is open"):
        Session().require_opened()


def test_errors_become_one_sentence(caplog: pytest.LogCaptureFixture):
    error = report_error(ValueError("the file is empty; give another"))
    assert error.message == "The file is empty; give another." and not caplog.text
    with caplog.at_level(logging.ERROR):
        assert report_error(RuntimeError("secret detail")).message == UNEXPECTED
    assert "secret detail" in caplog.text
