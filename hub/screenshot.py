"""Take screenshots of the app for the README: start it, ask or search, and save the page.

    python hub/screenshot.py --readme         # docs/app.png, docs/search.png and docs/map.png
    python hub/screenshot.py --example 2 --question "Is there water?" --attention --output water.png
    python hub/screenshot.py --search "a lake" --tab Map --height 800 --output lakes.png
    python hub/screenshot.py --dark --width 360 --height 800 --output phone.png

Needs a Chromium: the system's (or one named by --chromium), else Playwright's own.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
LOADING_MS = 120_000  # the first page on a cold machine
# The command line of each of the README's screenshots.
README = (
    "--example 2 --question 'Which land cover dominates?' --height 960 --output docs/app.png",
    "--search 'a lake beside forest' --height 0 --output docs/search.png",
    "--search 'a lake beside forest' --tab Map --height 0 --output docs/map.png",
)
# The element at the bottom of a screenshot of height 0, and the pixels below it.
LAST_ELEMENT = {"Chat": ".workspace", "Search": "#search-results", "Map": "#show-in-search"}
MARGIN = 8


def find_free_port() -> int:
    """Return an unused port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def start_app() -> Iterator[str]:
    """Run app.py on a free port, and yield its address."""
    app = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "app.py")],
        cwd=ROOT,
        env={**os.environ, "GRADIO_SERVER_PORT": str(find_free_port())},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for line in app.stdout or ():
            if match := re.search(r"https?://\S+:\d+", line):
                yield match.group()
                break
        else:
            raise SystemExit("app.py ended before it printed its address; run it alone to see why")
    finally:
        app.terminate()
        app.wait()


def ask_in_chat(page: Page, example: int, questions: list[str]) -> None:
    """Open an example scene by its index, ask the questions, and wait for each answer to end."""
    page.locator("#picture img").wait_for()
    if example:
        name = page.locator("#scene-details strong").inner_text()
        page.locator("#examples .thumbnail-item").nth(example).click()
        page.locator("#scene-details strong").filter(has_not_text=name).wait_for()
    for number, question in enumerate(questions, start=1):
        page.get_by_label("Your question").fill(question)
        page.get_by_role("button", name="Send").click()
        page.locator('#chat [data-testid="bot"]').nth(number - 1).wait_for()
        page.locator("#stop").wait_for(state="hidden")
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)


def search_scenes(page: Page, words: str, tab: str) -> None:
    """Search by words, and open the tab that shows the results."""
    page.get_by_role("tab", name="Search").click()
    page.get_by_label("What the scene shows").fill(words)
    page.get_by_label("What the scene shows").press("Enter")
    page.locator("#search-summary", has_text=words).wait_for()
    page.get_by_role("tab", name=tab).click()
    page.mouse.move(0, 0)
    page.wait_for_timeout(2000)  # thumbnails and the map are drawn after the summary


def take_screenshot(page: Page, url: str, options: argparse.Namespace) -> None:
    """Open the app, ask or search as the options say, and save a screenshot."""
    height = options.height or 900
    page.set_viewport_size({"width": options.width, "height": height})
    page.emulate_media(color_scheme="dark" if options.dark else "light")
    page.goto(url)
    if options.search:
        search_scenes(page, options.search, options.tab)
    else:
        ask_in_chat(page, options.example, options.question)
    if options.attention:
        page.locator("#attention").click()
        page.locator("#picture .words").wait_for()
        page.wait_for_timeout(500)
    if not options.height:
        last = page.locator(LAST_ELEMENT[options.tab if options.search else "Chat"]).bounding_box()
        assert last is not None  # the page has loaded
        height = round(last["y"] + last["height"]) + MARGIN
    options.output.parent.mkdir(parents=True, exist_ok=True)
    # What stays in view while a page scrolls leaves blanks in a picture of the full page.
    page.screenshot(
        path=options.output,
        full_page=not options.height,
        clip={"x": 0, "y": 0, "width": options.width, "height": height},
    )
    print(options.output)


def main() -> None:
    """Parse the arguments and take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readme", action="store_true", help="take the README's screenshots")
    parser.add_argument(
        "--output", type=Path, default=Path("app.png"), help="the file to write (%(default)s)"
    )
    parser.add_argument("--url", help="address of a running app; without it, app.py is started")
    parser.add_argument("--example", type=int, default=0, help="index of the example scene, from 0")
    parser.add_argument(
        "--question",
        nargs="+",
        default=["Describe this scene.", "Is there water?"],
        help="questions to ask, one after the other",
    )
    parser.add_argument(
        "--attention", action="store_true", help="show the attention map of the last answer"
    )
    parser.add_argument(
        "--search", metavar="WORDS", help="search for these words instead of asking"
    )
    parser.add_argument(
        "--tab", default="Search", choices=("Search", "Map"), help="the tab that shows the results"
    )
    parser.add_argument("--width", type=int, default=1440, help="width of the window in pixels")
    parser.add_argument(
        "--height",
        type=int,
        default=900,
        help="height of the window in pixels; 0: down to the last element",
    )
    parser.add_argument("--dark", action="store_true", help="use the dark theme")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="path of a Chromium")
    arguments = parser.parse_args()
    screenshots = [arguments]
    if arguments.readme:
        os.chdir(ROOT)
        screenshots = [parser.parse_args(shlex.split(line)) for line in README]

    with sync_playwright() as playwright, ExitStack() as until_done:
        browser = playwright.chromium.launch(
            executable_path=arguments.chromium, args=CHROMIUM_FLAGS
        )
        until_done.callback(browser.close)
        url = arguments.url or until_done.enter_context(start_app())
        page = browser.new_page()
        page.set_default_timeout(LOADING_MS)
        for options in screenshots:
            take_screenshot(page, url, options)


if __name__ == "__main__":
    main()
