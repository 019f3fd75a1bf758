"""The page in a browser: layout, loading, accessibility and the names of its endpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.conftest import AT_REST, END_TO_END, either_width
from tests.end_to_end.visitor import answers, open_tab, read_violations, wait_until_idle

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = END_TO_END

TABS = ("Chat", "Search", "Map", "Compare")


@pytest.mark.parametrize("tab", [360], indirect=True, ids=str)
def test_page_is_stable_and_loads_from_one_origin(tab: Page, app_url: str):
    """On a phone's slow network the layout shift is under 0.1, which Web Vitals rate as good."""
    network = tab.context.new_cdp_session(tab)
    network.send("Network.enable")
    network.send("Network.setCacheDisabled", {"cacheDisabled": True})
    speed = {"downloadThroughput": 400_000, "uploadThroughput": 100_000, "latency": 150}
    network.send("Network.emulateNetworkConditions", {"offline": False, **speed})
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.add_init_script(
        """window.shift = 0;
           new PerformanceObserver(list => list.getEntries().forEach(entry => {
             if (!entry.hadRecentInput) window.shift += entry.value;
           })).observe({type: 'layout-shift', buffered: true});"""
    )
    tab.goto(app_url)
    tab.locator("#picture img.scene").wait_for()
    tab.wait_for_timeout(1000)  # observe the layout that long
    assert tab.evaluate("window.shift") < 0.1
    for name in TABS:
        open_tab(tab, name)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not [url for url in asked if not url.startswith((app_url, "data:", "blob:"))]


def test_first_picture_awaits_no_script_of_the_viewer(tab: Page, app_url: str):
    held = []
    tab.route("**/parts/viewer.js*", lambda route: held.append(route))
    tab.goto(app_url)
    first = tab.locator("#picture img.first")
    first.wait_for()
    assert first.get_attribute("alt")
    assert first.evaluate("image => image.naturalWidth > 0 && image.clientHeight > 0")
    for route in held:
        route.continue_()
    tab.locator("#picture img.scene").wait_for()
    assert not first.count()


def test_page_runs_its_own_scripts_alone(tab: Page, app_url: str):
    """The policy lets every script of the page run, and none that is put into it."""
    tab.add_init_script(
        """window.refused = [];
           document.addEventListener('securitypolicyviolation', event =>
             window.refused.push(`${event.violatedDirective} ${event.blockedURI}`));"""
    )
    tab.goto(app_url)
    tab.locator("#picture img.scene").wait_for()
    for name in TABS:
        open_tab(tab, name)
    tab.locator(".leaflet-pane").first.wait_for(state="attached")
    assert tab.evaluate("window.refused") == []
    tab.evaluate(
        """() => {
             const script = document.createElement('script');
             script.textContent = 'window.harmed = 1';
             document.body.append(script);
             document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="harmed = 2">');
           }"""
    )
    tab.wait_for_function("window.refused.length >= 2")
    assert tab.evaluate("window.harmed") is None


@either_width
def test_page_works_by_keyboard_and_passes_axe(page: Page, keep: Callable[..., None]):
    """Every control is reached, and axe-core's serious and critical rules hold over the picture.

    Contrast AA is among them. test_layout.py has the other tabs and states.
    """
    page.get_by_label("Your question").focus()
    page.keyboard.type("Is there water?")
    page.keyboard.press("Enter")
    answers(page).first.wait_for()
    wait_until_idle(page)
    check_keyboard(page)
    page.locator("#attention").click()
    page.locator("#picture .words").wait_for()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(
            "dark => document.body.classList.contains('dark') === dark", arg=scheme == "dark"
        )
        page.mouse.move(0, 0)
        page.wait_for_function(AT_REST)  # colours fade into those of the other scheme
        keep(f"attention-{scheme}")
        serious = read_violations(page, scheme)
        assert not serious, (scheme, serious)


def check_keyboard(page: Page) -> None:
    """Go through the Chat tab by the Tab key."""
    reached = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    for wanted in ("viewport", "attention", "save", "clear", "tool"):
        assert any(wanted in name for name in reached), (wanted, reached)


def test_tools_alone_are_public_and_documented(app_page):
    public = [fn for fn in app_page.fns.values() if fn.api_visibility == "public"]
    assert {fn.api_name for fn in public} == {"describe_scene", "ask_scene", "search_scenes"}
    assert all(fn.fn.__doc__ for fn in public)
    names = {fn.api_name for fn in app_page.fns.values()}
    assert {"open_scene", "open_named", "draw", "search", "compare_two"} <= names
    assert {"ask", "stop", "retry", "edit", "clear", "save_chat"} <= names
    assert {"attention_map", "land_cover_map"} <= names
