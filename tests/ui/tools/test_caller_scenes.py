"""Scenes that programs send with a call: whose uploads they find, and how much they may hold."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from earthvlm.scenes.scene import Scene
from earthvlm.serving.request_queue import QueueFull
from earthvlm.ui.security.upload_limits import Uploads
from earthvlm.ui.tools import caller_scenes
from earthvlm.ui.tools.caller_scenes import CallerScenes
from tests.conftest import random_scene

UPLOAD_ID = "0123456789abcdef" * 4


@pytest.fixture
def uploaded(tmp_path: Path) -> tuple[Uploads, Path]:
    """An upload of the address a, where Gradio puts it."""
    path = tmp_path / UPLOAD_ID / "mine.tif"
    path.parent.mkdir()
    random_scene(16, 16).save(path)
    uploads = Uploads()
    uploads.begin("a", path.stat().st_size)
    uploads.end("a", path.stat().st_size, [str(path)])
    return uploads, path


def test_uploads_are_found_by_their_own_address(uploaded: tuple[Uploads, Path]):
    uploads, path = uploaded
    scenes = CallerScenes(uploads)
    assert scenes.open(UPLOAD_ID, "", Scene.open, "a").name == "mine"
    assert scenes.open(UPLOAD_ID, "2 4 8 9", Scene.open, "a").width == 8
    assert path.is_file()
    for image, address in ((UPLOAD_ID, "b"), ("f" * 64, "a"), (UPLOAD_ID, "")):
        with pytest.raises(ValueError, match="no such upload from your address"):
            scenes.open(image, "", Scene.open, address)
    path.unlink()
    with pytest.raises(ValueError, match="no such upload from your address"):
        scenes.open(UPLOAD_ID, "", Scene.open, "a")


def test_calls_hold_a_bounded_size_of_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    random_scene(16, 16).save(tmp_path / "a.tif")
    image = base64.b64encode((tmp_path / "a.tif").read_bytes()).decode()
    size = random_scene(16, 16).nbytes
    scenes = CallerScenes(Uploads(), max_bytes=2 * size + size // 2)
    scene = scenes.open(f"data:image/tiff;base64,{image}", "", Scene.open, "a")
    with scenes.hold(scene), scenes.hold(scene):
        with pytest.raises(QueueFull, match="^Busy"), scenes.hold(scene):
            pass
    with scenes.hold(scene):
        pass
    monkeypatch.setattr(caller_scenes, "MAX_PIXELS", 100)
    with pytest.raises(ValueError, match="16 x 16 pixels, and a call takes at most 100: give a"):
        scenes.open(image, "", Scene.open, "a")
    assert scenes.open(image, "0 0 10 10", Scene.open, "a").width == 10
