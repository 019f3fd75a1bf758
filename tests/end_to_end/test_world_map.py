"""The world map in a browser: clusters, cards, areas, by keyboard too.

Nothing is downloaded, but for the pictures of an online map where the owner wants one.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import gradio as gr
import pytest
from PIL import Image

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.search.index import SceneIndex
from earthvlm.serving.map_data import map_scenes
from earthvlm.ui.basemap import VARIABLE
from earthvlm.ui.security.checked_page import CheckedPage
from earthvlm.ui.tabs.map.map_component import (
    add_world_map,
    get_clicked_scene,
    get_drawn_bbox,
    show_peek,
)
from earthvlm.ui.tabs.search.search_results import encode_thumbnail
from tests.end_to_end.conftest import PATIENCE_MS
from tests.support.ports import free_port
from tests.support.world_index import make_world_index

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.end_to_end,
    # Gradio's own, about pandas; as an error it would end tasks of its queue.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.queueing"),
]


@pytest.fixture(scope="module")
def world_index(tmp_path_factory: pytest.TempPathFactory) -> SceneIndex:
    return make_world_index(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def map_url(world_index: SceneIndex) -> Iterator[str]:
    """The address of a page with a map and a field that shows what its events led to."""
    page = build_page(world_index)
    _, url, _ = page.launch(server_port=free_port(), prevent_thread_lock=True, quiet=True)
    yield url
    page.close()


def build_page(index: SceneIndex) -> gr.Blocks:
    def open_scene(event: gr.SelectData):
        return get_clicked_scene(index, event).image_id

    def find_similar(event: gr.EventData):
        return f"like {get_clicked_scene(index, event).image_id}"

    def peek(event: gr.EventData):
        entry = get_clicked_scene(index, event)
        return show_peek(event.index, entry, "", encode_thumbnail(entry.thumbnail))

    def draw_bbox(event: gr.EventData):
        bbox = get_drawn_bbox(event)
        return map_scenes(index, where=SceneFilter(bbox=bbox)), repr(bbox)

    with CheckedPage() as page:
        world = add_world_map(map_scenes(index, index.browse(k=2)))
        event = gr.Textbox(elem_id="event", interactive=True)
        world.select(open_scene, None, event)
        world.similar(find_similar, None, event)
        world.peek(peek, None, world)
        world.apply(draw_bbox, None, [world, event])
        world.clear(lambda: (map_scenes(index), "no box"), None, [world, event])
    return page


@pytest.fixture
def map_page(browser, map_url: str):
    """The page in a new tab; the test fails if it requests anything from another server.

    Reduced motion, because a map that still moves slides from under the pointer.
    """
    page = browser.new_page(viewport={"width": 1000, "height": 700}, reduced_motion="reduce")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(map_url)
    yield page
    page.close()
    assert [url for url in requests if not url.startswith((map_url, "data:", "blob:"))] == []


@pytest.fixture
def expect_event(map_page) -> Callable[[str | re.Pattern[str]], None]:
    """A check of what the last event led to."""
    from playwright.sync_api import expect

    return lambda value: expect(map_page.locator("#event textarea")).to_have_value(
        value, timeout=PATIENCE_MS
    )


# The map begins to zoom a frame after a click, and ignores clicks until it has zoomed.
NEXT_FRAME = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def zoom_out(page: Page, steps: int) -> None:
    for _ in range(steps):
        page.get_by_role("button", name="Zoom out").click()
        page.evaluate(NEXT_FRAME)
        page.wait_for_function("!document.querySelector('.leaflet-zoom-anim')")


def test_borders_waters_and_towns_are_drawn_when_the_map_is_seen(map_page):
    map_page.locator(".world-map[data-drawn]").wait_for()
    zoom_out(map_page, 7)
    # All rivers are one path in each copy of the world; few towns fit next to the countries' names.
    least = {"path.land": 4, "path.lake": 4, "path.river": 3, ".country": 4, ".town": 2}
    for drawn, count in least.items():
        assert map_page.locator(drawn).count() >= count, drawn
    assert map_page.locator(".map-name", has_text="Germany").count() >= 1


def test_waters_and_small_towns_are_named_where_zoomed_in(map_page):
    names = map_page.locator(".map-name")
    map_page.locator(".world-map[data-drawn]").wait_for()
    names.filter(has_text="Zerbst").first.wait_for()  # 22,000 people: from the second list
    zoom_out(map_page, 5)
    for name in ("Elbe", "Oder"):
        assert names.filter(has_text=re.compile(f"^{name}$")).count() == 1
    assert names.filter(has_text="Zerbst").count() == 0


def test_results_of_one_place_are_listed_by_keyboard(map_page, expect_event):
    from playwright.sync_api import expect

    marker = map_page.locator(".result-marker[tabindex='0']")
    listed = map_page.locator(".map-card li button")
    expect(marker).to_have_text("2 results")  # two scenes at one place
    marker.press("Enter")
    expect(listed).to_have_count(2)
    expect(listed.first).to_be_focused()
    map_page.keyboard.press("Escape")
    expect(marker).to_be_focused()
    marker.press("Enter")
    listed.nth(1).press("Enter")
    expect(map_page.locator(".map-card b")).to_contain_text("2: Near")
    map_page.get_by_role("button", name="Open in Chat").press("Enter")
    expect_event("tile_01")


# The markers of the middle copy of the world that are small, or lie on another.
WRONG_MARKERS = """() => {
  const boxes = [...document.querySelectorAll('.leaflet-marker-icon[tabindex="0"]')]
    .map((each) => [each.ariaLabel, each.getBoundingClientRect()]);
  const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 0
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0;
  return boxes.filter(([, box], i) => Math.min(box.width, box.height) < 24
    || boxes.some(([, other], j) => i !== j && overlap(box, other))).map(([label]) => label);
}"""


def test_markers_are_large_and_apart_at_every_zoom(map_page):
    map_page.locator(".result-marker").first.wait_for()
    zoom_out(map_page, 5)
    for _ in range(3):
        zoom_out(map_page, 1)
        assert map_page.locator('.leaflet-marker-icon[tabindex="0"]').count() >= 2
        assert map_page.evaluate(WRONG_MARKERS) == []


def test_clusters_open_and_scenes_show_names_and_pictures(map_page, expect_event):
    from playwright.sync_api import expect

    marker = map_page.locator(".result-marker[tabindex='0']")
    expect(marker).to_have_count(1)
    dots = map_page.locator(".dot[tabindex='0']")
    zoom_out(map_page, 6)
    cluster = map_page.locator(".cluster[tabindex='0']")
    expect(cluster.first).to_have_attribute("aria-label", re.compile("scenes here: open"))
    cluster.first.press("Enter")
    expect(dots.first).to_be_visible()
    dots.first.focus()
    expect(map_page.locator(".map-hint")).to_contain_text(re.compile("Near .*, 1 January 2020"))
    expect(map_page.locator(".map-hint img")).to_have_attribute("src", re.compile("^data:image"))
    hint = map_page.locator(".map-hint").bounding_box()
    assert map_page.locator(".map-hint img").bounding_box()["width"] == 128
    assert 130 < hint["width"] <= 220  # not a word a line
    dots.first.press("Enter")
    map_page.get_by_role("button", name="Scenes like this").click()
    expect_event(re.compile("^like tile_0"))


def test_reduced_motion_is_honoured(map_page):
    """The frames of half a second after a zoom and a pan by keyboard all show the final view."""
    moving = """async () => {
        const pane = document.querySelector(".leaflet-map-pane");
        const seen = new Set();
        for (const end = performance.now() + 500; performance.now() < end;) {
            await new Promise(requestAnimationFrame);
            seen.add(pane.className + pane.style.transform);
        }
        return seen.size;
    }"""
    map_page.locator(".world-map[data-drawn=true]").focus()
    for key in ("ArrowRight", "+"):
        map_page.keyboard.press(key)
        assert map_page.evaluate(moving) == 1


def test_area_is_drawn_removed_and_taken_from_the_view(map_page, expect_event):
    from playwright.sync_api import expect

    expect(map_page.locator(".result-marker[tabindex='0']")).to_have_count(1)
    frame = map_page.locator(".world-map").bounding_box()
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
    map_page.get_by_text("Draw an area").click()
    map_page.mouse.move(x - 60, y - 60)
    map_page.mouse.down()
    map_page.mouse.move(x + 60, y + 60, steps=3)
    map_page.mouse.up()
    expect_event(re.compile(r"^\(1[12]\.\d+, 5[12]\.\d+, 12\.\d+, 52\.\d+\)$"))
    map_page.get_by_text("Remove the area").click()
    expect_event("no box")
    map_page.get_by_text("Search in this view").click()
    expect_event(re.compile(r"^\(-180\.0, .*, 180\.0, "))  # it is too wide to cross the date line
    map_page.locator(".world-map").click(position={"x": 60, "y": 300})
    map_page.get_by_role("button", name="Scenes within 100 km").click()
    expect_event(re.compile(r"^\((?!-180\.0)-?\d+\.\d+, "))


class TileServer(ThreadingHTTPServer):
    """Another server, which sends one picture for every tile, or status 503."""

    daemon_threads = True
    is_broken = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), TileHandler)
        drawn = io.BytesIO()
        Image.new("RGB", (256, 256), "teal").save(drawn, "PNG")
        self.tile = drawn.getvalue()
        self.origin = f"http://127.0.0.1:{self.server_port}"


class TileHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        fits = re.fullmatch(r"/tiles/\d+/\d+/\d+\.png", self.path)
        self.send_response(503 if self.server.is_broken else 200 if fits else 404)
        self.end_headers()
        self.wfile.write(b"" if self.server.is_broken else self.server.tile)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def online_map(browser, world_index: SceneIndex, monkeypatch) -> Iterator[tuple[Page, TileServer]]:
    """A new tab and the server whose tiles the page of that tab is to show."""
    tiles = TileServer()
    threading.Thread(target=tiles.serve_forever, daemon=True).start()
    monkeypatch.setenv(
        VARIABLE, f"{tiles.origin}/tiles/{{z}}/{{x}}/{{y}}.png © <Map> {tiles.origin}/"
    )
    page = build_page(world_index)
    _, url, _ = page.launch(server_port=free_port(), prevent_thread_lock=True, quiet=True)
    tab = browser.new_page(viewport={"width": 1000, "height": 700}, base_url=url)
    yield tab, tiles
    tab.close()
    page.close()
    tiles.shutdown()
    tiles.server_close()


def test_an_online_map_is_shown_where_the_owner_wants(online_map):
    tab, tiles = online_map
    tab.goto("/")
    tab.locator(".world-map.online[data-drawn=true]").wait_for()
    assert tab.locator(".leaflet-tile-loaded").first.evaluate("tile => tile.naturalWidth") == 256
    assert not tab.locator(".map-name").first.is_visible()
    credit = tab.locator(".leaflet-control-attribution a", has_text="© <Map>")
    assert credit.get_attribute("href") == f"{tiles.origin}/"
    # Of the other servers it is this one alone: by another name it is another.
    refused = """address => new Promise((done) => {
        addEventListener("securitypolicyviolation", (event) => done(event.violatedDirective));
        new Image().src = address;
    })"""
    other = tiles.origin.replace("127.0.0.1", "localhost")
    assert tab.evaluate(refused, f"{other}/tiles/0/0/0.png") == "img-src"


def test_the_bundled_map_is_shown_where_the_online_map_is_not(online_map):
    tab, tiles = online_map
    tiles.is_broken = True
    with tab.expect_response(re.compile("/tiles/")) as answer:
        tab.goto("/")
    assert answer.value.status == 503
    tab.locator(".world-map[data-drawn=true]:not(.online)").wait_for()
    tab.locator(".map-name").first.wait_for()
    assert tab.locator("path.land").count() >= 4
    assert tab.locator(".leaflet-tile-loaded").count() == 0
    tiles.is_broken = False
    tab.get_by_role("button", name="Zoom out").click()
    tab.locator(".world-map.online").wait_for()
