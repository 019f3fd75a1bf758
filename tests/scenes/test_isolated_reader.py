"""Strangers' files opened in child processes of bounded memory and time."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from earthvlm.scenes.isolated_reader import IsolatedReader, read_reply
from earthvlm.scenes.scene import Scene
from tests.conftest import random_scene

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's RLIMIT_AS")


@pytest.fixture(scope="module")
def reader() -> Iterator[IsolatedReader]:
    reader = IsolatedReader(readers=1, memory_bytes=160 * 2**20, deadline=20)
    yield reader
    reader.close()


def find_children(reader: IsolatedReader) -> list[psutil.Process]:
    """The reader's children: no other reader here gives its own as much memory."""
    arguments = ["earthvlm.scenes.isolated_reader", str(reader.memory_bytes)]
    return [p for p in psutil.Process().children() if p.cmdline()[-2:] == arguments]


def wait_for_request(child: psutil.Process) -> None:
    """Return once a request waits in a stopped child's stdin."""
    descriptor = os.open(f"/proc/{child.pid}/fd/0", os.O_RDONLY)
    try:
        assert select.select([descriptor], [], [], 20)[0], "no request came"
    finally:
        os.close(descriptor)


def test_a_child_opens_the_same_scene(reader: IsolatedReader, tmp_path: Path):
    path = tmp_path / "mine_2020-06-30.tif"
    random_scene().save(path)
    here, there = Scene.open(path), reader.open(path)
    assert np.array_equal(here.reflectance, there.reflectance)
    for name in ("date", "longitude", "latitude", "name", "notes", "pixel_metres"):
        assert getattr(here, name) == getattr(there, name)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        reader.open(tmp_path / "other.tif")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="not an image that can be read"):
        reader.open(tmp_path / "text.png")


@pytest.mark.slow
@on_linux
def test_a_file_that_takes_too_much_memory_ends_a_child(reader: IsolatedReader, tmp_path: Path):
    bomb, fine = tmp_path / "bomb.webp", tmp_path / "fine.png"
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    noise.save(fine)
    large = Image.new("RGB", (5000, 5000), (9, 90, 200))
    large.paste(noise)
    large.save(bomb, method=0)
    with pytest.raises(ValueError, match="'bomb.webp'"):
        reader.open(bomb)
    assert reader.open(fine).width == 64


@on_linux
def test_a_child_that_dies_gives_one_sentence(
    reader: IsolatedReader, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    random_scene().save(tmp_path / "fine.tif")
    reader.open(tmp_path / "fine.tif")
    (child,) = find_children(reader)
    child.suspend()
    error: list[BaseException] = []

    def read() -> None:
        try:
            reader.open(tmp_path / "fine.tif")
        except ValueError as raised:
            error.append(raised)

    thread = threading.Thread(target=read)
    thread.start()
    wait_for_request(child)
    child.kill()
    thread.join(20)
    assert "'fine.tif' could not be decoded safely" in str(error[0])
    assert "ended with status -9" in caplog.text
    assert reader.open(tmp_path / "fine.tif").width == 64


def test_a_file_that_takes_too_long_ends_a_child(tmp_path: Path):
    reader = IsolatedReader(readers=1, memory_bytes=161 * 2**20, deadline=1.5)
    random_scene().save(tmp_path / "slow.tif")
    reader.start()
    (child,) = find_children(reader)
    child.suspend()
    with pytest.raises(ValueError, match="'slow.tif' took more than 2 seconds"):
        reader.open(tmp_path / "slow.tif")
    reader.close()


def test_children_end_with_the_server(tmp_path: Path):
    reader = IsolatedReader(readers=2, memory_bytes=162 * 2**20)
    reader.start()
    children = find_children(reader)
    assert len(children) == 2
    reader.close()
    assert not any(child.is_running() for child in children)


@on_linux
def test_a_child_knows_no_secrets_and_loads_no_model(
    reader: IsolatedReader, monkeypatch, tmp_path: Path
):
    monkeypatch.setenv("HF_TOKEN", "secret")
    reader.close()
    random_scene().save(tmp_path / "fine.tif")
    reader.open(tmp_path / "fine.tif")
    (child,) = find_children(reader)
    assert "HF_TOKEN" not in child.environ()
    assert not any("libtorch" in mapped.path for mapped in child.memory_maps())
    assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert child.nice() > psutil.Process().nice()


def test_a_reply_is_not_believed_beyond_a_scenes_size(monkeypatch):
    class Stream:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def read(self, length: int) -> bytes:
            taken, self.data = self.data[:length], self.data[length:]
            return taken

    with pytest.raises(ValueError, match="a reply of"):
        read_reply(Stream(b"\xff\xff\xff\xff"))
    reply = b'{"size": [100000, 100000]}'
    with pytest.raises(ValueError, match="cut it into scenes"):
        read_reply(Stream(len(reply).to_bytes(4, "little") + reply))
