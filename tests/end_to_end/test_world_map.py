"""The world map in a browser: clicks open scenes, a drawn box filters, nothing is downloaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import gradio as gr
import pytest

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.search.index import SceneIndex
from earthvlm.serving.map_data import map_scenes
from earthvlm.ui.tabs.map.map_component import add_world_map, get_clicked_scene, get_drawn_bbox
from tests.support.world_index import make_world_index

pytestmark = pytest.mark.end_to_end
THIS_MACHINE = re.compile(r"(https?://(127\.0\.0\.1|localhost)|data:|blob:)")


@pytest.fixture(scope="module")
def map_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page with a map and a field that shows what its events led to."""
    page = build_page(make_world_index(tmp_path_factory.mktemp("world")))
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True)
    yield url
    page.close()


def build_page(index: SceneIndex) -> gr.Blocks:
    def open_scene(event: gr.SelectData):
        return get_clicked_scene(index, event).image_id

    def draw_bbox(event: gr.EventData):
        bbox = get_drawn_bbox(event)
        return map_scenes(index, where=SceneFilter(bbox=bbox)), repr(bbox)

    with gr.Blocks() as page:
        world = add_world_map(map_scenes(index, index.browse(k=2)))
        event = gr.Textbox(elem_id="event", interactive=True)
        world.select(open_scene, None, event)
        world.apply(draw_bbox, None, [world, event])
        world.clear(lambda: (map_scenes(index), "no box"), None, [world, event])
    return page


@pytest.fixture
def map_page(browser, map_url: str):
    """The page in a new tab; the test fails if it requests anything from another machine."""
    page = browser.new_page(viewport={"width": 1000, "height": 700})
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(map_url)
    yield page
    page.close()
    assert [url for url in requests if not THIS_MACHINE.match(url)] == []


@pytest.fixture
def expect_event(map_page) -> Callable[[str | re.Pattern[str]], None]:
    """A check of what the last event led to."""
    from playwright.sync_api import expect

    return lambda value: expect(map_page.locator("#event textarea")).to_have_value(value)


def test_marker_lists_the_scenes_that_share_it(map_page, expect_event):
    from playwright.sync_api import expect

    marker = map_page.locator(".result-marker[tabindex='0']")
    listed = map_page.locator(".result-list button")
    expect(marker).to_have_count(1)  # two scenes at one place
    marker.click()
    expect(listed).to_have_text([re.compile("^1tile_00"), re.compile("^2tile_01")])
    listed.nth(1).click()
    expect_event("tile_01")
    expect(listed).to_have_count(0)


def test_marker_works_by_keyboard(map_page, expect_event):
    from playwright.sync_api import expect

    marker = map_page.locator(".result-marker[tabindex='0']")
    listed = map_page.locator(".result-list button")
    marker.press("Enter")
    expect(listed.first).to_be_focused()
    map_page.keyboard.press("Escape")
    expect(marker).to_be_focused()
    marker.press("Enter")
    listed.first.press("Enter")
    expect_event("tile_00")


def test_drawn_box_filters_and_is_removed(map_page, expect_event):
    from playwright.sync_api import expect

    marker = map_page.locator(".result-marker[tabindex='0']")
    expect(marker).to_have_count(1)
    frame = map_page.locator(".world-map").bounding_box()
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
    map_page.get_by_text("Draw a bounding box").click()
    map_page.mouse.move(x - 60, y - 60)
    map_page.mouse.down()
    map_page.mouse.move(x + 60, y + 60, steps=3)
    map_page.mouse.up()
    expect_event(re.compile(r"^\(11\.\d+, 51\.\d+, 12\.\d+, 52\.\d+\)$"))
    # The scenes inside are points now, not results, in the middle of the box.
    expect(marker).to_have_count(0)
    map_page.wait_for_function("!document.querySelector('.leaflet-zoom-anim')")
    map_page.locator(".world-map").click()
    expect_event("tile_00")

    map_page.get_by_text("Remove the bounding box").click()
    expect_event("no box")
