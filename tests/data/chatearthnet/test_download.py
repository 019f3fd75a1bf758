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

import pytest

from earthvlm.cli import main
from earthvlm.data.chatearthnet import download
from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.data.chatearthnet.download import PARTS, download_chatearthnet
from tests.support.generated_chatearthnet import write_generated_chatearthnet

pytestmark = pytest.mark.slow


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


def test_a_second_call_downloads_nothing(published, tmp_path):
    record, url, source = published
    download_chatearthnet(tmp_path / "data", record_url=url)
    assert _same(tmp_path / "data", source)
    assert len(ChatEarthNet(tmp_path / "data", "train")) == 4
    asked = len(record.requests)
    download_chatearthnet(tmp_path / "data", record_url=url)
    assert len(record.requests) == asked == 4
    assert not list((tmp_path / "data").rglob("*.zip"))


@pytest.mark.parametrize("fault", ["drop", "stall", "busy", "corrupt"])
def test_faults_of_the_transfer_are_recovered(published, tmp_path, monkeypatch, fault):
    record, url, source = published
    monkeypatch.setattr(download, "CHUNK", 500)  # what is lost at most
    if fault == "stall":
        monkeypatch.setattr(download, "TIMEOUT", (60, 1))
    record.faults_of = {f"{folder}.zip": [fault] for folder in list(PARTS.values())[:3]}
    download_chatearthnet(tmp_path / "data", record_url=url)
    assert _same(tmp_path / "data", source)
    resumed = [start for _, start in record.requests if start]
    assert bool(resumed) == (fault in ("drop", "stall"))


def test_archives_are_downloaded_in_parallel(published, tmp_path):
    record, url, source = published
    record.together = threading.Barrier(len(PARTS))  # breaks where one waits for another's end
    download_chatearthnet(tmp_path / "data", record_url=url)
    assert _same(tmp_path / "data", source)


def test_retry_after_is_respected(published, tmp_path):
    record, url, _ = published
    record.faults = ["busy"]
    download_chatearthnet(tmp_path / "data", ["json"], record_url=url)
    first, second = record.times
    assert second - first >= 1


def test_a_missing_file_is_not_retried(published, tmp_path):
    record, url, _ = published
    record.faults = ["gone"] * 20
    with pytest.raises(ConnectionError, match=r"json_files\.zip could not be downloaded"):
        download_chatearthnet(tmp_path / "data", ["json"], record_url=url)
    assert len(record.requests) == 1


def test_an_interrupted_download_resumes(published, tmp_path):
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


def test_a_damaged_archive_is_not_unpacked(published, tmp_path):
    record, url, _ = published
    record.faults = ["corrupt"] * 20
    with pytest.raises(ValueError, match=r"json_files\.zip was downloaded twice with another MD5"):
        download_chatearthnet(tmp_path / "data", ["json"], record_url=url)
    assert not list((tmp_path / "data").rglob("*.json"))


def test_interrupted_unpacking_resumes(published, tmp_path, monkeypatch):
    record, url, source = published
    written = []
    copy = download.shutil.copyfileobj

    def stop(member, target, length):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(target)
        copy(member, target, length)

    monkeypatch.setattr(download.shutil, "copyfileobj", stop)
    with pytest.raises(KeyboardInterrupt):
        download_chatearthnet(tmp_path / "data", ["rgb"], record_url=url)
    monkeypatch.undo()
    download_chatearthnet(tmp_path / "data", record_url=url)
    assert _same(tmp_path / "data", source)
    assert [name for name, _ in record.requests].count("s2_rgb_images.zip") == 1


@pytest.mark.parametrize("path", ["../escaped.png", "/escaped.png", "s2_rgb_images/../../x.png"])
def test_archive_paths_cannot_leave_the_folder(record, tmp_path, path):
    server, url = record
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("s2_rgb_images/fine.png", b"")
        file.writestr(path, b"")
    server.archives["s2_rgb_images.zip"] = buffer.getvalue()
    with pytest.raises(ValueError, match="a path that leaves the data folder"):
        download_chatearthnet(tmp_path / "data", ["rgb"], record_url=url)
    assert not list(tmp_path.rglob("*.png"))


def test_a_full_disk_is_reported_before_the_download(published, tmp_path, monkeypatch):
    record, url, _ = published
    usage = download.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"needs 0\.\d GB of free space, but has 0\.0 GB"):
        download_chatearthnet(tmp_path / "data", record_url=url)
    assert not record.requests


def test_unpacked_files_count_as_present(published, tmp_path, monkeypatch):
    record, url, source = published
    download_chatearthnet(tmp_path / "data", record_url=url)
    for note in (tmp_path / "data" / ".download").iterdir():
        note.unlink()
    room = int(1.5 * sum(map(len, record.archives.values())))
    usage = download.shutil.disk_usage(tmp_path)._replace(free=room)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    download_chatearthnet(tmp_path / "data", record_url=url)
    assert _same(tmp_path / "data", source)


def test_one_caption_set_can_be_unpacked(record, tmp_path):
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


def test_an_unreachable_record_is_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(download, "CONNECTIONS_TRIED", 1)
    arguments = ["download", "chatearthnet", "--data_dir", str(tmp_path)]
    assert main([*arguments, "--record_url", "http://127.0.0.1:9/record"]) == 2
    assert re.fullmatch(
        r"earthvlm: The record at .* cannot be read \(.*\)\.\n", capsys.readouterr().err
    )
    assert main(["download", "chatearthnet"]) == 2
