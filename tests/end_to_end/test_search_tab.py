"""The Search and Map tabs in a browser: words, examples, filters, boxes, and results in Chat."""

from __future__ import annotations

import csv
import datetime
import json
import re
from collections.abc import Callable, Sized
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas

from earthvlm.embeddings.filters import SceneFilter, parse_bbox
from earthvlm.scenes.places.formatting import describe_count
from earthvlm.scenes.places.gazetteer import find_place
from earthvlm.ui.tabs.search.filters import BBOX_LABEL, DEFAULT_RESULTS, NEAR_LABEL, name_group
from earthvlm.ui.tabs.search.search_results import PAGE_SIZE
from tests.end_to_end.conftest import END_TO_END, either_width
from tests.end_to_end.visitor import (
    answers,
    open_filters,
    open_tab,
    read_warning,
    wait_for_count,
)

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = END_TO_END


def results(page: Page) -> Locator:
    return page.locator("#search-results .result")


def search(page: Page, words: str) -> None:
    """Search by words, and wait for the results."""
    open_tab(page, "Search")
    page.get_by_label("What the scene shows").fill(words)
    page.get_by_label("What the scene shows").press("Enter")
    page.locator("#search-summary", has_text=f"closest to {words}").wait_for()


def save_csv(page: Page) -> list[dict[str, str]]:
    """Save the results, and return the rows of the file."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    with Path(download.value.path()).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def bbox_field(page: Page) -> Locator:
    """The field for a bounding box in the tab that is open."""
    return page.get_by_label(BBOX_LABEL).locator("visible=true")


@either_width
def test_search_results_are_plain_and_open_in_chat(page: Page, keep: Callable[..., None]):
    search(page, "a lake beside forest")
    wait_for_count(results(page), PAGE_SIZE)
    card = results(page).first
    text = card.inner_text()
    assert re.search(r"^Near .+\n+\d+ % match · \d+ \w+ \d{4}\n", text), text
    assert "cosine" not in text and "rank" not in text
    card.locator("summary").click()
    assert re.search(r"cosine 0\.\d\d, rank \d", card.inner_text())
    matches = [int(each.split()[0]) for each in page.locator(".facts b").all_inner_texts()]
    assert matches == sorted(matches, reverse=True)
    keep("search-results")
    page.get_by_role("button", name="Next").click()
    page.locator(".pager", has_text=f"13 to 24 of {DEFAULT_RESULTS}").wait_for()
    assert page.evaluate("document.activeElement.matches('.result .open')")
    page.get_by_label("Sorted by").click()
    page.get_by_role("option", name="oldest first").click()
    page.locator(".pager", has_text=f"1 to 12 of {DEFAULT_RESULTS}").wait_for()
    dates = [row["date"] for row in save_csv(page) if row["date"]]
    assert dates == sorted(dates) and len(set(dates)) > 1
    page.get_by_label("Sorted by").click()
    page.get_by_role("option", name="best match").click()

    results(page).nth(2).locator(".open").click()
    page.get_by_role("tab", name="Chat", selected=True).wait_for()
    name = page.locator("#scene-details strong")
    name.wait_for()
    assert answers(page).count() == 0
    open_tab(page, "Search")
    page.get_by_role("button", name="Like the scene in Chat").click()
    page.locator("#search-summary", has_text=f"most similar to {name.text_content()}").wait_for()
    page.get_by_label("Match the words above, too").check()
    page.get_by_role("button", name="Like the scene in Chat").click()
    page.locator(
        "#search-summary", has_text="closest to a lake beside forest and most similar to"
    ).wait_for()


@either_width
def test_marked_scenes_and_places_are_searched(page: Page, app_index, keep: Callable[..., None]):
    search(page, "open water")
    thumbs = results(page).nth(0).locator(".marks button")
    thumbs.nth(0).click()
    results(page).nth(1).get_by_label("More like this").click()
    results(page).nth(5).get_by_label("Less like this").click()
    page.locator("#marks", has_text="2 wanted, 1 unwanted").wait_for()
    assert thumbs.nth(0).get_attribute("aria-pressed") == "true"
    keep("marks")
    page.get_by_role("button", name="More like these").click()
    page.locator("#search-summary", has_text="similar to 2 wanted scenes and unlike 1").wait_for()
    page.get_by_role("button", name="Clear the marks").click()
    page.locator("#marks").wait_for(state="hidden")

    page.get_by_label("What the scene shows").fill("a lake near Berlin")
    page.get_by_role("button", name="Search", exact=True).click()
    page.locator(
        "#search-summary", has_text="closest to a lake, within 100 km of Berlin"
    ).wait_for()
    bbox = find_place("Berlin").bbox(100)
    inside = {each.image_id for each in app_index.browse(where=SceneFilter(bbox=bbox))}
    assert {row["image_id"] for row in save_csv(page)} <= inside
    page.get_by_label(NEAR_LABEL).locator("visible=true").fill("Porto")
    page.get_by_label(NEAR_LABEL).locator("visible=true").press("Enter")
    page.locator("#search-summary", has_text="The nearest scene is").wait_for()
    page.get_by_label(NEAR_LABEL).locator("visible=true").fill("")
    search(page, "open water")
    results(page).first.get_by_label("Show on the map").click()
    page.get_by_role("tab", name="Map", selected=True).wait_for()
    page.locator(".map-card b", has_text="1: near").wait_for()
    page.locator(".map-card img").wait_for()
    page.locator("path.footprint.result").first.wait_for()
    keep("map-located")
    page.get_by_role("button", name="Scenes like this").click()
    page.locator("#map-summary", has_text="results of the last search").wait_for()


@either_width
def test_typed_filters_narrow_a_search_or_find_nothing(
    page: Page, app_index, keep: Callable[..., None]
):
    dates = {"first_date": datetime.date(2017, 6, 1), "last_date": datetime.date(2017, 12, 31)}
    in_time = app_index.browse(where=SceneFilter(**dates))
    finnish = SceneFilter(**dates, source="FINLAND", bbox=(29, 60, 31.5, 70))
    in_finland = app_index.browse(where=finnish)
    assert 0 < len(in_finland) < len(in_time) <= PAGE_SIZE
    summary = page.locator("#search-summary")
    open_tab(page, "Search")
    open_filters(page)

    page.get_by_label("Taken from").fill("1.6.2017")
    page.get_by_label("Taken from").press("Enter")
    assert read_warning(page) == "'1.6.2017' is no date as in 2020-06-30."
    page.get_by_label("Taken from").fill("2030-01-01")
    page.get_by_label("Taken from").press("Enter")
    summary.filter(
        has_text="No scene matches the filters: taken on or after 1 January 2030"
    ).wait_for()
    wait_for_count(results(page), 0)
    page.get_by_role("button", name="Save as CSV").click()
    assert "no results to save" in read_warning(page)
    page.get_by_label("Taken from").fill("2017-06-01")
    page.get_by_label("Taken until").fill("2017-12-31")
    page.get_by_role("button", name="Search", exact=True).click()
    text = f"of {len(app_index)} scenes, taken on or after 1 June 2017, taken on or before 31 Dec"
    summary.filter(has_text=text).wait_for()
    wait_for_count(results(page), len(in_time))

    page.get_by_label("Words in the name of the source").fill("no such source")
    page.get_by_role("button", name="Apply filters").click()
    assert "no source of this dataset" in read_warning(page).lower()
    page.get_by_label("Words in the name of the source").fill("FINLAND")
    bbox_field(page).fill("29, 70, 31.5, 60")
    bbox_field(page).press("Enter")
    assert "south not above north" in read_warning(page)
    wait_for_count(results(page), len(in_time))  # the results before stay
    bbox_field(page).fill("29, 60, 31.5, 70")
    page.get_by_label("What the scene shows").fill("forest")
    page.get_by_role("button", name="Search", exact=True).click()
    summary.filter(has_text="inside 29.00° E to 31.50° E, 60.00° N to 70.00° N").wait_for()
    wait_for_count(results(page), len(in_finland))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    keep("filters")
    assert {row["image_id"] for row in save_csv(page)} == {r.image_id for r in in_finland}

    page.get_by_role("button", name="Clear filters").click()
    summary.filter(has_text="closest to forest").filter(has_not_text="taken").wait_for()
    wait_for_count(results(page), PAGE_SIZE)
    assert page.get_by_label("Words in the name of the source").input_value() == ""
    assert bbox_field(page).input_value() == ""


# How many results the markers stand for: one each, or those of "3 results".
COUNT_RESULTS = """() => [...document.querySelectorAll(".result-marker[tabindex='0']")].reduce(
  (sum, marker) => sum + Number(marker.innerText.match(/(\\d+) results/)?.[1] ?? 1), 0)"""


def markers(page: Page) -> Locator:
    return page.locator(".result-marker[tabindex='0']")


def wait_for_results(page: Page, count: int) -> None:
    page.wait_for_function(f"count => ({COUNT_RESULTS})() === count", arg=count)


# The map no longer moves: its markers have kept their positions for some frames.
STANDS_STILL = """() => {
  const markers = [...document.querySelectorAll(".result-marker")];
  const positions = JSON.stringify(markers.map((marker) => marker.getBoundingClientRect()));
  window.stillFor = positions === window.positionsBefore ? window.stillFor + 1 : 0;
  window.positionsBefore = positions;
  return window.stillFor > 20;
}"""


def count_scenes(scenes: Sized) -> str:
    return describe_count(len(scenes), "scene")


@either_width
def test_box_drawn_on_the_map_limits_search(page: Page, app_index, keep: Callable[..., None]):
    search(page, "open water")
    rows = save_csv(page)
    mapped = [row for row in rows if row["longitude"]]
    open_tab(page, "Map")
    counted = "the" if len(mapped) == len(rows) else f"{len(mapped)} of"
    page.locator("#map-summary", has_text=f"Orange: {counted} {len(rows)} results").wait_for()
    wait_for_results(page, len(mapped))
    page.wait_for_function(STANDS_STILL)
    # Around the northernmost result, so that the box leaves others out.
    places = [marker.bounding_box() for marker in markers(page).all()]
    north = min(places, key=lambda place: place["y"])
    x, y = north["x"] + north["width"] / 2, north["y"] + north["height"] / 2
    page.get_by_role("button", name="Draw an area").click()
    page.mouse.move(x - 16, y - 16)
    page.mouse.down()
    page.mouse.move(x + 16, y + 16, steps=4)
    page.mouse.up()

    page.wait_for_function("field => field.value", arg=bbox_field(page).element_handle())
    bbox = parse_bbox(bbox_field(page).input_value())
    inside = {result.image_id for result in app_index.browse(where=SceneFilter(bbox=bbox))}
    assert 0 < len(inside) < len(app_index)
    page.locator("#map-summary", has_text=f"{count_scenes(inside)} in the area").wait_for()
    wait_for_results(page, min(len(inside), DEFAULT_RESULTS))
    page.wait_for_function("!document.querySelector('.leaflet-zoom-anim')")
    keep("map-bbox")

    page.get_by_role("button", name="List these scenes").click()
    page.locator("#search-summary", has_text="closest to open water, inside").wait_for()
    found = {row["image_id"] for row in save_csv(page)}
    assert len(found) == min(len(inside), DEFAULT_RESULTS) and found <= inside

    open_tab(page, "Map")
    page.get_by_role("button", name="Remove the area").click()
    page.locator("#map-summary", has_text=f"{count_scenes(app_index)}, ").wait_for()
    wait_for_results(page, len(mapped))
    assert bbox_field(page).input_value() == ""


def test_box_typed_on_the_map_limits_search(page: Page, app_index):
    open_tab(page, "Map")
    bbox_field(page).fill("far away")
    bbox_field(page).press("Enter")
    assert "west, south, east and north" in read_warning(page)
    bbox_field(page).fill("-11 51 -5 56")
    bbox_field(page).press("Enter")
    inside = app_index.browse(where=SceneFilter(bbox=(-11, 51, -5, 56)))
    page.locator("#map-summary", has_text=f"{count_scenes(inside)} in the area").wait_for()
    open_tab(page, "Search")
    page.locator(
        "#search-summary", has_text="inside 11.00° W to 5.00° W, 51.00° N to 56.00° N"
    ).wait_for()
    wait_for_count(results(page), len(inside))
    open_filters(page)
    assert bbox_field(page).input_value() == "-11, 51, -5, 56"


def test_search_warns_when_its_engine_is_down(page: Page, app_index, monkeypatch):
    class DownEngine:
        def search(self, *_):
            raise ConnectionError("Milvus at <b>host</b> does not answer")

    monkeypatch.setattr(app_index, "engine", DownEngine())
    open_tab(page, "Search")
    page.get_by_role("button", name="open water").click()
    warning = page.locator("#search-summary .warning")
    warning.wait_for()
    assert warning.inner_text().startswith("Milvus at <b>host</b> does not answer; ")
    wait_for_count(results(page), PAGE_SIZE)
    monkeypatch.undo()
    page.get_by_role("button", name="dense forest").click()
    page.locator("#search-summary", has_text="dense forest").wait_for()
    assert warning.count() == 0


@either_width
def test_split_narrows_results_that_every_format_saves(page: Page, app_index, tmp_path):
    open_tab(page, "Search")
    page.locator("#search-summary", has_text=f"of {len(app_index)} scenes").wait_for()
    split = app_index.splits[0]
    open_filters(page)
    page.get_by_label("Group of scenes").click()
    page.get_by_role("option", name=name_group(split)).click()
    total = min(len(app_index.browse(split)), DEFAULT_RESULTS)
    page.locator("#search-summary", has_text=f"{total} of {len(app_index)} scenes").wait_for()
    rows = save_csv(page)
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, len(rows) + 1)]
    assert {row["split"] for row in rows} == {split}
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as GeoJSON").click()
    features = json.loads(Path(download.value.path()).read_text("utf-8"))["features"]
    assert [feature["id"] for feature in features] == [row["image_id"] for row in rows]
    for name, suffix in (("GeoPackage", ".gpkg"), ("GeoParquet", ".parquet")):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Save as {name}").click()
        path = tmp_path / f"scenes{suffix}"
        download.value.save_as(path)
        frame = (
            geopandas.read_parquet(path)
            if suffix == ".parquet"
            else geopandas.read_file(path, layer="scenes")
        )
        assert download.value.suggested_filename == path.name
        assert list(frame.image_id) == [row["image_id"] for row in rows]
