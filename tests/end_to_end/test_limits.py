"""Limits of one address on uploads and calls, tested through the server next to a visitor."""

from __future__ import annotations

import itertools
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
import httpx
import pytest

import earthvlm.ui.security.rate_limits as rate_limits
import earthvlm.ui.security.upload_limits as upload_limits
from earthvlm.search.index import SceneIndex, SearchResults
from earthvlm.serving.service import SceneService
from earthvlm.ui.app import LAUNCH_OPTIONS
from earthvlm.ui.security.checked_page import CheckedPage
from earthvlm.ui.session import add_session
from earthvlm.ui.tabs.chat.chat_tab import build_chat_tab, wire_chat_tab
from earthvlm.ui.tabs.search.search_handlers import SearchHandlers
from earthvlm.ui.tabs.search.search_tab import build_search_tab, wire_search_tab
from tests.conftest import random_scene
from tests.support.ports import free_port

if TYPE_CHECKING:
    from earthvlm.bridge.model import OlmoEarthVLMBridge
    from earthvlm.embeddings.filters import SceneFilter

pytestmark = [
    pytest.mark.end_to_end,
    # Only Linux has 127.0.0.2 and so on without configuration.
    pytest.mark.skipif(sys.platform != "linux", reason="needs 127.0.0.2 as a source address"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.queueing"),
    pytest.mark.filterwarnings("ignore::UserWarning:gradio"),
]
VISITOR = "127.0.0.3"
TIFF = b"II*\x00" + bytes(100_000)


@dataclass
class App:
    """A Chat and a Search tab served with the limits; `folder` has uploads."""

    url: str
    page: gr.Blocks
    service: SceneService
    folder: Path

    def client(self, address: str) -> httpx.Client:
        transport = httpx.HTTPTransport(local_address=address)
        return httpx.Client(base_url=f"{self.url}gradio_api/", transport=transport, timeout=30)

    def files(self) -> list[Path]:
        """Return the files on disk."""
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def call(self, client: httpx.Client, name: str, data: list) -> str:
        """Call an endpoint and return the last line of its answer."""
        asked = client.post(f"call/{name}", json={"data": data})
        asked.raise_for_status()
        with client.stream("GET", f"call/{name}/{asked.json()['event_id']}") as reply:
            return [line for line in reply.iter_lines() if line][-1]

    def join(self, client: httpx.Client, name: str, data: list) -> int:
        """Put a call into the queue under a made-up session, and do not wait for it."""
        number = next(i for i, fn in self.page.fns.items() if fn.api_name == name)
        body = {"data": [None, *data], "fn_index": number, "session_hash": uuid.uuid4().hex}
        return client.post("queue/join", json=body).status_code


@pytest.fixture(scope="module")
def app(app_bridge: OlmoEarthVLMBridge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        service = SceneService(app_bridge, SceneIndex.from_pretrained("bundled"))
        with CheckedPage() as page:
            session = add_session(page)
            with gr.Tabs() as tabs, gr.Tab("All") as tab:
                chat = build_chat_tab(session, [])
                wire_chat_tab(chat, page, service, [])
                searching = SearchHandlers(service)
                search = build_search_tab(session, searching)
                wire_search_tab(search, searching, tabs, chat, tab)
        page.queue(max_size=128)
        options = {**LAUNCH_OPTIONS, "mcp_server": False}
        _, url, _ = page.launch(
            server_port=free_port(), prevent_thread_lock=True, quiet=True, **options
        )
        yield App(url, page, service, folder)
        page.close(verbose=False)


def wait_until(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


ADDRESSES = (f"127.0.1.{number}" for number in itertools.count(1))


@pytest.fixture
def abuser() -> str:
    """An address that nothing was uploaded from."""
    return next(ADDRESSES)


@pytest.mark.parametrize(
    ("name", "content"),
    [("page.html", TIFF), ("notes.tif", b"this is not an image"), ("empty.png", b"")],
)
def test_wrong_types_are_refused_as_they_arrive(app: App, abuser, name: str, content: bytes):
    before = app.files()
    with app.client(abuser) as client:
        reply = client.post("upload", files={"files": (name, content)})
        assert reply.status_code == 415 and f"'{name}' is not an image" in reply.text
        fields = client.post("upload", data={"x": "y" * 1000}, files={"files": ("a.tif", TIFF)})
        assert fields.status_code == 415
    assert app.files() == before


def test_more_files_than_a_scene_has_are_refused(app: App, abuser):
    before = app.files()
    with app.client(abuser) as client:
        many = [("files", (f"{n}.tif", TIFF)) for n in range(upload_limits.MAX_FILES + 1)]
        assert client.post("upload", files=many).status_code == 413
    assert app.files() == before


def test_interrupted_upload_leaves_nothing(app: App, abuser):
    before = app.files()
    for _ in range(upload_limits.UPLOADS_AT_ONCE_PER_ADDRESS):
        interrupt_upload(app, abuser)
        wait_until(lambda: app.files() == before)

    def is_let_in() -> bool:
        with app.client(abuser) as client:
            files = {"files": ("b.tif", TIFF)}
            return client.post("upload", files=files).status_code == 200

    wait_until(is_let_in)


def interrupt_upload(app: App, address: str) -> None:
    """Break an upload off once a part of it is on the disk."""
    before = app.files()
    host, port = app.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), source_address=(address, 0)) as connection:
        head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.tif"\r\n\r\n'
        connection.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: " + host.encode() + b"\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 5000000\r\n\r\n"
            + head
            + TIFF
        )
        wait_until(lambda: app.files() != before)


