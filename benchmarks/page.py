"""Measure the page: its first view and weight, a large file of one's own, a tab that is closed.

    python -m benchmarks.page

The app runs in this process with the bundled bridge. Chromium opens it: the system's, the one that
--chromium names, or Playwright's own. The file has 2,048 x 2,048 pixels of twelve bands; its first
words are those of an answer that is asked for as soon as the picture is there. A tab is closed
during an answer that would never end; the seconds are those until the model has stopped.
"""

from __future__ import annotations

import argparse
import queue
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.report import report
from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.scene import Scene
from earthvlm.ui.app import LAUNCH_OPTIONS, build_app, warm_up
from earthvlm.ui.models import Models, load_models

CHROMIUM_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser")
TABS = 5
LARGE_FILES = 3
LARGE_SIDE = 2048
PATIENCE_SECONDS = 120
# Notes when a file was chosen, when its name is first shown, and when words are first answered.
WATCH = """() => {
  addEventListener('change', () => { window.chosen ??= performance.now(); }, {capture: true});
  setInterval(() => {
    if (document.querySelector('#upload')?.innerText.includes('large.'))
      window.sign ??= performance.now();
  }, 20);
}"""
HAS_WORDS = """() => [...document.querySelectorAll('#chat [data-testid=bot]')].some((answer) =>
  /\\w/.test(answer.innerText) && !/Looking at the scene/.test(answer.innerText))"""


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
    """Open tabs and a file, close tabs in the middle of an answer, and print what it takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    parser.add_argument("--chromium", default=found, help="path of a Chromium")
    options = parser.parse_args()
    models = load_models()
    warm_up(models)
    app = build_app(models)
    _, url, _ = app.launch(prevent_thread_lock=True, quiet=True, **LAUNCH_OPTIONS)
    try:
        with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
            browser = playwright.chromium.launch(
                executable_path=options.chromium, args=CHROMIUM_FLAGS
            )
            report("page_view", {"first view whole, nothing cached": _view(browser, url)}, "s")
            report("page_weight", _weigh(browser, url), "kB")
            report("page_upload", _upload(browser, url, _write_large(models, Path(folder))), "s")
            report(
                "page_closed",
                {"model free after its tab was closed": _close(browser, url, models)},
                "s",
            )
            browser.close()
    finally:
        app.close(verbose=False)


def _open_page(browser: Browser, url: str) -> Page:
    """Open the app in a window of its own, to which nothing is known."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.set_default_timeout(PATIENCE_SECONDS * 1e3)
    page.goto(url)
    page.locator("#picture img").first.wait_for()  # hidden until all parts are there
    return page


def _view(browser: Browser, url: str) -> list[float]:
    seconds = []
    for _ in range(TABS):
        started = time.perf_counter()
        page = _open_page(browser, url)
        seconds.append(time.perf_counter() - started)
        page.context.close()
    return seconds


def _weigh(browser: Browser, url: str) -> dict[str, list[float]]:
    """Return the kilobytes of the first view, as they were sent, by the kind of file."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    client = context.new_cdp_session(page)
    client.send("Network.enable")
    kinds: dict[str, str] = {}
    sizes: dict[str, float] = {}
    client.on(
        "Network.responseReceived",
        lambda event: kinds.update({event["requestId"]: event["response"]["mimeType"]}),
    )
    client.on(
        "Network.loadingFinished",
        lambda event: sizes.update({event["requestId"]: event["encodedDataLength"] / 1e3}),
    )
    page.goto(url)
    page.locator("#picture img").first.wait_for()
    page.wait_for_timeout(2000)  # pictures of the examples, and the page's events, come last
    context.close()
    weights: dict[str, float] = {}
    for request, size in sizes.items():
        kind = kinds.get(request, "").rpartition("/")[2]
        weights[kind] = weights.get(kind, 0) + size
    scripts = weights.pop("javascript", 0)
    rows = {
        "HTML and JSON": weights.pop("html", 0) + weights.pop("json", 0),
        "scripts": scripts,
        "styles": weights.pop("css", 0),
        "pictures and events": sum(weights.values()),
    }
    return {name: [size] for name, size in {**rows, "all": sum(rows.values())}.items()}


def _write_large(models: Models, folder: Path) -> Path:
    """Write a large scene, of mirrored copies of the first example with noise of its own."""
    scene = models.examples[0].open_scene()
    rows, columns = scene.reflectance.shape[:2]
    widths = (0, LARGE_SIDE - rows), (0, LARGE_SIDE - columns), (0, 0)
    values = np.pad(scene.reflectance, widths, mode="symmetric")
    values += np.random.default_rng(0).normal(0, 10, values.shape)
    values = np.round(values / 5) * 5  # so that the file fits into the limit of uploads
    path = folder / "large.tif"
    Scene.from_array(values.clip(1, 10_000), BANDS).save(path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB")
    return path


def _upload(browser: Browser, url: str, path: Path) -> dict[str, list[float]]:
    """Return the seconds from the choice of a file to each thing that the visitor sees."""
    found: dict[str, list[float]] = {"sign that it arrives": [], "picture": [], "first words": []}
    for _ in range(LARGE_FILES):
        page = _open_page(browser, url)
        page.evaluate(WATCH)
        started = time.perf_counter()
        page.locator("#upload input[type=file]").set_input_files(path)
        page.locator("#scene-details strong", has_text=path.stem).wait_for()
        page.wait_for_function("document.querySelector('#picture img')?.complete")
        found["picture"].append(time.perf_counter() - started)
        page.get_by_role("button", name="Describe this scene.").click()
        page.wait_for_function(HAS_WORDS)
        found["first words"].append(time.perf_counter() - started)
        found["sign that it arrives"].append(page.evaluate("sign - chosen") / 1e3)
        page.context.close()
    return found


def _close(browser: Browser, url: str, models: Models) -> list[float]:
    """Return the seconds from the closing of a tab to the end of its answer."""
    endless = Endless(models.bridge.stream)
    models.bridge.stream = endless  # type: ignore[assignment, method-assign]
    seconds = []
    for _ in range(TABS):
        page = _open_page(browser, url)
        page.get_by_role("button", name="Describe this scene.").click()
        endless.began.get(timeout=PATIENCE_SECONDS)
        closed = time.perf_counter()
        page.close()
        seconds.append(endless.ended.get(timeout=PATIENCE_SECONDS) - closed)
    return seconds


if __name__ == "__main__":
    main()
