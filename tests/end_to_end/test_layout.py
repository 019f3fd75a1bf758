"""The layout of the Chat tab on a phone, a tablet and desks, and its accessibility."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.conftest import AT_REST, END_TO_END
from tests.end_to_end.visitor import ask, read_violations

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = END_TO_END

HEIGHTS = {360: 740, 768: 1024, 1440: 900, 2560: 1440}
# The least width and height of the picture, in pixels.
PICTURES = {360: (300, 180), 768: (400, 300), 1440: (600, 380), 2560: (1300, 800)}
TALK = ("Describe this scene.", "Which land cover dominates?", "How much is built up?")


def box(page: Page, selector: str) -> dict[str, float]:
    found = page.locator(selector).first.bounding_box()
    assert found is not None, selector
    return found


def check_view(page: Page) -> None:
    """Picture and question are in the window, and do not cover each other."""
    size = page.viewport_size
    picture, question = box(page, "#picture .viewport"), box(page, "#prompt textarea")
    least_width, least_height = PICTURES[size["width"]]
    assert picture["width"] >= least_width and picture["height"] >= least_height, picture
    assert picture["y"] >= 0 and question["y"] + question["height"] <= size["height"], question
    is_next_to = picture["x"] + picture["width"] <= question["x"]
    assert is_next_to or picture["y"] + picture["height"] <= question["y"], (picture, question)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("tab", HEIGHTS, indirect=True, ids=str)
def test_picture_and_question_stay_in_view(tab: Page, app_url: str, keep: Callable[..., None]):
    width = tab.viewport_size["width"]
    tab.set_viewport_size({"width": width, "height": HEIGHTS[width]})

    def check_accessibility(state: str) -> None:
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)
            is_dark = "dark => document.body.classList.contains('dark') === dark"
            tab.wait_for_function(is_dark, arg=scheme == "dark")
            tab.wait_for_function(AT_REST)  # colours fade into those of the other scheme
            keep(f"chat-{state}-{scheme}", full_page=False)
            serious = read_violations(tab, scheme, {"target-size": {"enabled": True}})
            assert not serious, (state, scheme, serious)

    tab.goto(app_url)
    tab.locator("#picture img").first.wait_for()
    assert box(tab, "#prompt textarea")["y"] < HEIGHTS[width] - 40  # before anything is scrolled
    check_accessibility("start")
    assert not tab.locator("#stop").is_visible()
    for question in TALK:
        ask(tab, question)
    tab.locator("#chat [data-testid=bot]").last.scroll_into_view_if_needed()
    check_view(tab)
    if width == 768:  # the picture's details fill what it leaves
        picture, details = box(tab, "#picture .viewport"), box(tab, "#scene-details")
        assert picture["width"] + details["width"] > 0.9 * width
    tab.locator(".answer-settings > button").click()
    check_accessibility("answered")
    tab.get_by_label("Your question").fill(" ")
    tab.locator("#send").click()
    notice = tab.locator(".question .notice, .ask .notice")
    notice.wait_for()
    assert notice.bounding_box()["y"] + notice.bounding_box()["height"] <= HEIGHTS[width]
    check_accessibility("notice")
    tab.keyboard.press("Escape")
    tab.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    tab.locator("a.skip").focus()
    tab.keyboard.press("Enter")
    tab.wait_for_function("document.activeElement.matches('#prompt textarea')")
