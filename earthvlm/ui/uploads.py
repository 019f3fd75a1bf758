"""Opens uploaded files as a scene: one file, or the three PNGs of a ChatEarthNet scene."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr

from earthvlm.scenes.bands import CHATEARTHNET_FOLDERS
from earthvlm.scenes.scene import Scene
from earthvlm.ui.security.upload_limits import SCENE_FILES, UPLOADS

__all__ = ["BOA_OFFSETS", "SCENE_FILES", "open_uploads", "take_uploads_only"]

# Choices for the offset in newer products: label, and argument of Scene.open.
BOA_OFFSETS = {
    "auto": ("detect from the file", None),
    "yes": ("subtract it", True),
    "no": ("already subtracted", False),
}


def take_uploads_only(component: gr.File | gr.UploadButton) -> gr.File | gr.UploadButton:
    """Let a file component accept uploads alone, and no web addresses.

    Gradio would download an address that an API client sends in place of a file, of any size.
    """
    keep = component.async_move_resource_to_block_cache

    async def keep_uploaded(path: str | Path | None) -> str | None:
        if str(path).lower().startswith(("http://", "https://")):
            raise gr.Error("Addresses are not fetched: upload the file itself.", visible=False)
        return await keep(path)

    component.async_move_resource_to_block_cache = keep_uploaded
    return component


def open_uploads(
    paths: list[str] | None,
    read: Callable[..., Scene],
    boa_offset: bool | None = None,
    window: Sequence[int] | None = None,
) -> Scene:
    """Open uploaded files and delete them: one file, or the three PNGs of a ChatEarthNet scene.

    The names of the three must contain "rgb", "band_5_6_7" and "band_8_11_12", like their folders'
    names. read: takes the arguments of `Scene.open`; see `SceneService.opening`.
    window: first column, first row, width and height of the part to read. Raises ValueError where
    the files are not one scene.
    """
    if not paths:
        raise ValueError("No file arrived: choose a GeoTIFF, a PNG or a JPEG")
    try:
        return _open_paths(paths, read, boa_offset, window)
    finally:
        UPLOADS.discard(paths)


def parse_window(text: str) -> tuple[int, ...] | None:
    """Read first column, first row, width and height from a field; None where it is empty.

    Raises ValueError for anything but four whole numbers.
    """
    if not text.strip():
        return None
    numbers = re.split(r"[\s,;]+", text.strip())
    if len(numbers) != 4 or not all(re.fullmatch(r"[0-9]{1,9}", number) for number in numbers):
        raise ValueError(
            "A part has four whole numbers: first column, first row, width and height in pixels"
        )
    return tuple(int(number) for number in numbers)


def _open_paths(
    paths: list[str],
    read: Callable[..., Scene],
    boa_offset: bool | None,
    window: Sequence[int] | None,
) -> Scene:
    if len(paths) == 1:
        return read(paths[0], boa_offset=boa_offset, window=window)
    marks = {folder: folder.removesuffix("_images")[3:] for folder in CHATEARTHNET_FOLDERS}
    parts = {
        folder: [path for path in paths if mark in Path(path).name]
        for folder, mark in marks.items()
    }
    if len(paths) != len(parts) or any(len(found) != 1 for found in parts.values()):
        raise ValueError(
            f"{len(paths)} files arrived that are not one scene: upload one file, or three PNGs "
            f"with {', '.join(marks.values())} in their names"
        )
    (visible,) = parts["s2_rgb_images"]
    name = f"{Path(visible).stem}.png"
    with tempfile.TemporaryDirectory() as root:
        for folder, (path,) in parts.items():
            (Path(root) / folder).mkdir()
            shutil.copy(path, Path(root) / folder / name)
        return read(root, name, window=window)
