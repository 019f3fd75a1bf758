"""Uploaded files become one scene, or one sentence that says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from earthvlm.scenes.scene import Scene
from earthvlm.ui.uploads import open_uploads, parse_window


def save_pictures(folder: Path, *names: str) -> list[str]:
    pixels = np.random.default_rng(0).integers(20, 200, (64, 64, 3), dtype=np.uint8)
    for name in names:
        Image.fromarray(pixels).save(folder / name)
    return [str(folder / name) for name in names]


def test_three_pngs_are_recognized_by_their_names(tmp_path: Path):
    names = ("a_band_8_11_12.png", "a_rgb.png", "a_band_5_6_7.png")
    scene = open_uploads(save_pictures(tmp_path, *names), Scene.open)
    assert len(scene.bands) == 9
    assert scene.name == "a_rgb"


@pytest.mark.parametrize(
    "names", [("a_rgb.png", "b_rgb.png", "a_band_5_6_7.png"), ("a.png", "b.png"), ()]
)
def test_files_of_several_scenes_are_refused(tmp_path: Path, names: tuple[str, ...]):
    with pytest.raises(ValueError, match="files? arrived"):
        open_uploads(save_pictures(tmp_path, *names), Scene.open)


@pytest.mark.parametrize(
    ("text", "window"),
    [("", None), ("  ", None), ("1 2 3 4", (1, 2, 3, 4)), ("10, 20;30,40", (10, 20, 30, 40))],
)
def test_a_window_is_read_from_a_field(text, window):
    assert parse_window(text) == window


@pytest.mark.parametrize("text", ["1 2 3", "a b c d", "1 2 3 -4", "1.5 2 3 4", "1 2 3 4 5"])
def test_a_wrong_window_gets_a_sentence(text):
    with pytest.raises(ValueError, match="A part has four whole numbers"):
        parse_window(text)


def test_an_upload_is_read_in_part(tmp_path):
    (path,) = save_pictures(tmp_path, "rgb.png")
    whole = Scene.open(path)
    part = open_uploads([path], Scene.open, window=(2, 4, 8, 9))
    assert np.array_equal(part.reflectance[:, :, 0], whole.reflectance[4:13, 2:10, 0])
