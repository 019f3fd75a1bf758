"""The app for programs: gradio_client, MCP, and attempts to misuse them."""

from __future__ import annotations

import ast
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from earthvlm.serving.request_queue import MAX_PER_ADDRESS
from tests.conftest import random_scene, run_apart
from tests.end_to_end.conftest import END_TO_END
from tests.end_to_end.raw_api import call

if TYPE_CHECKING:
    from earthvlm.serving.service import SceneService

pytestmark = END_TO_END


@pytest.fixture(scope="module")
def client(app_url: str) -> Iterator[Client]:
    client = Client(app_url, verbose=False)
    yield client
    client.close()


def test_tools_search_describe_and_ask(client: Client):
    search = client.predict("a lake beside forest", 3, api_name="/search_scenes")
    found = search["scenes"]
    assert len(found) == 3 and search["warning"] == "" and found[0]["scene_similarity"] is not None

    where = {"first_date": "2017-06-01", "bbox": "-11, 51, -5, 56"}
    irish = client.predict("fields", **where, api_name="/search_scenes")["scenes"]
    assert [scene["date"] for scene in irish] == ["2017-06-17", "2017-06-17"]

    scene = client.predict(found[0]["image_id"], api_name="/describe_scene")
    assert scene["image_id"] == found[0]["image_id"]
    assert abs(sum(scene["measured_shares"].values()) - 1) < 0.01

    answer = client.predict(found[0]["image_id"], "Is there water?", api_name="/ask_scene")
    assert answer["answer_by_model"] and isinstance(answer["disagreements"], list)


def test_search_warns_programs_when_its_engine_is_down(client: Client, app_index, monkeypatch):
    class DownEngine:
        def search(self, *_):
            raise ConnectionError("Milvus does not answer")

    monkeypatch.setattr(app_index, "engine", DownEngine())
    found = client.predict("a lake", 3, api_name="/search_scenes")
    assert len(found["scenes"]) == 3 and "Milvus does not answer" in found["warning"]


def test_client_opens_a_file_asks_and_saves(client: Client, tmp_path: Path):
    random_scene().save(tmp_path / "mine.tif")
    file = handle_file(tmp_path / "mine.tif")
    _, _, details, *_ = client.predict([file], "auto", api_name="/open_scene")
    assert "mine" in details
    _, _, details, *_ = client.predict([file], "auto", "4 0 8 12", api_name="/open_scene")
    assert "8 x 12" in details or "8 × 12" in details
    job = client.submit("Is there water?", 32, 0, api_name="/ask")
    job.result()
    lengths = [len(output[1][-1]["content"]) for output in job.outputs() if output[1]]
    assert len(lengths) > 2
    text = client.predict(api_name="/save_chat")
    assert text.startswith("# mine") and "Is there water?" in text
    client.predict("And fields?", 16, 0, api_name="/ask")
    client.predict(0, "Is there forest?", 16, 0, api_name="/edit")
    client.predict(16, 0, api_name="/retry")
    text = client.predict(api_name="/save_chat")
    assert text.count("**You**") == text.count("**Model**") == 1 and "Is there forest?" in text

    client.predict("open water", "all", 8, api_name="/search")
    csv = client.predict(api_name="/save_results_csv")
    assert csv.startswith("rank,image_id") and len(csv.splitlines()) >= 9
    geojson = json.loads(client.predict(api_name="/save_results_geojson"))
    assert geojson["type"] == "FeatureCollection" and len(geojson["features"]) == 8


def test_client_searches_by_file_words_and_filters(client: Client, tmp_path: Path):
    random_scene().save(tmp_path / "mine.tif")
    file = handle_file(tmp_path / "mine.tif")
    told = ("2017-06-01", "2017-12-31", "ireland", "-11, 51, -5, 56")
    found, _ = client.predict([file], "fields", True, "all", 8, *told, api_name="/search_file")
    assert "closest to <strong>fields</strong> and most similar to <strong>mine</strong>" in found
    rows = client.predict(api_name="/save_results_csv").splitlines()
    assert len(rows) == 3 and all(",ireland_2017-06-17_" in row for row in rows[1:])


