"""ChatEarthNet fetched from a server on this machine that drops, throttles and corrupts."""

from __future__ import annotations

import hashlib
import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from earthvlm.cli import main
from earthvlm.data import chatearthnet, chatearthnet_download
from earthvlm.data.chatearthnet import ChatEarthNet, find_hub_id
from earthvlm.data.chatearthnet_download import PARTS, download_chatearthnet
from earthvlm.data.chatearthnet_validation import check_chatearthnet
from tests.support.generated_chatearthnet import write_generated_chatearthnet


class Record:
    """The record's archives by name, and what goes wrong with each request, in turn."""

    def __init__(self) -> None:
        self.archives: dict[str, bytes] = {}
        self.faults: list[str] = []  # of the next requests, whatever they ask for
        self.faults_of: dict[str, list[str]] = {}  # of an archive's next requests
        self.requests: list[tuple[str, int]] = []  # archive, first byte asked for
        self.times: list[float] = []
        self.together: threading.Barrier | None = None  # requests wait here for each other
        self.released = threading.Event()  # what stalls waits for it
        self.lock = threading.Lock()

    def describe(self, url: str) -> bytes:
        files = [
            {
                "key": name,
                "size": len(content),
                "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
                "links": {"self": f"{url}/files/{name}"},
            }
            for name, content in self.archives.items()
        ]
        return json.dumps({"files": files}).encode()


@pytest.fixture
def record() -> Iterator[tuple[Record, str]]:
    record = Record()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/record":
                return self._send(200, record.describe(f"http://{self.headers['Host']}"))
            name = self.path.rpartition("/")[2]
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            with record.lock:
                faults = record.faults_of.get(name) or record.faults
                fault = faults.pop(0) if faults else ""
                record.requests.append((name, start))
                record.times.append(time.monotonic())
            if record.together is not None:
                record.together.wait(60)
            if fault == "busy":
                return self._send(429, b"", {"Retry-After": "1"})
            if fault == "gone":
                return self._send(404, b"")
            body = record.archives[name][start:]
            if fault == "corrupt":
                body = bytes(len(body))
            upto = len(body) // 2 if fault in ("drop", "stall") else None
            return self._send(206 if asked else 200, body, upto=upto, stalls=fault == "stall")

        def _send(
            self,
            status: int,
            body: bytes,
            headers: dict | None = None,
            upto: int | None = None,
            stalls: bool = False,
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:upto])
            if upto is not None:
                self.wfile.flush()
                if stalls:
                    record.released.wait()
                self.close_connection = True
                self.connection.close()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield record, f"http://127.0.0.1:{server.server_port}/record"
    record.released.set()
    server.shutdown()
    server.server_close()


