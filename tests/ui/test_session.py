"""A visitor's session: turns, and limits on memory."""

from __future__ import annotations

import dataclasses
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import earthvlm.ui.session as session_module
from earthvlm.bridge.attention_maps import AnswerAttention
from earthvlm.search.index import SceneResult
from earthvlm.serving.service import Example
from earthvlm.ui.search_query import SearchQuery
from earthvlm.ui.security.upload_limits import UPLOADS
from earthvlm.ui.session import Session, limit_memory
from earthvlm.ui.uploads import Upload
from tests.conftest import random_scene
from tests.ui.opened_scenes import make_photo, open_scene


def make_result(caption: float | None = 0.4, scene: float | None = 0.5) -> SceneResult:
    cosines = {"caption_similarity": caption, "scene_similarity": scene}
    return SceneResult("a", "A lake.", "tiles", None, None, "made up", None, None, **cosines)


def test_session_of_a_page_that_comes_back_is_kept():
    session = Session()
    session.open_scene(open_scene(random_scene()))
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
    session.open_scene(open_scene(make_photo("another")))
    assert second.stop.is_set() and session.turn is None
    assert session.conversation == []


def test_sessions_unused_longest_are_cleared(monkeypatch):
    shared = open_scene(random_scene())
    monkeypatch.setattr(session_module, "HOLDING", weakref.WeakSet())  # not those of other tests
    monkeypatch.setattr(session_module, "MAX_BYTES", 3 * shared.scene.reflectance.nbytes)
    # The two that show the same scene were away longest, and closing one would gain nothing.
    scenes = [shared, shared, *(open_scene(random_scene(seed=n)) for n in range(3))]
    sessions = [Session(opened=scene, used=float(n)) for n, scene in enumerate(scenes)]
    for session in sessions:
        limit_memory(session)
    closed = [session.opened is None for session in sessions]
    assert closed == [False, False, True, False, False]
    with pytest.raises(ValueError, match="No scene is open"):
        sessions[2].require_opened()


def test_address_over_its_limit_loses_its_own_scenes(monkeypatch):
    monkeypatch.setattr(session_module, "HOLDING", weakref.WeakSet())
    scenes = [open_scene(random_scene(seed=number)) for number in range(4)]
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


def test_latest_session_keeps_its_scenes_over_the_limit(monkeypatch):
    monkeypatch.setattr(session_module, "HOLDING", weakref.WeakSet())
    first, *pair = (open_scene(random_scene(seed=number)) for number in range(3))
    monkeypatch.setattr(session_module, "MAX_BYTES_PER_ADDRESS", 2 * first.scene.nbytes)
    earlier = Session(opened=open_scene(random_scene(seed=3)), used=1.0, address="visitor")
    comparing = Session(opened=first, pair=pair, used=2.0, address="visitor")
    limit_memory(earlier)
    limit_memory(comparing)
    assert earlier.opened is None and len(comparing.scenes) == 3


def test_all_that_a_session_holds_is_counted():
    scene = open_scene(random_scene())
    session = Session(
        opened=scene,
        conversation=[{"role": "user", "content": "water"}],
        attention=AnswerAttention(("a",), np.zeros((1, 4, 4)), np.zeros((4, 4)), 8),
        pair=[scene, open_scene(random_scene(seed=1))],
        query=SearchQuery("a lake", (Example("mine", np.zeros(384, np.float32)),)),
    )
    scenes = 2 * scene.scene.reflectance.nbytes
    expected = scenes + 20 + 2 * 16 * 8 + 4 * 384
    assert sum(session.held_parts().values()) == expected


def test_search_is_kept_without_its_thumbnails():
    result = dataclasses.replace(make_result(), thumbnail=Image.new("RGB", (96, 64)))
    session = Session()
    session.keep_search(SearchQuery("a lake"), [result, result])
    assert (
        session.query.words == "a lake"
        and [each.thumbnail for each in session.results] == [None] * 2
    )
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


def test_an_upload_is_deleted_with_the_session_of_its_overview(tmp_path):
    def arrive(name: str) -> Upload:
        (tmp_path / name).mkdir()
        path = tmp_path / name / "scene.tif"
        path.write_bytes(b"II*")
        UPLOADS.begin("10.0.0.1", 3)
        UPLOADS.end("10.0.0.1", 3, [str(path)])
        return Upload((str(path),))

    session, (one, two) = Session(), map(arrive, ("one", "two"))
    session.open_scene(open_scene(make_photo("overview")), one)
    session.open_scene(open_scene(make_photo("part of it")), one)
    assert Path(one.paths[0]).exists()
    session.open_scene(open_scene(make_photo("another")), two)
    assert not Path(one.paths[0]).exists() and Path(two.paths[0]).exists()
    session.clear()
    assert not Path(two.paths[0]).exists()


def test_session_without_a_scene_asks_for_one():
    with pytest.raises(ValueError, match="No scene is open"):
        Session().require_opened()
