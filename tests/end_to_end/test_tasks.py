"""Five tasks that people have, with the clicks and the seconds that each takes.

    python -m pytest -s -p no:randomly tests/end_to_end/test_tasks.py

prints the table of docs/serving.md. A click is a press of the mouse's button in the page; typing,
Enter and the choice of a file in the system's window are none. The seconds are the page's own, from
the first click to the result: nobody thinks, reads or looks for a file meanwhile.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from earthvlm.scenes.places.gazetteer import find_place
from tests.end_to_end.conftest import END_TO_END
from tests.end_to_end.visitor import answers, pasted, read_message, wait_until_idle

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = END_TO_END

COUNT_CLICKS = """() => {
  window.clicks = 0;
  addEventListener('pointerdown', (event) => { window.clicks += event.isTrusted; }, true);
}"""


@contextmanager
def timed(page: Page, task: str, most_clicks: int) -> Iterator[None]:
    """Count a task's clicks, print a row of the table, and check that it took no more clicks."""
    page.evaluate(COUNT_CLICKS)
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    clicks = page.evaluate("window.clicks")
    print(f"\n| {task} | {clicks} | {seconds:.1f} |")
    assert 0 < clicks <= most_clicks, task


def choose_files(page: Page, button: Locator, *paths: Path) -> None:
    with page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files(list(paths))


def read_share(page: Page, cover: str) -> int:
    """Return the measured share of a cover of the open scene, in per cent."""
    text = page.locator("#scene-details tr", has_text=cover).inner_text()
    return int(re.search(r"(\d+)\s*%", text)[1])


def test_find_a_lake_near_a_city(page: Page, app_index):
    with timed(page, "Find a lake near a city", 2):
        page.get_by_role("tab", name="Search").click()
        words = page.get_by_label("What the scene shows")
        words.fill("a lake near Berlin")
        words.press("Enter")
        page.locator(
            "#search-summary", has_text="closest to a lake, within 100 km of Berlin"
        ).wait_for()
        page.locator(".result .open").first.click()
        page.get_by_role("tab", name="Chat", selected=True).wait_for()
        # Another scene is open at the start.
        page.locator("#scene-details h2", has_text="Brandenburg").wait_for()
    assert read_share(page, "Water") > 20
    found = app_index.get(page.locator("#scene-details strong").inner_text())
    assert find_place("Berlin").distance_km(found.longitude, found.latitude) < 150  # a box's corner


def test_tell_how_much_forest_is_in_a_file(page: Page, practice_data: Path):
    file = practice_data / "scenes" / "boadella_2022-03-08_L2A.tif"
    with timed(page, "Tell how much forest is in my file", 2):
        choose_files(page, page.locator("#upload button").first, file)
        page.locator("#scene-details strong", has_text=file.stem).wait_for()
        question = page.get_by_label("Your question")
        question.fill("How much forest is there?")
        question.press("Enter")
        answers(page).filter(has_text=re.compile(r"percent")).wait_for()
        wait_until_idle(page)
    said = int(re.search(r"(\d+) percent", read_message(answers(page).last))[1])
    measured = answers(page).last.locator(".compared", has_text="measured").inner_text()
    assert 60 <= said <= 85 and re.search(r"vegetation of any kind 8\d\s%", measured)
    assert 65 <= read_share(page, "Dense vegetation") <= 80


def test_tell_what_changed_at_a_reservoir(page: Page, practice_data: Path):
    files = [
        practice_data / "scenes" / f"boadella_{date}_L2A.tif"
        for date in ("2020-02-02", "2022-03-08")
    ]
    with timed(page, "Tell what changed at my reservoir", 2):
        page.get_by_role("tab", name="Compare").click()
        choose_files(page, page.locator("#upload-pair"), *files)
        water = page.locator("#changes tr", has_text="Water")
        water.wait_for()
    assert re.search(r"2\d\s%\s+12\s%\s+−8\.\d ± ", water.inner_text())
    # All of it is in view, with the picture: the water's row and the map of where it was lost.
    for part in (water, page.locator("#pair .port").first, page.locator("#changes .change-covers")):
        box = part.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= page.viewport_size["height"], box


def test_tell_which_scene_is_most_like_a_file(page: Page, practice_data: Path):
    file = practice_data / "scenes" / "boadella_2022-03-08_L2A.tif"
    with timed(page, "Tell which scene is most like mine", 2):
        page.get_by_role("tab", name="Search").click()
        choose_files(page, page.locator("#search-file"), file)
        page.locator("#search-summary", has_text=f"most similar to {file.stem}").wait_for()
        page.locator(".result .facts b").first.wait_for()
    matches = [int(each.split()[0]) for each in page.locator(".result .facts b").all_inner_texts()]
    assert len(matches) == 12 and matches == sorted(matches, reverse=True) and matches[0] > 30


def test_quote_an_answer_with_its_source(page: Page, app_index):
    with timed(page, "Quote an answer with its source", 2):
        page.get_by_role("button", name="Is there water?").click()
        page.locator("#quote").click()  # it is there when the answer has ended
        page.locator("#quote.done").wait_for()
    name = page.locator("#scene-details strong").inner_text()
    quoted, answer = pasted(page), read_message(answers(page).last)
    assert quoted.startswith(f"“{' '.join(answer.split())}”\nAnswer of SmolLM2-135M-Instruct")
    for part in (
        "to “Is there water?”",
        f"({name})",
        "Measured from the bands",
        app_index.get(name).source,
    ):
        assert part in quoted, part
    assert quoted.splitlines()[-1] == page.url and f"scene={name}" in page.url