def _archive(folder: Path, names_only: bool = False) -> bytes:
    """A folder as a zip; names_only leaves the folder's own name out of the paths."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                root = folder if names_only else folder.parent
                file.write(path, path.relative_to(root))
    return buffer.getvalue()


@pytest.fixture
def published(record, tmp_path) -> tuple[Record, str, Path]:
    """A small ChatEarthNet on the server, and the folder it was made of."""
    source = tmp_path / "source"
    write_generated_chatearthnet(source, train=4, val=2)
    for folder in PARTS.values():
        record[0].archives[f"{folder}.zip"] = _archive(source / folder, folder == "json_files")
    return *record, source


def _same(one: Path, other: Path) -> bool:
    files = [
        {p.relative_to(root): p.read_bytes() for folder in PARTS.values()
         for p in (root / folder).rglob("*") if p.is_file()}
        for root in (one, other)
    ]  # fmt: skip
    return files[0] == files[1] and len(files[0]) > 10


def test_everything_arrives_and_a_second_call_fetches_nothing(published, tmp_path):
    record, url, source = published
    download_chatearthnet(tmp_path / "data", record_url=url)
    assert _same(tmp_path / "data", source)
    assert len(ChatEarthNet(tmp_path / "data", "train")) == 4
    asked = len(record.requests)
    download_chatearthnet(tmp_path / "data", record_url=url)
    assert len(record.requests) == asked == 4
    assert not list((tmp_path / "data").rglob("*.zip"))


@pytest.mark.parametrize("fault", ["drop", "stall", "busy", "corrupt"])
def test_what_goes_wrong_on_the_way_is_made_good(published, tmp_path, monkeypatch, fault):
    record, url, source = published
    monkeypatch.setattr(chatearthnet_download, "CHUNK", 500)  # what is lost at most
    if fault == "stall":
        monkeypatch.setattr(chatearthnet_download, "TIMEOUT", (60, 1))
    record.faults_of = {f"{folder}.zip": [fault] for folder in list(PARTS.values())[:3]}
    download_chatearthnet(tmp_path / "data", record_url=url)
    assert _same(tmp_path / "data", source)
    resumed = [start for _, start in record.requests if start]
    assert bool(resumed) == (fault in ("drop", "stall"))


def test_archives_are_fetched_at_one_time(published, tmp_path):
    record, url, source = published
    record.together = threading.Barrier(len(PARTS))  # breaks where one waits for another's end
    download_chatearthnet(tmp_path / "data", record_url=url)
    assert _same(tmp_path / "data", source)


def test_a_busy_server_is_asked_again_when_it_said(published, tmp_path):
    record, url, _ = published
    record.faults = ["busy"]
    download_chatearthnet(tmp_path / "data", ["json"], record_url=url)
    first, second = record.times
    assert second - first >= 1


def test_a_file_that_is_not_there_is_not_asked_for_again(published, tmp_path):
    record, url, _ = published
    record.faults = ["gone"] * 20
    with pytest.raises(ConnectionError, match=r"json_files\.zip could not be downloaded"):
        download_chatearthnet(tmp_path / "data", ["json"], record_url=url)
    assert len(record.requests) == 1


def test_an_interrupt_ends_all_downloads_and_the_next_call_goes_on(published, tmp_path):
    record, url, source = published
    record.faults = ["stall"] * len(PARTS)
    command = [sys.executable, "-m", "earthvlm", "download", "chatearthnet"]
    command += ["--data_dir", str(tmp_path / "data"), "--record_url", url]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, as these tests may be, ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while len(list((tmp_path / "data").rglob("*.zip"))) < len(PARTS):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    record.released.set()  # pieces arrive again: each is the last of its archive
    _, said = process.communicate()
    assert process.returncode == 130 and "Traceback" not in said
    assert all(f"{folder}.zip" in said for folder in PARTS.values())  # a bar each
    download_chatearthnet(tmp_path / "data", record_url=url)
    assert _same(tmp_path / "data", source)


def test_an_archive_that_stays_damaged_is_named_and_nothing_of_it_is_unpacked(published, tmp_path):
    record, url, _ = published
    record.faults = ["corrupt"] * 20
    with pytest.raises(ValueError, match=r"json_files\.zip was downloaded twice with another MD5"):
        download_chatearthnet(tmp_path / "data", ["json"], record_url=url)
    assert not list((tmp_path / "data").rglob("*.json"))


def test_stopped_while_unpacking_the_next_call_goes_on(published, tmp_path, monkeypatch):
    record, url, source = published
    written = []
    copy = chatearthnet_download.shutil.copyfileobj

    def stop(member, target, length):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(target)
        copy(member, target, length)

    monkeypatch.setattr(chatearthnet_download.shutil, "copyfileobj", stop)
    with pytest.raises(KeyboardInterrupt):
        download_chatearthnet(tmp_path / "data", ["rgb"], record_url=url)
    monkeypatch.undo()
    download_chatearthnet(tmp_path / "data", record_url=url)
    assert _same(tmp_path / "data", source)
    assert [name for name, _ in record.requests].count("s2_rgb_images.zip") == 1


@pytest.mark.parametrize("path", ["../escaped.png", "/escaped.png", "s2_rgb_images/../../x.png"])
def test_no_path_leaves_the_folder(record, tmp_path, path):
    server, url = record
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("s2_rgb_images/fine.png", b"")
        file.writestr(path, b"")
    server.archives["s2_rgb_images.zip"] = buffer.getvalue()
    with pytest.raises(ValueError, match="a path that leaves the data folder"):
        download_chatearthnet(tmp_path / "data", ["rgb"], record_url=url)
    assert not list(tmp_path.rglob("*.png"))


def test_too_small_a_disk_is_said_before_anything_is_fetched(published, tmp_path, monkeypatch):
    record, url, _ = published
    usage = chatearthnet_download.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(chatearthnet_download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"needs 0\.\d GB of free space, but has 0\.0 GB"):
        download_chatearthnet(tmp_path / "data", record_url=url)
    assert not record.requests


def test_what_is_unpacked_needs_no_room_again(published, tmp_path, monkeypatch):
    record, url, source = published
    download_chatearthnet(tmp_path / "data", record_url=url)
    for note in (tmp_path / "data" / ".download").iterdir():
        note.unlink()
    room = int(1.5 * sum(map(len, record.archives.values())))
    usage = chatearthnet_download.shutil.disk_usage(tmp_path)._replace(free=room)
    monkeypatch.setattr(chatearthnet_download.shutil, "disk_usage", lambda _: usage)
    download_chatearthnet(tmp_path / "data", record_url=url)
    assert _same(tmp_path / "data", source)


def test_one_caption_set_alone(record, tmp_path):
    server, url = record
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for captions in ("35", "4v"):
            file.writestr(f"json_files/ChatEarthNet_caps_{captions}_train.json", "[]")
    server.archives["json_files.zip"] = buffer.getvalue()
    arguments = ["download", "chatearthnet", "--data_dir", str(tmp_path / "data")]
    arguments += ["--parts", "json", "--record_url", url]
    assert main([*arguments, "--captions", "4v"]) == 0
    folder = tmp_path / "data" / "json_files"
    assert [p.name for p in folder.iterdir()] == ["ChatEarthNet_caps_4v_train.json"]
    arguments[arguments.index("json")] = "json,rgb"
    assert main(arguments) == 2  # this record has no pictures
    arguments[arguments.index("json,rgb")] = "json"
    assert main(arguments) == 0  # the others are not taken for unpacked
    assert len(list(folder.iterdir())) == 2


def test_an_unreachable_record_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(chatearthnet_download, "CONNECTIONS_TRIED", 1)
    arguments = ["download", "chatearthnet", "--data_dir", str(tmp_path)]
    assert main([*arguments, "--record_url", "http://127.0.0.1:9/record"]) == 2
    assert re.fullmatch(
        r"earthvlm: The record at .* cannot be read \(.*\)\.\n", capsys.readouterr().err
    )
    assert main(["download", "chatearthnet"]) == 2


def test_a_check_names_what_cannot_be_used_and_training_leaves_it_out(tmp_path, capsys):
    names = write_generated_chatearthnet(tmp_path, train=6, val=2)
    assert main(["validate-data", str(tmp_path), "--workers", "1"]) == 0
    assert "every tile with a caption can be used" in capsys.readouterr().out

    partner = tmp_path / "s2_band_5_6_7_images" / names[0]
    partner.unlink()
    damaged = next(tmp_path.glob(f"s2_band_8_11_12_images/**/{names[1]}"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    for path in tmp_path.rglob(names[2]):
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
    for path in tmp_path.rglob(names[3]):
        path.unlink()
    extra = next(tmp_path.glob("s2_rgb_images/**/*.png"))
    extra.with_name("uncaptioned.png").write_bytes(extra.read_bytes())

    assert main(["validate-data", str(tmp_path), "--workers", "2"]) == 1
    report = capsys.readouterr().out.splitlines()
    assert report[0] == "captions 35, train: 6 tiles, published are 98,092"
    assert not any(line.startswith("captions 35:") for line in report)  # there is no test split
    for line in ("missing partner: 1 tiles", "unreadable: 1 tiles", "blank: 1 tiles",
                 "missing: 1 tiles", "on disk without a caption: 1 tiles"):  # fmt: skip
        assert line in report
    tiles = ChatEarthNet(tmp_path, "train")
    assert [tile.name for tile in tiles] == names[4:6]
    assert tiles.skipped == 4


def test_a_whole_caption_set_is_counted_beside_the_published_one(tmp_path):
    write_generated_chatearthnet(tmp_path, train=2, val=1)
    folder = tmp_path / "json_files"
    captions = (folder / "ChatEarthNet_caps_35_val.json").read_text()
    for split in chatearthnet.SPLITS:
        (folder / f"ChatEarthNet_caps_4v_{split}.json").write_text(captions)
    lines = check_chatearthnet(tmp_path).lines()
    assert "captions 4v, test: 1 tiles" in lines
    assert "captions 4v: 3 tiles, published are 10,000" in lines


def test_the_dataset_is_known_by_its_tiles_names(tmp_path):
    names = write_generated_chatearthnet(tmp_path, train=2, val=1)
    assert find_hub_id(ChatEarthNet(tmp_path, "train").tiles) is None
    captions = tmp_path / "json_files" / "ChatEarthNet_caps_35_train.json"
    text = captions.read_text()
    for name, real in zip(names, ("1908_3064_patch00.png", "5107_3291_patch10.png"), strict=False):
        text = text.replace(name, real)
    captions.write_text(text)
    assert find_hub_id(ChatEarthNet(tmp_path, "train").tiles) == chatearthnet.HUB_ID


def test_tiles_read_last_stay_in_memory_as_far_as_there_is_room(tmp_path, monkeypatch):
    write_generated_chatearthnet(tmp_path, train=3, val=1)
    opened, open_scene = [], chatearthnet.Scene.open
    monkeypatch.setattr(
        chatearthnet.Scene, "open", lambda root, name: opened.append(name) or open_scene(root, name)
    )
    tiles = ChatEarthNet(tmp_path, "train", memory=2 * 64 * 64 * 12 * 4)
    names = [tile.name for tile in tiles]
    for index in (0, 1, 0, 2, 0, 1):  # the third takes the place of the second
        tiles[index]
    assert opened == [names[i] for i in (0, 1, 2, 1)]
    none = ChatEarthNet(tmp_path, "train", memory=0)
    none[0], none[0]
    assert opened[-2:] == [names[0]] * 2


def test_a_folder_without_captions_is_refused(tmp_path, capsys):
    assert main(["validate-data", str(tmp_path)]) == 2
    assert "holds no captions of ChatEarthNet" in capsys.readouterr().err
