"""Uploaded files to a scene: what is accepted, and how the files of one scene find together."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import gradio as gr

from earthvlm.scenes.bands import CHATEARTHNET_FOLDERS
from earthvlm.scenes.scene import Scene
from earthvlm.ui.security.upload_limits import SCENE_FILES, UPLOADS

__all__ = ["BOA_OFFSETS", "SCENE_FILES", "open_uploads", "take_uploads_only"]

# What a visitor may say of the offset that newer products carry, and what it means to Scene.open.
BOA_OFFSETS = {
    "auto": ("found out from the file", None),
    "yes": ("take it off", True),
    "no": ("it is off already", False),
}


def take_uploads_only(component: gr.File | gr.UploadButton) -> gr.File | gr.UploadButton:
    """Let a file component take what was uploaded to this app, and fetch no web address.

    Gradio would download an address that an API client gives in place of a file, whatever its size.
    """
    keep = component.async_move_resource_to_block_cache

    async def keep_uploaded(path: str | Path | None) -> str | None:
        if str(path).lower().startswith(("http://", "https://")):
            raise gr.Error("Addresses are not fetched: upload the file itself.", visible=False)
        return await keep(path)

    component.async_move_resource_to_block_cache = keep_uploaded
    return component


def open_uploads(
    paths: list[str] | None, read: Callable[..., Scene], boa_offset: bool | None = None
) -> Scene:
    """Open what a visitor uploaded: one file, or the three PNGs of a ChatEarthNet scene.

    The three are told apart by their names, which must hold "rgb", "band_5_6_7" and
    "band_8_11_12", as their folders' names do. Raises ValueError otherwise. `read` opens what
    `Scene.open` does; see `SceneService.opening`. The files are deleted then.
    """
    if not paths:
        raise ValueError("No file arrived: choose a GeoTIFF, a PNG or a JPEG")
    try:
        return _open_paths(paths, read, boa_offset)
    finally:
        UPLOADS.discard(paths)


def _open_paths(paths: list[str], read: Callable[..., Scene], boa_offset: bool | None) -> Scene:
    if len(paths) == 1:
        return read(paths[0], boa_offset=boa_offset)
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
        return read(root, name)
