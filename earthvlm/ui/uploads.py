"""Opens uploaded files as a scene: one file, the files of its bands, or a ChatEarthNet scene's."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import gradio as gr

from earthvlm.scenes.bands import CHATEARTHNET_FOLDERS
from earthvlm.scenes.products.band_files import is_band_folder
from earthvlm.scenes.scene import Scene
from earthvlm.ui.security.upload_limits import SCENE_FILES, UPLOADS

__all__ = ["BOA_OFFSETS", "SCENE_FILES", "Upload", "open_uploads", "take_uploads_only"]

# Choices for the offset in newer products: label, and argument of Scene.open.
BOA_OFFSETS = {
    "auto": ("detect from the file", None),
    "yes": ("subtract it", True),
    "no": ("already subtracted", False),
}
GONE = "The uploaded file was deleted after some minutes without use: upload it again"
MAX_NAME = 80  # characters of a scene's name, of band files


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


@dataclass(frozen=True)
class Upload:
    """Files of one scene that a visitor sent, and how they are read.

    Attributes:
        paths: where they are on disk.
        boa_offset: as `Scene.open` takes it.
        bands: the names of a raster's bands, in place of what the file says.
    """

    paths: tuple[str, ...]
    boa_offset: bool | None = None
    bands: tuple[str, ...] | None = None

    def read(self, read: Callable[..., Scene], window: Sequence[int] | None = None) -> Scene:
        """Read the scene, or a window of it, and keep the files for another part.

        read: takes the arguments of `Scene.open`; see `SceneService.opening`. window: first column,
        first row, width and height. Raises ValueError where the files are not one scene, or gone.
        """
        if not self.paths:
            raise ValueError(
                "No file arrived: choose a GeoTIFF, band files, a .SAFE.zip or a photo"
            )
        if not UPLOADS.keep(self.paths):
            raise ValueError(GONE)
        if len(self.paths) == 1:
            named = {} if self.bands is None else {"bands": self.bands}
            return read(self.paths[0], boa_offset=self.boa_offset, window=window, **named)
        if is_band_folder([Path(path).name for path in self.paths]):
            return self._read_band_files(read, window)
        return _read_triplet(self.paths, read, window)

    def discard(self) -> None:
        """Delete the files."""
        UPLOADS.discard(self.paths)

    def _read_band_files(self, read: Callable[..., Scene], window: Sequence[int] | None) -> Scene:
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root) / _common_name(self.paths)
            folder.mkdir()
            for path in self.paths:
                _link(path, folder / Path(path).name)
            return read(folder, boa_offset=self.boa_offset, window=window)


def open_uploads(
    paths: list[str] | None,
    read: Callable[..., Scene],
    boa_offset: bool | None = None,
    window: Sequence[int] | None = None,
) -> Scene:
    """Open uploaded files of one scene and delete them.

    They are one file, the files of a scene's bands, or the three PNGs of a ChatEarthNet scene,
    whose names contain "rgb", "band_5_6_7" and "band_8_11_12". The arguments and errors are those
    of `Upload.read`.
    """
    upload = Upload(tuple(paths or ()), boa_offset)
    try:
        return upload.read(read, window)
    finally:
        upload.discard()


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


def _read_triplet(
    paths: Sequence[str], read: Callable[..., Scene], window: Sequence[int] | None
) -> Scene:
    marks = {folder: folder.removesuffix("_images")[3:] for folder in CHATEARTHNET_FOLDERS}
    parts = {
        folder: [path for path in paths if mark in Path(path).name]
        for folder, mark in marks.items()
    }
    if len(paths) != len(parts) or any(len(found) != 1 for found in parts.values()):
        raise ValueError(
            f"{len(paths)} files arrived that are not one scene: upload one file, the files of a "
            "scene's bands, with B02, B03, B04 and so on in their names, or three PNGs with "
            f"{', '.join(marks.values())} in theirs"
        )
    (visible,) = parts["s2_rgb_images"]
    name = f"{Path(visible).stem}.png"
    with tempfile.TemporaryDirectory() as root:
        for folder, (path,) in parts.items():
            (Path(root) / folder).mkdir()
            _link(path, Path(root) / folder / name)
        return read(root, name, window=window)


def _common_name(paths: Sequence[str]) -> str:
    """Return what the names of band files have in common: "T33UUP" of "T33UUP_B02.jp2", ..."""
    letters = zip(*(Path(path).stem for path in paths), strict=False)
    common = "".join(same[0] for same in takewhile(lambda each: len(set(each)) == 1, letters))
    return re.sub(r"[_.\- ]*(b\d?)?$", "", common, flags=re.IGNORECASE)[:MAX_NAME] or "scene"


def _link(path: str, place: Path) -> None:
    """Let a file be found at another place, too; copy it where it cannot."""
    if place.exists():
        raise ValueError(f"Two files are called '{place.name}': upload those of one scene")
    try:
        place.hardlink_to(path)
    except OSError:
        shutil.copy(path, place)
