"""The app as a visitor meets it: started once, with the bundled bridge, in a headless Chromium."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import gradio as gr
    from playwright.sync_api import Browser, Page

    from earthvlm.bridge import OlmoEarthVLMBridge
    from earthvlm.prompts import Message
    from earthvlm.retrieval import SceneIndex
    from earthvlm.scene import Scene

PATIENCE_MS = 120_000  # on a machine with other work to do
CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# For tests that are worth their time on a phone's width as well.
BOTH_WIDTHS = pytest.mark.parametrize("page", [360, 1440], indirect=True, ids=str)


@pytest.fixture(scope="session")
def app_bridge() -> OlmoEarthVLMBridge:
    from earthvlm.bridge import OlmoEarthVLMBridge

    return OlmoEarthVLMBridge.from_pretrained("bundled")


@pytest.fixture(scope="session")
def app_index() -> SceneIndex:
    from earthvlm.retrieval import SceneIndex

    return SceneIndex.from_pretrained("bundled")


@pytest.fixture(scope="session")
def app_page(app_bridge: OlmoEarthVLMBridge, app_index: SceneIndex) -> gr.Blocks:
    from earthvlm.familiarity import BUNDLED_TRAINING_TILES
    from earthvlm.ui import Models, build_app

    return build_app(Models(app_bridge, app_index, training_tiles=BUNDLED_TRAINING_TILES))


@pytest.fixture(scope="session")
def app_url(app_page: gr.Blocks) -> Iterator[str]:
    """The address of the app, running in this process."""
    from earthvlm.ui import LAUNCH_OPTIONS

    _, url, _ = app_page.launch(prevent_thread_lock=True, quiet=True, **LAUNCH_OPTIONS)
    yield url
    app_page.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium: the system's, else Playwright's own."""
    api = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
    with api.sync_playwright() as playwright:
        system = shutil.which("chromium") or shutil.which("chromium-browser")
        try:
            browser = playwright.chromium.launch(executable_path=system, args=CHROMIUM_FLAGS)
        except api.Error as error:
            pytest.skip(f"no Chromium starts here: {error.message.splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests leave pictures of the page: EARTHVLM_SCREENSHOTS, or a temporary folder."""
    folder = os.environ.get("EARTHVLM_SCREENSHOTS")
    folder = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass
class HeldAnswers:
    """Answers of the real bridge, each held back until it is let go."""

    asked: list[tuple[str, float]] = field(default_factory=list)  # questions and temperatures
    let_go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@pytest.fixture
def held_answers(app_bridge: OlmoEarthVLMBridge, monkeypatch) -> Iterator[HeldAnswers]:
    """Hold back every answer, so that a test sees what the page shows before it."""
    held, stream = HeldAnswers(), app_bridge.stream

    def hold(
        scene: Scene, messages: list[Message], length: int, temperature: float, **options: object
    ) -> Iterator[str]:
        held.asked.append((messages[-1]["content"], temperature))
        held.let_go.acquire()
        yield from stream(scene, messages, length, temperature, **options)

    monkeypatch.setattr(app_bridge, "stream", hold)
    yield held
    held.let_go.release(100)  # whoever still waits is not to wait for ever


@pytest.fixture
def page(request: pytest.FixtureRequest, browser: Browser, app_url: str) -> Iterator[Page]:
    """The app in a fresh window, 1440 pixels wide or as BOTH_WIDTHS asks, with a scene open."""
    window = browser.new_context(viewport={"width": getattr(request, "param", 1440), "height": 900})
    page = window.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(app_url)
    page.locator("#picture img").wait_for()
    yield page
    window.close()
