"""Strangers' files opened in child processes of bounded memory and time."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

import earthvlm.scenes.isolated_reader as isolated_reader
from earthvlm.scenes.isolated_reader import IsolatedReader
from earthvlm.scenes.scene import Scene
from tests.conftest import random_scene

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's RLIMIT_AS")


@pytest.fixture(scope="module")
def reader() -> Iterator[IsolatedReader]:
    reader = IsolatedReader(readers=1, memory_bytes=160 * 2**20, deadline=20)
    yield reader
    reader.close()


def test_a_child_opens_the_same_scene(reader: IsolatedReader, tmp_path: Path):
    path = tmp_path / "mine_2020-06-30.tif"
    random_scene().save(path)
    here, there = Scene.open(path), reader.open(path)
    assert np.array_equal(here.reflectance, there.reflectance)
    for name in ("date", "longitude", "latitude", "name", "notes"):
        assert getattr(here, name) == getattr(there, name)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        reader.open(tmp_path / "other.tif")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="not an image that can be read"):
        reader.open(tmp_path / "text.png")


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


def test_a_child_that_dies_gives_one_sentence(
    reader: IsolatedReader, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    random_scene().save(tmp_path / "fine.tif")
    reader.open(tmp_path / "fine.tif")
    (child,) = reader._idle
    os.kill(child.pid, signal.SIGSTOP)
    error: list[BaseException] = []

    def read() -> None:
        try:
            reader.open(tmp_path / "fine.tif")
        except ValueError as raised:
            error.append(raised)

    thread = threading.Thread(target=read)
    thread.start()
    while reader._idle:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    thread.join(20)
    assert "'fine.tif' could not be decoded safely" in str(error[0])
    assert "ended with status -9" in caplog.text
    assert reader.open(tmp_path / "fine.tif").width == 64


def test_a_file_that_takes_too_long_ends_a_child(tmp_path: Path):
    reader = IsolatedReader(readers=1, deadline=1.5)
    random_scene().save(tmp_path / "slow.tif")
    reader.start()
    os.kill(reader._idle[0].pid, signal.SIGSTOP)
    with pytest.raises(ValueError, match="'slow.tif' took more than 2 seconds"):
        reader.open(tmp_path / "slow.tif")
    reader.close()


def test_children_end_with_the_server(tmp_path: Path):
    reader = IsolatedReader(readers=2)
    reader.start()
    children = [psutil.Process(child.pid) for child in reader._idle]
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
    child = psutil.Process(reader._idle[0].pid)
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
        isolated_reader._receive(Stream(b"\xff\xff\xff\xff"))
    reply = b'{"size": [100000, 100000]}'
    with pytest.raises(ValueError, match="cut it into scenes"):
        isolated_reader._receive(Stream(len(reply).to_bytes(4, "little") + reply))