def test_one_address_has_a_share_of_the_disk(app: App, abuser, monkeypatch):
    monkeypatch.setattr(upload_limits, "BYTES_KEPT_PER_ADDRESS", 450_000)
    with app.client(abuser) as abuser, app.client(VISITOR) as visitor:
        taken = [
            abuser.post("upload", files={"files": (f"{number}.tif", TIFF + bytes([number]))})
            for number in range(6)
        ]
        assert [reply.status_code for reply in taken] == [200] * 4 + [429] * 2
        assert "Busy" in taken[-1].text
        assert visitor.post("upload", files={"files": ("a.tif", TIFF)}).status_code == 200
        monkeypatch.setattr(upload_limits, "UNOPENED_SECONDS", -1)
        assert visitor.post("upload", files={"files": ("b.tif", TIFF)}).status_code == 200
    assert [path.name for path in app.files() if path.suffix == ".tif"] == ["b.tif"]


def test_one_address_has_a_share_of_each_window(app: App, abuser, monkeypatch):
    monkeypatch.setattr(upload_limits, "BYTES_PER_WINDOW", 250_000)
    with app.client(abuser) as abuser:
        codes = []
        for _ in range(3):
            reply = abuser.post("upload", files={"files": ("a.tif", TIFF)})
            codes.append(reply.status_code)
            upload_limits.UPLOADS.discard(reply.json() if reply.status_code == 200 else [])
    assert codes == [200, 200, 429]


def test_opened_upload_is_deleted(app: App, tmp_path: Path):
    def find_uploads() -> set[Path]:
        return {path for path in app.files() if path.suffix == ".tif"}

    before = find_uploads()
    random_scene().save(tmp_path / "mine.tif")
    with app.client(VISITOR) as visitor:
        content = (tmp_path / "mine.tif").read_bytes()
        (path,) = visitor.post("upload", files={"files": ("mine.tif", content)}).json()
        assert Path(path).is_file()
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        assert "mine" in app.call(visitor, "open_scene", [[file], "auto", ""])
    assert find_uploads() == before


def test_too_many_calls_of_an_address_get_429(app: App, monkeypatch):
    monkeypatch.setattr(rate_limits, "CALLS_PER_SECOND", 0.0)
    monkeypatch.setattr(rate_limits, "CALLS_AT_ONCE", 3)
    address = "127.0.0.4"
    with app.client(address) as abuser, app.client(VISITOR) as visitor:
        codes = [app.join(abuser, "save_results_csv", []) for _ in range(5)]
        assert codes[3:] == [429, 429] and 429 not in codes[:3]
        assert abuser.get("info").status_code == 200  # a page, which has a limit of its own
        assert app.join(visitor, "save_results_csv", []) == 200


def test_too_many_pages_of_an_address_get_429(app: App, monkeypatch):
    monkeypatch.setattr(rate_limits, "PAGES_PER_SECOND", 0.0)
    monkeypatch.setattr(rate_limits, "PAGES_AT_ONCE", 3)
    with app.client("127.0.0.8") as abuser, app.client(VISITOR) as visitor:
        codes = [abuser.get(f"{app.url}{name}").status_code for name in ("", "config") * 3]
        assert codes == [200, 200, 200, 429, 429, 429]
        assert app.join(abuser, "save_results_csv", []) == 200
        assert visitor.get("info").status_code == 200


def test_refused_mcp_messages_count_as_calls(app: App, monkeypatch):
    monkeypatch.setattr(rate_limits, "CALLS_PER_SECOND", 0.0)
    monkeypatch.setattr(rate_limits, "CALLS_AT_ONCE", 3)
    with app.client("127.0.0.7") as abuser:
        codes = [abuser.post("mcp/", json={"method": "nothing"}).status_code for _ in range(5)]
    assert codes == [200, 200, 200, 429, 429]


def test_made_up_sessions_do_not_block_others(app: App, monkeypatch):
    service, released = app.service, threading.Event()
    monkeypatch.setattr(rate_limits, "CALLS_AT_ONCE", 1000)  # the queue has to hold without it

    def search(query: list, k: int, where: SceneFilter, unlike: tuple) -> SearchResults:
        if query == ["slow"]:
            released.wait(60)
        return SearchResults(service.index.browse(k=k, where=where))

    monkeypatch.setattr(service, "_search", search)
    filters = ["all", 4, "", "", "", "", ""]
    with app.client("127.0.0.5") as abuser, app.client("127.0.0.6") as visitor:
        try:
            codes = [app.join(abuser, "search", ["slow", *filters]) for _ in range(140)]
            assert codes == [200] * 140
            found = app.call(visitor, "search", ["a lake", *filters])
        finally:
            released.set()
    assert "4 scenes closest to" in found
