"""The app as a visitor meets it: started once, with the bundled bridge, in a headless Chromium."""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.ports import free_port

if TYPE_CHECKING:
    import gradio as gr
    from playwright.sync_api import Browser, BrowserContext, BrowserType, Page

    from earthvlm.bridge.model import OlmoEarthVLMBridge
    from earthvlm.models.language.chat_templates import Message
    from earthvlm.scenes.scene import Scene
    from earthvlm.search.index import SceneIndex
    from earthvlm.serving.service import SceneService

# Reflectance x 10000 in the order of BANDS.
FOREST = (250, 450, 300, 3200, 800, 2300, 2900, 3400, 1600, 750, 220, 3300)
LAKE = (500, 400, 250, 120, 200, 130, 130, 110, 60, 40, 600, 100)
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
    # A tab in the process of the one before finds the page's scripts compiled there, and a process
    # that is not forked starts with less: together a third less of the processor for each page.
    "--renderer-process-limit=1",
    "--no-zygote",
    # Scripts of pages that live for seconds are not worth being optimized: a tenth less.
    "--js-flags=--no-opt",
]
# The system's Chromium, else Playwright's own. Without windows it has less to do.
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser")
LAUNCH = {
    "executable_path": next(filter(None, map(shutil.which, CHROMIUMS)), None),
    "args": CHROMIUM_FLAGS,
}


# Nothing fades or slides any more; signs of waiting still move, and a warning's time runs.
AT_REST = """() => !document.getAnimations().some(
  each => each.playState === 'running' && each.effect.getComputedTiming().activeDuration < 2000)"""
WIDTHS = (360, 1440)  # of a phone and of a desktop, in pixels
END_TO_END = [
    pytest.mark.end_to_end,
    pytest.mark.slow,
    # Gradio's own, about pandas; as an error it would end tasks of its queue.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.queueing"),
]


def either_width(test: Callable[..., None]) -> Callable[..., None]:
    """Let a test use its tab at one of the two widths."""
    return pytest.mark.one_setting(
        pytest.mark.parametrize("tab", WIDTHS, indirect=True, ids=str)(test)
    )


@pytest.fixture(scope="session")
def app_bridge() -> OlmoEarthVLMBridge:
    from earthvlm.bridge.model import OlmoEarthVLMBridge

    return OlmoEarthVLMBridge.from_pretrained("bundled")


@pytest.fixture(scope="session")
def app_index() -> SceneIndex:
    from earthvlm.search.index import SceneIndex

    return SceneIndex.from_pretrained("bundled")


@pytest.fixture(scope="session")
def app_service(app_bridge: OlmoEarthVLMBridge, app_index: SceneIndex) -> SceneService:
    from earthvlm.serving.service import SceneService

    return SceneService(app_bridge, app_index)


@pytest.fixture(scope="session")
def app_page(app_service: SceneService) -> gr.Blocks:
    import earthvlm.ui.app as app
    import earthvlm.ui.security.rate_limits as rate_limits
    from earthvlm.ui.launch import keep_uploads_apart

    keep_uploads_apart()

    # All tests call from one address, faster than visitors; test_limits.py has its own bounds.
    rate_limits.CALLS_AT_ONCE = rate_limits.PAGES_AT_ONCE = 1_000_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "make_service", lambda models: app_service)
        return app.build_app(app.Models(app_service.bridge, app_service.index))


@pytest.fixture(scope="session")
def app_url(app_page: gr.Blocks) -> Iterator[str]:
    """The address of the app, running in this process."""
    from earthvlm.ui.app import LAUNCH_OPTIONS

    _, url, _ = app_page.launch(
        server_port=free_port(), prevent_thread_lock=True, quiet=True, **LAUNCH_OPTIONS
    )
    yield url
    app_page.close()


@contextmanager
def skip_without_chromium() -> Iterator[None]:
    from playwright.sync_api import Error

    try:
        yield
    except Error as error:
        pytest.skip(f"no Chromium starts here: {error.message.splitlines()[0]}")


@pytest.fixture(scope="session")
def chromium() -> Iterator[BrowserType]:
    """A headless Chromium to be launched: see LAUNCH."""
    api = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
    with api.sync_playwright() as playwright:
        yield playwright.chromium


