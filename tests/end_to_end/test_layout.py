"""The layout of every tab on a phone, a tablet and desks, and its accessibility."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.conftest import AT_REST, END_TO_END
from tests.end_to_end.visitor import ask, open_tab, read_violations

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = END_TO_END

HEIGHTS = {360: 740, 768: 1024, 1440: 900, 2560: 1440}
# The least width and height of the picture over the legend of a map, in pixels.
PICTURES = {360: (300, 180), 768: (400, 300), 1440: (600, 370), 2560: (1300, 800)}
LARGER = tuple(width for width in HEIGHTS if width > 360)
IN_EITHER_SCHEME = pytest.mark.parametrize("scheme", ["light", "dark"])
# The last one is answered with a map and its legend, which makes what stays in view higher.
TALK = ("Is there water?", "Which land cover dominates?", "Where is the built-up land?")
# Controls of the open tab that lie on one another. What is on the map or in the pictures moves.
OVERLAPPING = """() => {
  const shown = [...document.querySelectorAll(
    '[role="tabpanel"] :is(button, input, select, textarea, summary, table, figure)')]
    .filter((each) => each.checkVisibility({opacityProperty: true, visibilityProperty: true})
      && !each.closest('.world-map, .ports, .change-map, .pills, #count'))
    .map((each) => [each, each.getBoundingClientRect()])
    .filter(([, {width, height}]) => width > 8 && height > 8);
  const found = [];
  for (const [one, a] of shown) for (const [other, b] of shown) {
    if (one === other || one.contains(other) || other.contains(one)) continue;
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 3 && down > 3) found.push([one, other].map((each) => each.outerHTML.slice(0, 90)));
  }
  return found;
}"""


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


# Buttons whose text is wider than they are. The turned arrows of what can be unfolded stick out.
TOO_NARROW = """() => [...document.querySelectorAll('button:not(.label-wrap)')]
  .filter((each) => each.checkVisibility() && each.scrollWidth > each.clientWidth + 1)
  .map((each) => each.textContent.trim()).filter(Boolean)"""


@pytest.mark.one_setting
@IN_EITHER_SCHEME
@pytest.mark.parametrize("tab", [360], indirect=True, ids=str)
def test_every_tab_fits_a_phone(
    tab: Page, app_url: str, scheme: str, keep: Callable[..., None], request: pytest.FixtureRequest
):
    visit_tabs(tab, app_url, scheme, keep, request)


@pytest.mark.nightly
@IN_EITHER_SCHEME
@pytest.mark.parametrize("tab", LARGER, indirect=True, ids=str)
def test_every_tab_fits_a_larger_window(
    tab: Page, app_url: str, scheme: str, keep: Callable[..., None], request: pytest.FixtureRequest
):
    visit_tabs(tab, app_url, scheme, keep, request)


def visit_tabs(
    tab: Page, app_url: str, scheme: str, keep: Callable[..., None], request: pytest.FixtureRequest
) -> None:
    width = tab.viewport_size["width"]
    tab.set_viewport_size({"width": width, "height": HEIGHTS[width]})
    tab.emulate_media(color_scheme="dark" if scheme == "light" else "light")

    def check_accessibility(state: str) -> None:
        assert tab.evaluate(TOO_NARROW) == [], state
        tab.wait_for_function(AT_REST)
        keep(f"{state}-{scheme}", full_page=False)
        serious = read_violations(tab, scheme)
        assert not serious, (state, scheme, serious)

    tab.goto(app_url)
    tab.locator("#picture img").first.wait_for()
    tab.emulate_media(color_scheme=scheme)  # an open page follows a change
    is_dark = "dark => document.body.classList.contains('dark') === dark"
    tab.wait_for_function(is_dark, arg=scheme == "dark")
    assert box(tab, "#prompt textarea")["y"] < HEIGHTS[width] - 40  # before anything is scrolled
    assert box(tab, "#picture .viewport")["y"] + 180 < box(tab, "#prompt textarea")["y"]
    check_accessibility("chat-start")
    assert not tab.locator("#stop").is_visible()
    for question in TALK:
        ask(tab, question)
    if width < 1000:
        pinned = box(tab, ".see" if width < 700 else ".pinned")
        question = tab.locator("#chat [data-testid=user]").last.bounding_box()
        assert question is not None and question["y"] >= pinned["y"] + pinned["height"] - 1
    tab.locator("#chat [data-testid=bot]").last.scroll_into_view_if_needed()
    check_view(tab)
    if width == 768:  # the picture's details fill what it leaves
        picture, details = box(tab, "#picture .viewport"), box(tab, "#scene-details")
        assert picture["width"] + details["width"] > 0.9 * width
    tab.locator(".answer-settings > button").click()
    check_accessibility("chat-answered")
    tab.get_by_label("Your question").fill(" ")
    tab.locator("#send").click()
    notice = tab.locator(".question .notice, .ask .notice")
    notice.wait_for()
    assert notice.bounding_box()["y"] + notice.bounding_box()["height"] <= HEIGHTS[width]
    check_accessibility("chat-notice")
    tab.keyboard.press("Escape")
    tab.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    tab.locator("a.skip").focus()
    tab.keyboard.press("Enter")
    tab.wait_for_function("document.activeElement.matches('#prompt textarea')")
    visit_other_tabs(tab, check_accessibility, request)


def visit_other_tabs(
    tab: Page, check_accessibility: Callable[[str], None], request: pytest.FixtureRequest
) -> None:
    open_tab(tab, "Search")
    tab.get_by_label("What the scene shows").fill("a lake near Berlin")
    tab.get_by_label("What the scene shows").press("Enter")
    tab.locator("#search-summary", has_text="within 100 km of Berlin").wait_for()
    tab.locator(".result .facts b").first.wait_for()
    check_tab(tab, check_accessibility, "search")
    open_tab(tab, "Map")
    tab.locator(".world-map[data-drawn] .result-marker").first.wait_for()
    check_tab(tab, check_accessibility, "map")
    open_tab(tab, "Compare")
    compare_two_dates(tab, request.getfixturevalue("practice_data") / "scenes")
    check_tab(tab, check_accessibility, "compare")


def check_tab(page: Page, check_accessibility: Callable[[str], None], name: str) -> None:
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(OVERLAPPING) == []
    check_accessibility(name)


def compare_two_dates(page: Page, scenes: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator("#upload-pair").click()
    dates = ("2020-02-02", "2022-03-08")
    chooser.value.set_files([scenes / f"boadella_{date}_L2A.tif" for date in dates])
    page.locator("#changes table").wait_for()
    # The pair is seen whole.
    port, size = box(page, "#pair .port"), page.viewport_size
    assert port["width"] > 250 and port["height"] <= size["height"] - 200, port
