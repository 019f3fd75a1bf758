"""Several visitors and one model, in a browser: the queue, separate sessions, closed pages."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import earthvlm.ui.session as session
from earthvlm.serving.request_queue import MAX_WAITING
from tests.end_to_end.conftest import END_TO_END, PATIENCE_MS, either_width
from tests.end_to_end.visitor import (
    answers,
    ask,
    open_file,
    questions,
    read_warning,
    wait_until_idle,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from earthvlm.serving.service import SceneService

pytestmark = END_TO_END


@either_width
def test_page_shows_queue_position_and_overflow(
    page: Page, app_service: SceneService, keep: Callable[..., None]
):
    queue = app_service.question_queue
    others = [queue.join(f"other-{number}") for number in range(MAX_WAITING + 1)]
    for other in others:
        other.seen = math.inf  # no page polls for them, so they must not expire
    try:
        page.get_by_label("Your question").fill("Is there water?")
        page.get_by_role("button", name="Send").click()
        page.locator(".notice").wait_for()
        keep("busy", full_page=False)
        assert read_warning(page).startswith(f"Busy: {MAX_WAITING + 1} questions")
        wait_until_idle(page)
        assert questions(page).count() == answers(page).count() == 0
        # The question is still in the box.
        assert page.get_by_label("Your question").input_value() == "Is there water?"

        for other in others[2:]:
            queue.leave(other)
        page.get_by_role("button", name="Send").click()
        page.locator("#chat", has_text="2 questions before yours").wait_for()
        queue.leave(others[1])
        page.locator("#chat", has_text="1 question before yours").wait_for()
        keep("waiting")
    finally:
        for other in others:
            queue.leave(other)
    page.locator("#chat", has_not_text="before yours").wait_for()
    wait_until_idle(page)
    assert questions(page).count() == answers(page).count() == 1


def test_visitors_have_separate_sessions(
    page: Page, browser: Browser, lakeside: Path, app_url: str
):
    other = browser.new_context()
    second = other.new_page()
    second.set_default_timeout(PATIENCE_MS)
    second.goto(app_url)
    second.locator("#picture img.scene").wait_for()
    first_details = page.locator("#scene-details").inner_text()
    open_file(second, lakeside)
    ask(second, "Is there water?")
    assert page.locator("#scene-details").inner_text() == first_details
    assert answers(page).count() == 0
    other.close()


def test_closed_page_frees_model_and_memory(page: Page, app_bridge, app_url: str, monkeypatch):
    speaking, ended, given_up = (threading.Event() for _ in range(3))
    scenes, stream = [], app_bridge.stream

    def never_end(scene, *args, stop):
        scenes.append(weakref.ref(scene))
        try:
            while not (stop.is_set() or given_up.is_set()):
                for piece in stream(scene, *args, stop=stop):
                    speaking.set()
                    yield piece
        finally:
            ended.set()

    monkeypatch.setattr(app_bridge, "stream", never_end)
    monkeypatch.setattr(session, "CLOSED_SECONDS", 0)
    second = page.context.new_page()
    second.goto(f"{app_url}?scene=beetzsee_r0_c00")
    second.locator("#scene-details strong", has_text="beetzsee_r0_c00").wait_for()
    second.get_by_role("button", name="Is there water?").click()
    try:
        assert speaking.wait(PATIENCE_MS / 1000)
        second.close()
        assert ended.wait(PATIENCE_MS / 1000)  # the answer would not end by itself
    finally:
        given_up.set()
    # CLOSED_SECONDS stays: the answer may end before the server notices that the page is closed.
    monkeypatch.setattr(app_bridge, "stream", stream)
    assert ask(page, "Is there water?")  # the model is free
    until = time.monotonic() + PATIENCE_MS / 1000
    while scenes[0]() is not None and time.monotonic() < until:
        gc.collect()
        time.sleep(0.05)
    assert scenes[0]() is None


def test_model_failure_reveals_no_details(page: Page, app_bridge, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("secret detail")
        yield

    monkeypatch.setattr(app_bridge, "stream", fail)
    page.get_by_role("button", name="Is there water?").click()
    assert "secret" not in read_warning(page)
    wait_until_idle(page)
    monkeypatch.undo()
    assert ask(page, "Is there water?")