def test_empty_results_cannot_be_saved(client: Client):
    found, _ = client.predict("open water", first_date="2030-01-01", api_name="/search")
    assert found.startswith("No scene matches")
    for name in ("csv", "geojson", "geopackage", "geoparquet"):
        with pytest.raises(AppError, match="no results to save"):
            client.predict(api_name=f"/save_results_{name}")


def test_clients_get_errors_as_sentences(client: Client):
    with pytest.raises(AppError, match="no scene"):
        client.predict("no_such_scene", api_name="/describe_scene")
    with pytest.raises(AppError, match="empty"):
        client.predict("beetzsee_r0_c00", " ", api_name="/ask_scene")


def test_one_address_cannot_fill_the_question_queue(client: Client, app_service: SceneService):
    queue = app_service.question_queue
    others = [queue.join(f"other-{number}", "127.0.0.1") for number in range(MAX_PER_ADDRESS)]
    try:
        with pytest.raises(AppError, match="Busy: 4 questions from your address"):
            client.predict("beetzsee_r0_c00", "Is there water?", 8, api_name="/ask_scene")
    finally:
        for other in others:
            queue.leave(other)
    answer = client.predict("beetzsee_r0_c00", "Is there water?", 8, api_name="/ask_scene")
    assert answer["answer_by_model"]


def test_mcp_client_finds_and_uses_three_tools(app_url: str):
    mcp = pytest.importorskip("mcp")
    from mcp.client.streamable_http import streamable_http_client

    def read(result) -> object:
        return ast.literal_eval(result.content[0].text)  # Gradio writes what Python prints

    async def use() -> tuple[set[str], list[dict], dict]:
        async with streamable_http_client(f"{app_url}gradio_api/mcp/") as (get, put, _):
            async with mcp.ClientSession(get, put) as session:
                await session.initialize()
                tools = {tool.name: tool for tool in (await session.list_tools()).tools}
                assert "image_id" in tools["ask_scene"].inputSchema["properties"]
                assert "Args" not in (tools["ask_scene"].description or "")
                found = await session.call_tool("search_scenes", {"words": "open water"})
                scenes = read(found)["scenes"]
                asked = {"image_id": scenes[0]["image_id"], "question": "Is there water?"}
                answer = await session.call_tool("ask_scene", asked)
                return set(tools), scenes, read(answer)

    tools, scenes, answer = run_apart(use())
    assert tools == {"describe_scene", "ask_scene", "search_scenes"}
    assert len(scenes) == 10
    assert answer["answer_by_model"] and answer["measured_shares"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../etc/passwd", __file__])
def test_client_reads_only_its_own_uploads(app_url: str, path: str):
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    said = call(app_url, "open_scene", [None, [file], "auto", ""])
    assert '"success":false' in said.replace(" ", "")
    assert "root:" not in said
    for route in ("file=", "file/"):
        reply = requests.get(f"{app_url}gradio_api/{route}{path}", timeout=30)
        assert reply.status_code in (403, 404)


def test_app_fetches_no_address(app_url: str):
    asked = []

    class Bait(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Bait) as bait:
        threading.Thread(target=bait.serve_forever, daemon=True).start()
        for url in (f"http://127.0.0.1:{bait.server_port}/x.tif", "https://example.org/x.tif"):
            file = {"path": url, "url": url, "meta": {"_type": "gradio.FileData"}}
            said = call(app_url, "open_scene", [None, [file], "auto", ""], session="test-fetch")
            assert '"success":false' in said.replace(" ", "")
            assert "Addresses are not fetched" in said
        bait.shutdown()
    assert not asked


def test_upload_over_the_limit_is_refused(app_url: str, tmp_path: Path):
    big = tmp_path / "big.tif"
    with big.open("wb") as file:
        file.write(b"II*\x00")
        file.truncate(65 * 2**20)
    with big.open("rb") as file:
        reply = requests.post(f"{app_url}gradio_api/upload", files={"files": file}, timeout=60)
    assert reply.status_code == 413


def test_texts_from_clients_are_escaped(client: Client):
    *_, found, _ = (None, *client.predict("<img src=x>", "all", 4, api_name="/search"))
    assert "&lt;img" in found
