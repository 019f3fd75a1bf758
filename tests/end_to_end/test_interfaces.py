"""The app for programs: gradio_client, MCP, and attempts to misuse them."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import requests
from gradio_client import Client
from gradio_client.exceptions import AppError

from earthvlm.serving.request_queue import MAX_PER_ADDRESS
from tests.conftest import random_scene, run_apart
from tests.end_to_end.conftest import END_TO_END
from tests.end_to_end.raw_api import PageCalls, call, read_error

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
    irish = client.predict("fields", **where, api_name="/search_scenes")
    assert [scene["date"] for scene in irish["scenes"]] == ["2017-06-17", "2017-06-17"]
    assert irish["warning"] == "4 scenes without a place or date were left out."

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


def test_programs_see_three_typed_tools_alone(client: Client, app_url: str):
    info = client.view_api(return_format="dict", print_info=False)
    assert set(info["named_endpoints"]) == {"/describe_scene", "/ask_scene", "/search_scenes"}
    told = requests.get(f"{app_url}gradio_api/info", timeout=30).json()["named_endpoints"]
    answer = told["/ask_scene"]["returns"][0]["type"]
    assert answer["properties"]["answer_by_model"] == {"type": "string"}
    found = told["/search_scenes"]["returns"][0]["type"]["properties"]["scenes"]["items"]
    assert {"image_id", "licence", "date"} <= set(found["required"])
    with pytest.raises(ValueError, match="Cannot find a function"):
        client.predict("water", api_name="/search")


def test_tools_take_the_callers_own_scene(
    client: Client, app_url: str, app_service: SceneService, lakeside: Path
):
    image = base64.b64encode(lakeside.read_bytes()).decode()
    scene = client.predict(
        image=image, with_map=True, with_embedding=True, api_name="/describe_scene"
    )
    assert scene["measured_shares"]["water"] == pytest.approx(0.375, abs=0.01)
    assert (scene["image_id"], scene["width"], scene["height"]) == (None, 128, 96)
    assert scene["caption_by_model"] and scene["licence"] == {"scene": None, "model": "Apache-2.0"}
    assert np.linalg.norm(scene["embedding"]) == pytest.approx(1, abs=1e-3)
    land_cover = scene["land_cover_map"]
    if app_service.bridge.config.segmentation_head:
        assert (land_cover["width"], land_cover["height"]) == (128, 96)
        assert land_cover["shares"]["water"] > 0.3
    else:
        assert land_cover is None and "does not map land cover" in scene["warnings"][-1]

    part = client.predict(image=image, window="0 0 32 96", api_name="/describe_scene")
    assert part["width"] == 32 and part["measured_shares"]["water"] > 0.95
    assert part["land_cover_map"] is None and part["embedding"] is None

    upload_id = Path(PageCalls(app_url, "none").upload(lakeside)["path"]).parent.name
    for _ in range(2):  # an upload is not spent by a call
        asked = {"image": upload_id, "question": "Is there water?", "candidates": "Yes.\nNo."}
        answer = client.predict(**asked, api_name="/ask_scene")
        chances = answer["probabilities"]
        assert set(chances) == {"Yes.", "No."}
        assert answer["answer_by_model"] == max(chances, key=chances.get)
    found = client.predict(image=image, count=3, api_name="/search_scenes")["scenes"]
    assert len(found) == 3 and found[0]["scene_similarity"] is not None and found[0]["licence"]
    alike = client.predict(image_id=found[0]["image_id"], count=3, api_name="/search_scenes")
    assert found[0]["image_id"] not in [each["image_id"] for each in alike["scenes"]]
    both = client.predict("a lake", image=image, count=3, api_name="/search_scenes")["scenes"]
    assert any(each["example_similarity"] is not None for each in both)


def test_page_opens_a_file_asks_and_saves(app_url: str, tmp_path: Path):
    page = PageCalls(app_url, "page-of-a-file")
    path = tmp_path / "mine.tif"
    random_scene().save(path)
    assert "mine" in page.stream("open_scene", [page.upload(path)], "auto", "")
    said = page.stream("open_scene", [page.upload(path)], "auto", "4 0 8 12")
    assert re.search(r"\b8 \S+ 12\b", said)
    assert page.stream("ask", "Is there water?", 32, 0).count("process_generating") > 2
    text = page.value("save_chat")
    assert text.startswith("# mine") and "Is there water?" in text
    page.stream("ask", "And fields?", 16, 0)
    page.stream("edit", 0, "Is there forest?", 16, 0)
    page.stream("retry", 16, 0)
    text = page.value("save_chat")
    assert text.count("**You**") == text.count("**Model**") == 1 and "Is there forest?" in text

    page.stream("search", "open water", "all", 8, "", "", "", "", "")
    csv = page.value("save_results_csv")
    assert csv.startswith("rank,image_id") and len(csv.splitlines()) >= 9
    geojson = json.loads(page.value("save_results_geojson"))
    assert geojson["type"] == "FeatureCollection" and len(geojson["features"]) == 8


def test_page_searches_by_file_words_and_filters(app_url: str, tmp_path: Path):
    page = PageCalls(app_url, "page-of-an-example")
    random_scene().save(tmp_path / "mine.tif")
    file = page.upload(tmp_path / "mine.tif")
    where = ("2017-06-01", "2017-12-31", "ireland", "-11, 51, -5, 56", "")
    found = page.stream("search_file", [file], "fields", True, "all", 8, *where)
    assert "closest to <strong>fields</strong> and most similar to <strong>mine</strong>" in found
    rows = page.value("save_results_csv").splitlines()
    assert len(rows) == 3 and all(",ireland_2017-06-17_" in row for row in rows[1:])


def test_empty_results_cannot_be_saved(app_url: str):
    page = PageCalls(app_url, "page-of-nothing")
    found = page.stream("search", "open water", "all", 8, "2030-01-01", "", "", "", "")
    assert "No scene matches" in found
    for name in ("csv", "geojson", "geopackage", "geoparquet"):
        error = read_error(call(app_url, f"save_results_{name}", [], "page-of-nothing"))
        assert error and "no results to save" in error


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


def test_mcp_client_finds_and_uses_three_tools(app_url: str, lakeside: Path):
    mcp = pytest.importorskip("mcp")
    from mcp.client.streamable_http import streamable_http_client

    async def use() -> tuple[set[str], list[dict], list[dict]]:
        async with streamable_http_client(f"{app_url}gradio_api/mcp/") as (get, put, _):
            async with mcp.ClientSession(get, put) as session:
                await session.initialize()
                tools = {tool.name: tool for tool in (await session.list_tools()).tools}
                asking = tools["ask_scene"]
                assert "Args" not in (asking.description or "")
                for name, argument in asking.inputSchema["properties"].items():
                    assert argument["description"].endswith("."), name
                assert asking.outputSchema["properties"]["answer_by_model"] == {"type": "string"}
                # The client checks each structured result against its tool's schema.
                found = await session.call_tool("search_scenes", {"words": "open water"})
                assert json.loads(found.content[0].text) == found.structuredContent
                scenes = found.structuredContent["scenes"]
                image = base64.b64encode(lakeside.read_bytes()).decode()
                answers = []
                for scene in ({"image_id": scenes[0]["image_id"]}, {"image": image}):
                    asked = {**scene, "question": "Is there water?"}
                    answer = await session.call_tool("ask_scene", asked)
                    assert not answer.isError, answer
                    answers.append(answer.structuredContent)
                return set(tools), scenes, answers

    tools, scenes, answers = run_apart(use())
    assert tools == {"describe_scene", "ask_scene", "search_scenes"}
    assert len(scenes) == 10
    assert all(answer["answer_by_model"] and answer["measured_shares"] for answer in answers)
    assert answers[1]["measured_shares"]["water"] == pytest.approx(0.375, abs=0.01)


def test_first_page_is_light(app_url: str):
    whole, sent = {}, {}
    for path in ("", "config"):
        whole[path] = requests.get(f"{app_url}{path}", timeout=30).content
        for encoding in ("br", "gzip"):
            headers = {"accept-encoding": encoding}
            reply = requests.get(f"{app_url}{path}", headers=headers, stream=True, timeout=30)
            assert reply.headers["content-encoding"] == encoding
            sent[path, encoding] = len(reply.raw.read(decode_content=False))
    assert b"gradio_config" in whole[""] and json.loads(whole["config"])["dependencies"]
    # The page holds its configuration; a browser fetches no other.
    assert sent["", "br"] < 150_000, sent
    assert sent["", "gzip"] < 170_000, sent
    bare = requests.get(app_url, headers={"accept-encoding": "identity"}, timeout=30)
    assert "content-encoding" not in bare.headers


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


def test_texts_from_clients_are_escaped(app_url: str):
    page = PageCalls(app_url, "page-of-markup")
    assert "&lt;img" in page.stream("search", "<img src=x>", "all", 4, "", "", "", "", "")
