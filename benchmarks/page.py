"""Measure how soon a tab's first view is complete, and how soon a closed tab frees the model.

    python -m benchmarks.page

The app runs in this process with the bundled bridge. Chromium opens it: the system's, the one that
--chromium names, or Playwright's own. A tab is closed during an answer that would never end; the
seconds are those until the model has stopped.
"""

from __future__ import annotations

import argparse
import queue
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from benchmarks.report import report
from earthvlm.ui.app import LAUNCH_OPTIONS, build_app, warm_up
from earthvlm.ui.models import load_models

CHROMIUM_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
TABS = 5
PATIENCE_SECONDS = 120


class Endless:
    """The bridge's own words, again and again; `began` and `ended` tell when."""

    def __init__(self, stream: Callable[..., Iterator[str]]) -> None:
        self.stream = stream
        self.began: queue.Queue[float] = queue.Queue()
        self.ended: queue.Queue[float] = queue.Queue()

    def __call__(self, *arguments: Any, stop: Any, **options: Any) -> Iterator[str]:
        began = False
        try:
            while not stop.is_set():
                for piece in self.stream(*arguments, stop=stop, **options):
                    if not began:
                        self.began.put(time.perf_counter())
                        began = True
                    yield piece
        finally:
            self.ended.put(time.perf_counter())


def main() -> None:
    """Open tabs, close them in the middle of an answer, and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="path of a Chromium")
    options = parser.parse_args()
    models = load_models()
    warm_up(models)
    endless = Endless(models.bridge.stream)
    models.bridge.stream = endless  # type: ignore[assignment, method-assign]
    page = build_app(models)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **LAUNCH_OPTIONS)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=options.chromium, args=CHROMIUM_FLAGS
            )
            views, stops = zip(*(_visit(browser, url, endless) for _ in range(TABS)), strict=True)
            browser.close()
    finally:
        page.close(verbose=False)
    report("page_view", {"first view whole, nothing cached": list(views)}, "s")
    report("page_closed", {"model free after its tab was closed": list(stops)}, "s")


def _visit(browser: Browser, url: str, endless: Endless) -> tuple[float, float]:
    window = browser.new_context(viewport={"width": 1440, "height": 900})
    tab = window.new_page()
    started = time.perf_counter()
    tab.goto(url)
    tab.locator("#picture img").wait_for()  # hidden until all parts are there
    view = time.perf_counter() - started
    tab.get_by_role("button", name="Describe this scene.").click()
    endless.began.get(timeout=PATIENCE_SECONDS)
    closed = time.perf_counter()
    tab.close()
    stopped = endless.ended.get(timeout=PATIENCE_SECONDS)
    window.close()
    return view, stopped - closed


if __name__ == "__main__":
    main()
