"""Attacks on the running app: the page's endpoints, the raw API and MCP."""

from __future__ import annotations

import base64
import json
import random
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from gradio.utils import get_upload_folder
from gradio_client import Client

import earthvlm.ui.security.rate_limits as rate_limits
from tests.conftest import random_scene, run_apart
from tests.end_to_end.conftest import END_TO_END
from tests.end_to_end.raw_api import call, find_number, read_config, read_error, send_mcp

if TYPE_CHECKING:
    import gradio as gr

pytestmark = END_TO_END


@pytest.fixture(autouse=True)
def call_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lift the rate limit, because the checks behind it have to hold without it."""
    monkeypatch.setattr(rate_limits, "CALLS_PER_SECOND", 1e6)


NO_UPLOAD = "Only files that were uploaded to this app"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the server that nobody uploaded."""
    path = tmp_path / "secret-of-the-server.png"
    path.write_bytes(b"secret")
    return path


def as_file(path: str | Path) -> dict:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def copied(secret: Path) -> list[Path]:
    return list(Path(get_upload_folder()).rglob(secret.name))


def test_mcp_copies_no_file_of_the_server(app_url: str, secret: Path):
    file = as_file(secret)
    names = {each["api_name"] for each in read_config(app_url)["dependencies"]}
    assert {"open_scene", "search_scenes"} <= names
    for name in sorted(name for name in names if name):
        for arguments in ({"image_id": file}, {"paths": [file]}, {"words": file}, {"name": file}):
            answer = send_mcp(app_url, "tools/call", {"name": name, "arguments": arguments})
            assert "error" in answer, name
    assert not copied(secret)


def test_mcp_table_holds_three_tools(app_page: gr.Blocks, app_url: str, secret: Path):
    """The table is reduced when the server is made, so it holds without the middleware, too."""
    assert app_page.mcp_server_obj is not None
    tools = set(app_page.mcp_server_obj.tool_to_endpoint.values())
    assert tools == {"/describe_scene", "/ask_scene", "/search_scenes"}


@pytest.mark.parametrize("method", ["prompts/get", "resources/read"])
def test_mcp_runs_nothing_but_tools(app_url: str, secret: Path, method: str):
    arguments = {"words": as_file(secret)}
    answer = send_mcp(app_url, method, {"name": "a", "uri": "a://b", "arguments": arguments})
    assert "There is no method" in answer["error"]["message"]
    assert not copied(secret)


