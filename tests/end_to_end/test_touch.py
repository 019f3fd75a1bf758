"""Fingers and the mouse on what can be zoomed: the picture, the map and the two compared scenes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.conftest import END_TO_END
from tests.end_to_end.visitor import TWO_FRAMES, open_tab

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession, Locator, Page

pytestmark = END_TO_END

STEPS = 6


class Fingers:
    """Fingers on a page; each gesture begins and ends in the given elements."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.session: CDPSession = page.context.new_cdp_session(page)
        self.session.send("Emulation.setTouchEmulationEnabled", {"enabled": True})

    def move(self, paths: list[tuple[tuple[float, float], tuple[float, float]]]) -> None:
        """Move one finger along each path, from its first point to its second."""
        for step in range(STEPS + 1):
            points = [
                {
                    "x": x + (to_x - x) * step / STEPS,
                    "y": y + (to_y - y) * step / STEPS,
                    "id": finger,
                }
                for finger, ((x, y), (to_x, to_y)) in enumerate(paths)
            ]
            kind = "touchMove" if step else "touchStart"
            self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            self.page.evaluate(TWO_FRAMES)
        self.session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        self.page.evaluate(TWO_FRAMES)

    def spread(self, target: Locator) -> None:
        """Move two fingers apart, which magnifies."""
        x, y = middle_of(target)
        self.move([((x - 20, y), (x - 70, y)), ((x + 20, y), (x + 70, y))])

    def drag(self, target: Locator, right: float, down: float) -> None:
        x, y = middle_of(target)
        self.move([((x, y), (x + right, y + down))])


def middle_of(target: Locator) -> tuple[float, float]:
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag_by_mouse(page: Page, target: Locator, right: float, down: float) -> None:
    x, y = middle_of(target)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right, y + down, steps=STEPS)
    page.mouse.up()
    page.evaluate(TWO_FRAMES)


def left_of(target: Locator) -> float:
    return target.bounding_box()["x"]


def wait_for_zoom(page: Page) -> None:
    page.wait_for_function("!document.querySelector('.leaflet-zoom-anim')")


@pytest.mark.parametrize("tab", [360], indirect=True, ids=str)
def test_fingers_and_mouse_move_what_is_zoomed(page: Page, practice_data: Path):
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(reduced_motion="reduce")
    fingers = Fingers(page)
    check_picture(page, fingers)
    check_map(page, fingers)
    check_pair(page, fingers, practice_data / "scenes")


def check_picture(page: Page, fingers: Fingers) -> None:
    viewport, scene = page.locator("#picture .viewport"), page.locator("#picture img.scene")
    whole = float(viewport.get_attribute("data-zoom"))
    fingers.drag(viewport, 0, -80)
    assert page.evaluate("scrollY") > 30  # there is nothing to move, so the page scrolls
    fingers.spread(viewport)
    page.locator("#picture .viewport.zoomed").wait_for()
    wait_for_zoom(page)
    assert float(viewport.get_attribute("data-zoom")) > whole + 0.5
    for drag in (fingers.drag, lambda *by: drag_by_mouse(page, *by)):
        before, scrolled = left_of(scene), page.evaluate("scrollY")
        drag(viewport, -30, 0)
        assert left_of(scene) == pytest.approx(before - 30, abs=12)
        assert page.evaluate("scrollY") == scrolled


def check_map(page: Page, fingers: Fingers) -> None:
    open_tab(page, "Map")
    world = page.locator(".world-map[data-drawn]")
    world.wait_for()
    scale = page.locator(".world-map .leaflet-control-scale-line")
    before = scale.inner_text()
    fingers.spread(world)
    wait_for_zoom(page)
    page.wait_for_function(
        "before => document.querySelector('.world-map .leaflet-control-scale-line').innerText"
        " !== before",
        arg=before,
    )
    pane = page.locator(".world-map .leaflet-map-pane")
    for drag in (fingers.drag, lambda *by: drag_by_mouse(page, *by)):
        before = left_of(pane)
        drag(world, -60, 0)
        assert left_of(pane) == pytest.approx(before - 60, abs=20)


def check_pair(page: Page, fingers: Fingers, scenes: Path) -> None:
    open_tab(page, "Compare")
    with page.expect_file_chooser() as chooser:
        page.locator("#upload-pair").click()
    dates = ("2020-02-02", "2022-03-08")
    chooser.value.set_files([scenes / f"boadella_{date}_L2A.tif" for date in dates])
    page.locator("#changes table").wait_for()
    ports, divider = page.locator("#pair .ports"), page.get_by_label("Divider:")
    fingers.drag(ports, 80, 0)
    assert 65 <= int(divider.input_value()) <= 85
    drag_by_mouse(page, ports, -80, 0)
    assert 20 <= int(divider.input_value()) <= 35
    values = page.locator("#pair .values")
    values.filter(has_text="2 February 2020: B04 0.").wait_for()
    assert values.inner_text().count("B04 0.") == 2 and "° N, " in values.inner_text()
    fingers.spread(ports)
    pictures = page.locator("#pair .port img")
    for picture in pictures.all():
        assert picture.bounding_box()["width"] > 1.5 * ports.bounding_box()["width"]
    before = left_of(pictures.first)
    fingers.drag(ports, -40, 0)
    assert left_of(pictures.first) == pytest.approx(before - 40, abs=10)