@pytest.fixture(scope="session")
def browser(chromium: BrowserType) -> Iterator[Browser]:
    """A browser for those who need a visitor or a window of their own."""
    with skip_without_chromium():
        browser = chromium.launch(**LAUNCH)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def window(
    chromium: BrowserType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrowserContext]:
    """One for all tests, with a profile on the disk, which keeps what the page is compiled to.

    That takes a third off the processor's time for loading the page.
    """
    with skip_without_chromium():
        window = chromium.launch_persistent_context(tmp_path_factory.mktemp("profile"), **LAUNCH)
    window.grant_permissions(["clipboard-read", "clipboard-write"])
    window.set_default_timeout(PATIENCE_MS)
    yield window
    window.close()


@pytest.fixture
def tab(request: pytest.FixtureRequest, window: BrowserContext) -> Iterator[Page]:
    """A blank tab, 1440 pixels wide unless a parameter says otherwise."""
    tab = window.new_page()
    tab.set_viewport_size({"width": getattr(request, "param", 1440), "height": 900})
    yield tab
    tab.close()


@pytest.fixture
def page(tab: Page, app_url: str) -> Page:
    """The app in that tab, with a scene open."""
    tab.goto(app_url)
    tab.locator("#picture img.scene").wait_for()
    return tab


@pytest.fixture
def keep(tab: Page) -> Callable[..., None]:
    """Save screenshots in the folder that EARTHVLM_SCREENSHOTS names, if it names one."""
    folder = Path(os.environ.get("EARTHVLM_SCREENSHOTS", ""))

    def take_picture(name: str, full_page: bool = True) -> None:
        if folder == Path():
            return
        folder.mkdir(parents=True, exist_ok=True)
        width = tab.viewport_size["width"]
        tab.wait_for_function(AT_REST)
        tab.screenshot(path=folder / f"{name}-{width}.png", full_page=full_page)

    return take_picture


@dataclass
class PacedAnswers:
    """Answers of the real bridge, each of whose pieces waits until it is let go.

    asked: questions and temperatures. said: the pieces that were let go.
    """

    asked: list[tuple[str, float]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    budget: float = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def let(self, pieces: float = math.inf) -> None:
        """Release this many pieces of the current answer; the next answer waits again."""
        with self.changed:
            self.budget = pieces
            self.changed.notify_all()

    def wait_until_said(self, pieces: int) -> str:
        """Wait until this many pieces were released, and return them joined."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.said) >= pieces, PATIENCE_MS / 1000)
            return "".join(self.said).strip()

    def pace(self, pieces: Iterator[str], stop: threading.Event) -> Iterator[str]:
        self.budget = 0
        with closing(pieces):
            for piece in pieces:
                with self.changed:
                    while self.budget < 1:
                        if stop.is_set():
                            return
                        self.changed.wait(0.02)
                    self.budget -= 1
                    self.said.append(piece)
                    self.changed.notify_all()
                yield piece


@pytest.fixture
def paced_answers(app_bridge: OlmoEarthVLMBridge, monkeypatch) -> Iterator[PacedAnswers]:
    """Hold every answer back, so that a test sees what the page shows before and amid it."""
    paced, stream = PacedAnswers(), app_bridge.stream

    def pace(
        scene: Scene, messages: list[Message], length: int, temperature: float, *, stop
    ) -> Iterator[str]:
        paced.asked.append((messages[-1]["content"], temperature))
        yield from paced.pace(stream(scene, messages, length, temperature, stop=stop), stop)

    monkeypatch.setattr(app_bridge, "stream", pace)
    yield paced
    paced.let()  # whoever still waits is not to wait for ever


@pytest.fixture
def lakeside(tmp_path: Path) -> Path:
    """A GeoTIFF with all bands: a lake on the left, and forest."""
    from earthvlm.scenes.bands import BANDS
    from earthvlm.scenes.scene import Scene

    array = np.empty((96, 128, 12))
    array[:] = FOREST
    array[:, :48] = LAKE
    array *= np.random.default_rng(0).normal(1, 0.05, array.shape)
    Scene.from_array(array, BANDS).save(tmp_path / "lakeside.tif")
    return tmp_path / "lakeside.tif"