def test_no_image_names_a_file_or_passes_its_limits(
    app_url: str, secret: Path, tmp_path: Path, capfd: pytest.CaptureFixture
):
    """What programs may send as a scene of their own, by the raw API and by MCP."""
    listing = f'<VRTDataset rasterXSize="9" rasterYSize="9"><a>{secret}</a></VRTDataset>'
    whole = random_scene(64, 64)
    whole.save(tmp_path / "whole.tif")
    content = (tmp_path / "whole.tif").read_bytes()
    images = {
        str(secret): "not the base64",
        f"file://{secret}": "not the base64",
        "http://127.0.0.1:1/x.tif": "not the base64",
        "data:image/png;base64,": "not the base64",
        "../../etc/passwd": "not the base64",
        "f" * 64: "no such upload",
        secret.parent.name: "not the base64",
        "A" * 1_000_004: "more than 1,000,000 characters",
        encode(b"garbage" * 9): "scene",
        encode(listing.encode()): "scene",
        encode(content[: len(content) // 2]): "scene",
        encode(write_huge_header()): "scene",
    }
    for tool in ("describe_scene", "ask_scene", "search_scenes"):
        for image, expected in images.items() if tool == "ask_scene" else [*images.items()][:7]:
            parameters = {"name": tool, "arguments": {"image": image}}
            result = send_mcp(app_url, "tools/call", parameters)["result"]
            told = result["content"][0]["text"]
            assert result["isError"] and expected in told and told.endswith("."), told
            assert len(told) < 400 and "/tmp" not in told and "secret" not in told
            data = {
                "describe_scene": ["", image, "", False, False],
                "ask_scene": ["", "Is there water?", 8, "", image, ""],
                "search_scenes": ["", 3, "all", "", "", "", "", "", image, ""],
            }
            assert read_error(call(app_url, tool, data[tool], f"image-{tool}")) == told
    for file in (as_file(secret), [encode(content)]):
        parameters = {"name": "ask_scene", "arguments": {"image": file}}
        answer = send_mcp(app_url, "tools/call", parameters)
        assert "A tool's arguments are text" in answer["error"]["message"]
    both = {"image": encode(content), "image_id": "beetzsee_r0_c00"}
    for arguments in (both, {}, {"image": encode(content), "window": "0 0 a 9"}):
        parameters = {"name": "describe_scene", "arguments": arguments}
        assert send_mcp(app_url, "tools/call", parameters)["result"]["isError"]
    assert not copied(secret) and "Traceback" not in capfd.readouterr().err


def encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def write_huge_header() -> bytes:
    """A picture of a few bytes whose header promises 40,000 x 40,000 pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + check


def test_mcp_arguments_fit_their_schema(app_url: str):
    for arguments in (
        {"image_id": 7},
        {},
        {"image_id": "a", "more": 1},
        {"image_id": "../../etc/passwd"},
    ):
        parameters = {"name": "describe_scene", "arguments": arguments}
        result = send_mcp(app_url, "tools/call", parameters)["result"]
        assert result["isError"] and "Traceback" not in result["content"][0]["text"]


def test_unknown_scene_name_is_cut(app_url: str):
    parameters = {"name": "describe_scene", "arguments": {"image_id": "/etc/" + "x" * 5000}}
    told = send_mcp(app_url, "tools/call", parameters)["result"]["content"][0]["text"]
    assert len(told) < 140
    data = ["/etc/" + "x" * 5000, "", "", False, False]
    error = read_error(call(app_url, "describe_scene", data))
    assert error == told


def test_two_mcp_clients_share_nothing(app_url: str):
    mcp = pytest.importorskip("mcp")
    from mcp.client.streamable_http import streamable_http_client

    address = f"{app_url}gradio_api/mcp/"

    async def use() -> list:
        async with (
            streamable_http_client(address) as (get_a, put_a, _),
            streamable_http_client(address) as (get_b, put_b, _),
            mcp.ClientSession(get_a, put_a) as first,
            mcp.ClientSession(get_b, put_b) as second,
        ):
            await first.initialize()
            await second.initialize()
            asked = {
                "image_id": "beetzsee_r0_c00",
                "question": "Is there water, my secret friend?",
                "max_length": 8,
            }
            said = await first.call_tool("ask_scene", asked)
            assert not said.isError
            spied = [await second.call_tool("search_scenes", {"words": "a lake", "count": 1})]
            for name in ("save_chat", "draw", "search_again", "attention_map"):
                with pytest.raises(mcp.McpError, match="There is no tool"):
                    await second.call_tool(name, {})
            return spied

    (found,) = run_apart(use())
    assert not found.isError and "secret friend" not in found.content[0].text


def test_older_mcp_transport_is_checked_too(app_url: str, secret: Path):
    """Server-sent events: requests are posted to one path, and answers read from another."""
    with requests.get(f"{app_url}gradio_api/mcp/sse", stream=True, timeout=30) as events:
        lines = events.iter_lines(decode_unicode=True)
        path = next(line[6:] for line in lines if line.startswith("data: "))
        name = {"name": "open_named", "arguments": {"image_id": as_file(secret)}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": name}
        reply = requests.post(f"{app_url.rstrip('/')}{path}", json=message, timeout=30)
    assert reply.status_code == 400 and "There is no tool" in reply.json()["error"]["message"]
    assert not copied(secret)


def test_calls_cannot_pass_the_queue(app_url: str):
    for name in ("ask_scene", "search_scenes", "open_scene", "ask"):
        reply = requests.post(f"{app_url}gradio_api/run/{name}", json={"data": ["a"]}, timeout=30)
        assert reply.status_code == 404


def test_session_of_a_client_is_ignored(app_url: str):
    call(app_url, "open_named", [None, "beetzsee_r0_c00"], session="victim")
    stolen = {"opened": {"scene": "/etc/passwd"}, "conversation": [{"content": "mine"}]}
    error = read_error(call(app_url, "save_chat", [stolen], session="attacker"))
    assert error is not None and error.startswith("No scene is open")


def test_paths_all_get_the_same_error(app_url: str, secret: Path):
    told = {
        read_error(call(app_url, "open_scene", [None, [as_file(path)], "auto", ""]))
        for path in (secret, "/etc/hostname", "/no/such/file", "../x", ".env")
    }
    assert len(told) == 1 and told.pop().startswith(NO_UPLOAD)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        (
            "ask_scene",
            ["beetzsee_r0_c00", "Water?", -5, "", "", ""],
            "max_length is a whole number from 1",
        ),
        (
            "ask_scene",
            ["beetzsee_r0_c00", "Water?", "abc", "", "", ""],
            "max_length is a whole number",
        ),
        (
            "ask_scene",
            ["beetzsee_r0_c00", "Water?", True, "", "", ""],
            "max_length is a whole number",
        ),
        ("ask_scene", ["beetzsee_r0_c00"], "takes 6 arguments (image_id, question"),
        (
            "search_scenes",
            ["a lake", 0, "all", "", "", "", "", "", "", ""],
            "count is a whole number from 1",
        ),
        (
            "search_scenes",
            ["a lake", 1000, "all", "", "", "", "", "", "", ""],
            "count is a whole number from",
        ),
        ("search_scenes", ["a lake", 5, "no", "", "", "", "", "", "", ""], "no split 'no'"),
        (
            "search_scenes",
            ["a lake", 5, "all", "x", "", "", "", "", "", ""],
            "no date as in 2020-06-30",
        ),
        (
            "search_scenes",
            ["a lake", 5, "all", "", "", "", "16,47,4,55", "", "", ""],
            "swap west and east",
        ),
        (
            "search_scenes",
            [None, 5, "all", "", "", "", "", "", "", ""],
            "words is text; None was given",
        ),
        ("search_scenes", ["\ud800", 5, "all", "", "", "", "", "", "", ""], "words is text"),
        ("open_scene", [None, 7, "auto", ""], NO_UPLOAD),
        ("open_scene", [None, [], "auto", ""], "No file arrived"),
        ("open_scene", [None, None, "no such", ""], "boa_offset is one of auto, yes, no"),
        ("ask", [None, "Water?", float("inf"), 0], "max_length is a number from 16 to 512"),
        ("edit", [None, -1, "Water?", 16, 0], "No scene is open"),
        ("save_chat", [], "No scene is open"),
    ],
)
def test_wrong_argument_gets_one_sentence(
    app_url: str, name: str, data: list, told: str, capfd: pytest.CaptureFixture
):
    error = read_error(call(app_url, name, data, session=f"wrong-{name}"))
    assert error is not None and told in error and error.endswith(".")
    assert "Traceback" not in capfd.readouterr().err


def test_file_of_another_type_gets_one_sentence(app_url: str):
    upload = f"{app_url}gradio_api/upload"
    for content in (b"", b"no picture"):
        reply = requests.post(upload, files={"files": ("bad.png", content)}, timeout=30)
        assert reply.status_code == 415
        assert reply.text.startswith("'bad.png' is not an image") and reply.text.endswith(".")
    cut = {"files": ("bad.png", b"\x89PNG\r\n\x1a\n")}
    (path,) = requests.post(upload, files=cut, timeout=30).json()
    error = read_error(call(app_url, "open_scene", [None, [as_file(path)], "auto", ""]))
    assert error and error.endswith(".") and "/tmp" not in error


def test_unknown_endpoint_gets_one_sentence(app_url: str):
    join = f"{app_url}gradio_api/queue/join"
    for path, body in (
        ("queue/join", {"data": [], "fn_index": 9999, "session_hash": "a"}),
        ("call/nothing", {"data": []}),
        ("call/v2/nothing", {}),
        ("run/nothing", {"data": []}),
    ):
        reply = requests.post(f"{app_url}gradio_api/{path}", json=body, timeout=30)
        assert reply.status_code == 404 and reply.text.startswith("There is no such endpoint")
    reply = requests.post(f"{app_url}gradio_api/call/v2/search_scenes", json={"x": 1}, timeout=30)
    assert reply.status_code == 422 and reply.text.startswith("The arguments do not fit")
    assert requests.post(join, data=b"{", timeout=30).status_code == 422


EVENTS = [None, {}, {"index": -1, "value": 0}, {"index": [[]], "value": {}}, 7]


@pytest.mark.parametrize("many", [1, pytest.param(len(EVENTS), marks=pytest.mark.nightly)])
def test_made_up_page_events_are_refused(app_url: str, many: int, capfd: pytest.CaptureFixture):
    """Of some made-up events for each endpoint, which the seed of the run chooses."""
    for each in read_config(app_url)["dependencies"]:
        if each["api_visibility"] != "private" or not each["backend_fn"]:
            continue
        count = len(each["inputs"])
        for event in random.sample(EVENTS, many):
            said = call(app_url, each["id"], ["all"] * count, session="made-up", event_data=event)
            error = read_error(said)
            assert error is None or error.endswith("."), said
    assert "Traceback" not in capfd.readouterr().err


def test_pages_of_other_sites_cannot_call(app_url: str):
    number = find_number(app_url, "search_scenes")
    body = {"data": ["a lake"], "fn_index": number, "session_hash": "elsewhere"}
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
    ):
        for path in ("queue/join", "call/search_scenes", "mcp/", "upload"):
            reply = requests.post(
                f"{app_url}gradio_api/{path}", json=body, headers=headers, timeout=30
            )
            assert reply.status_code == 403
            assert not any(name.lower().startswith("access-control") for name in reply.headers)
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    reply = requests.options(f"{app_url}gradio_api/queue/join", headers=preflight, timeout=30)
    assert reply.status_code == 403 and "Access-Control-Allow-Origin" not in reply.headers


def test_uploads_of_others_cannot_be_listed(app_url: str, tmp_path: Path):
    """An upload's path holds the hash of its contents, so only who has the file can guess it."""
    random_scene(seed=11).save(tmp_path / "mine.tif")
    client = Client(app_url, verbose=False)
    with (tmp_path / "mine.tif").open("rb") as file:
        (path,) = requests.post(
            f"{app_url}gradio_api/upload", files={"files": file}, timeout=30
        ).json()
    folder = Path(path).parent
    assert len(folder.name) == 64
    for guess in (folder, folder.parent, f"{folder.parent}/../{folder.parent.name}"):
        reply = requests.get(f"{app_url}gradio_api/file={guess}", timeout=30)
        assert reply.status_code == 403
    client.close()


def test_page_reveals_no_path_of_its_machine(app_url: str):
    """The page's description holds no path of this machine but the addresses of pictures."""
    told = (
        json.dumps(read_config(app_url))
        + requests.get(f"{app_url}gradio_api/info", timeout=30).text
    )
    assert str(Path.home()) not in told and str(Path(__file__).parents[2]) not in told
