"""Sessions are cleared in time, and their memory is freed."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
import pytest
import requests
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

import earthvlm.ui.session as session
from earthvlm.serving.service import SceneService
from earthvlm.ui.security.checked_page import CheckedPage
from earthvlm.ui.tabs.chat.chat_tab import build_chat_tab, wire_chat_tab
from tests.conftest import random_scene
from tests.support.ports import free_port

if TYPE_CHECKING:
    from earthvlm.bridge.model import OlmoEarthVLMBridge
    from earthvlm.scenes.scene import Scene

pytestmark = [
    pytest.mark.end_to_end,
    # Gradio's own, about pandas; as an error it would end tasks of its queue.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.queueing"),
]
PATIENCE_SECONDS = 60.0


@dataclass
class SmallApp:
    """A served Chat tab with a random bridge.

    sessions: the state, with its time to live. scenes: those that were opened.
    """

    url: str
    sessions: gr.State
    bridge: OlmoEarthVLMBridge
    scenes: list[weakref.ref[Scene]]

    def open_and_ask(self, client: Client, file: Path) -> None:
        client.predict([handle_file(file)], "auto", api_name="/open_scene")
        client.predict("Is there water?", 16, 0, api_name="/ask")
        assert [scene() is not None for scene in self.scenes[-1:]] == [True]
        assert len(self.bridge.text_generator.prefix_cache) == 1


@pytest.fixture
def small_app(tiny_bridge: OlmoEarthVLMBridge) -> Iterator[SmallApp]:
    service, scenes = SceneService(tiny_bridge, None), []
    open_scene = service.open

    def note(scene: Scene, *origin: object) -> object:
        scenes.append(weakref.ref(scene))
        return open_scene(scene, *origin)

    service.open = note
    with CheckedPage() as page:
        sessions = session.add_session(page)
        wire_chat_tab(build_chat_tab(sessions, []), page, service, [])
    _, url, _ = page.launch(server_port=free_port(), prevent_thread_lock=True, quiet=True)
    yield SmallApp(url, sessions, tiny_bridge, scenes)
    page.close(verbose=False)


@pytest.fixture
def client(small_app: SmallApp) -> Iterator[Client]:
    client = Client(small_app.url, verbose=False)
    yield client
    client.close()


@pytest.fixture
def scene_file(tmp_path: Path) -> Path:
    random_scene().save(tmp_path / "mine.tif")
    return tmp_path / "mine.tif"


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < until, "it did not happen in time"
        gc.collect()
        time.sleep(0.1)


def wait_until_forgotten(app: SmallApp) -> None:
    """Wait until neither the scene nor the model's prefix cache of it is in memory."""
    wait_until(lambda: app.scenes[-1]() is None)
    assert len(app.bridge.text_generator.prefix_cache) == 0


def test_unused_session_is_cleared(small_app: SmallApp, client: Client, scene_file: Path):
    assert small_app.sessions.time_to_live == 3600
    small_app.open_and_ask(client, scene_file)
    small_app.sessions.time_to_live = 0  # from the next use on
    client.predict("And fields?", 16, 0, api_name="/ask")
    wait_until_forgotten(small_app)
    with pytest.raises(AppError, match="No scene is open"):
        client.predict("And forest?", 16, 0, api_name="/ask")
    with pytest.raises(AppError, match="No scene is open"):
        client.predict(api_name="/save_chat")


def test_session_of_a_closed_page_is_cleared(
    small_app: SmallApp, client: Client, scene_file: Path, monkeypatch
):
    monkeypatch.setattr(session, "CLOSED_SECONDS", 0)
    small_app.open_and_ask(client, scene_file)
    # The connection that a page holds as long as it is open.
    heart = f"{small_app.url}gradio_api/heartbeat/{client.session_hash}"
    with requests.get(heart, stream=True, timeout=PATIENCE_SECONDS) as beats:
        next(beats.iter_lines())
    wait_until_forgotten(small_app)
    with pytest.raises(AppError, match="No scene is open"):
        client.predict("And fields?", 16, 0, api_name="/ask")
