"""Fixtures of the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from earthvlm.bridge.scene_memory import SceneMemory
from tests.support.generated_chatearthnet import write_generated_chatearthnet


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    write_generated_chatearthnet(folder, train=2, val=1)
    return folder


@pytest.fixture
def scene_file(data_dir) -> str:
    return str(data_dir / "s2_rgb_images" / "s2_images" / "generated_0000.png")


class FakeBridge:
    """Answers at once, and keeps what it was asked."""

    revision = "fake"

    def __init__(self) -> None:
        self.calls: list[dict] = []
        self.memory = SceneMemory()

    def generate(self, scenes, prompt, **options) -> list[str]:
        self.calls.append({"scenes": scenes, "prompt": prompt, **options})
        return [f"{prompt}\n{scene.name}" for scene in scenes]


@pytest.fixture
def bridge(monkeypatch) -> FakeBridge:
    fake = FakeBridge()
    for command in ("describe", "search"):
        monkeypatch.setattr(f"earthvlm.cli.scenes.{command}.load_bridge", lambda *_: fake)
    return fake


@pytest.fixture
def no_model(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a model was loaded before the input was refused")

    for command in ("describe", "search"):
        monkeypatch.setattr(f"earthvlm.cli.scenes.{command}.load_bridge", refuse)
