"""The world map in a browser: a click opens a scene, a drawn box filters, nothing is fetched."""

from __future__ import annotations

import base64
import datetime
import re

import gradio as gr
import numpy as np
import pytest

from earthvlm.search.index import SceneFilter, SceneIndex, write_embedding_dataset
from earthvlm.serving.map_data import map_scenes, read_bbox
from earthvlm.ui.tabs.map_component import add_world_map, clicked_scene, drawn_bbox
from tests.support.made_scenes import MADE_BY, make_rows


@pytest.fixture
def index(tmp_path):
    """Five scenes near Berlin, the first two in one place, one at Fiji, one without a place."""
    rows = make_rows(7)
    for number, row in enumerate(rows):
        row |= {"longitude": 12.0 + number, "latitude": 52.0, "date": datetime.date(2020, 1, 1)}
    rows[1] |= {"longitude": 12.0}
    rows[5] |= {"longitude": 179.5, "latitude": -17.0}
    rows[6] |= {"longitude": None, "latitude": None}
    write_embedding_dataset(tmp_path, rows, *MADE_BY)
    return SceneIndex.from_pretrained(tmp_path)


def decode(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_a_map_holds_the_scenes_that_have_a_place(index):
    value = map_scenes(index, index.browse(k=2), SceneFilter(bbox=(170, -20, -170, 0)))
    assert decode(value["rows"], "<i4").tolist() == [5]
    assert decode(value["points"], "<f4").tolist() == [179.5, -17.0]
    assert value["box"] == [170, -20, -170, 0]
    assert [(each["row"], each["rank"]) for each in value["results"]] == [(0, 1), (1, 2)]
    sample = map_scenes(index, index.browse(), most_points=3)
    assert (sample["placed"], len(decode(sample["rows"], "<i4"))) == (6, 3)
    assert len(sample["results"]) == 6


def test_a_drawn_box_is_brought_onto_the_globe():
    assert read_bbox([170, -10, 190, 10]) == (170, -10, -170, 10)
    assert read_bbox([-200, -95, -100, 10]) == (160, -90, -100, 10)
    assert read_bbox([-300, 0, 100, 1]) == (-180, 0, 180, 1)


@pytest.mark.end_to_end
def test_a_click_opens_a_scene_and_a_box_filters(index, browser):
    from playwright.sync_api import expect

    with gr.Blocks() as page:
        world = add_world_map(map_scenes(index, index.browse(k=2)))
        said = gr.Textbox(elem_id="said", interactive=True)

        def open_scene(event: gr.SelectData):
            return clicked_scene(index, event).image_id

        def draw_box(event: gr.EventData):
            bbox = drawn_bbox(event)
            return map_scenes(index, where=SceneFilter(bbox=bbox)), repr(bbox)

        world.select(open_scene, None, said)
        world.apply(draw_box, None, [world, said])
        world.clear(lambda: (map_scenes(index), "no box"), None, [world, said])
    address = page.launch(prevent_thread_lock=True, quiet=True)[1]
    elsewhere: list[str] = []
    try:
        view = browser.new_page(viewport={"width": 1000, "height": 700})
        view.on("request", lambda request: elsewhere.append(request.url))
        view.goto(address)
        answer = view.locator("#said textarea")
        marker = view.locator(".found-scene[tabindex='0']")
        listed = view.locator(".found-list button")
        expect(marker).to_have_count(1)  # two in one place
        marker.click()
        expect(listed).to_have_text([re.compile("^1tile_00"), re.compile("^2tile_01")])
        listed.nth(1).click()
        expect(answer).to_have_value("tile_01")
        expect(listed).to_have_count(0)

        marker.press("Enter")  # without a mouse, too
        expect(listed.first).to_be_focused()
        view.keyboard.press("Escape")
        expect(marker).to_be_focused()
        marker.press("Enter")
        listed.first.press("Enter")
        expect(answer).to_have_value("tile_00")

        frame = view.locator(".world-map").bounding_box()
        middle = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
        view.get_by_text("Draw a box").click()
        view.mouse.move(middle[0] - 60, middle[1] - 60)
        view.mouse.down()
        view.mouse.move(middle[0] + 60, middle[1] + 60, steps=3)
        view.mouse.up()
        expect(answer).to_have_value(re.compile(r"^\(11\.\d+, 51\.\d+, 12\.\d+, 52\.\d+\)$"))
        # The dot that is left, no result any more, lies in the middle of the box.
        expect(marker).to_have_count(0)
        view.wait_for_function("!document.querySelector('.leaflet-zoom-anim')")
        view.locator(".world-map").click()
        expect(answer).to_have_value("tile_00")

        view.get_by_text("Remove the box").click()
        expect(answer).to_have_value("no box")
        view.close()
    finally:
        page.close()
    local = re.compile(r"(https?://(127\.0\.0\.1|localhost)|data:|blob:)")
    assert [url for url in elsewhere if not local.match(url)] == []
