"""Which files and folders below a folder are scenes that `Scene.open` reads: one answer for all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from earthvlm.scenes.bands import CHATEARTHNET_FOLDERS, VISIBLE_BANDS
from earthvlm.scenes.datasets.files import is_dataset_folder
from earthvlm.scenes.products.band_folder import find_product, is_product_folder
from earthvlm.scenes.products.product_files import list_archive
from earthvlm.scenes.products.stac_item import is_stac_item
from earthvlm.scenes.rasters.raster_file import RASTER_SUFFIXES

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
DATASET_SUFFIXES = (".nc", ".nc4", ".zarr")
KINDS = (
    f"files that end in {', '.join((*RASTER_SUFFIXES, *PICTURE_SUFFIXES, *DATASET_SUFFIXES))}, "
    "products, their zip archives and STAC items"
)
# Small pictures that catalogues and products keep next to the bands.
_PREVIEW = re.compile(
    r"(^|[_.-])(preview|thumb(nail)?|quick-?look|browse|overview|ql|pvi|qkl)([_.-]|$)",
    re.IGNORECASE,
)
_PRODUCT_NAME = re.compile(r"^S2[A-D]_MSIL[12][AC]|\.SAFE\.zip$|\.zarr\.zip$", re.IGNORECASE)


def is_scene_folder(folder: Path) -> bool:
    """Return whether a folder is one scene: a product, a part of one, or a Zarr store."""
    return is_dataset_folder(folder) or find_product(folder) is not None


def list_scenes(folder: Path, *, below: bool = False, skip: Path | None = None) -> list[Path]:
    """List the scenes in a folder, sorted; `Scene.open` takes each.

    Of ChatEarthNet's triplets one PNG is listed. Left out are pictures of the same name as a
    raster, previews, zip archives of something else, and what a listed STAC item refers to.

    Args:
        folder: is no scene itself.
        below: whether folders in it that are no scenes are looked through too.
        skip: a folder that is left out.
    """
    return list(_walk(folder, below, skip.resolve() if skip else None))


def _walk(folder: Path, below: bool, skip: Path | None) -> Iterator[Path]:
    triplets = folder / next(iter(CHATEARTHNET_FOLDERS)) / "s2_images"
    if triplets.is_dir():
        yield from sorted(path for path in triplets.iterdir() if path.suffix.lower() == ".png")
        return
    inside = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    files = [path for path in inside if path.is_file()]
    items = {path for path in files if is_stac_item(path)}
    assets = {asset for item in items for asset in _list_assets(item)}
    scene_files = items.union(_choose_files([path for path in files if path not in assets]))
    for path in inside:
        if path in scene_files:
            yield path
        elif not path.is_dir() or path.resolve() == skip:
            continue
        elif any(path in asset.parents for asset in assets):
            continue  # the folder of an item's bands
        elif is_dataset_folder(path) or is_product_folder(path):
            yield path
        elif below and not path.is_symlink():
            yield from _walk(path, below, skip)


def _choose_files(files: list[Path]) -> Iterator[Path]:
    """Yield the files of one folder that are scenes, besides STAC items."""
    rasters = [path for path in files if path.suffix.lower() in RASTER_SUFFIXES]
    stems = {path.stem for path in rasters}
    for path in files:
        suffix = path.suffix.lower()
        if suffix in (*RASTER_SUFFIXES, *DATASET_SUFFIXES):
            yield path
        elif suffix in PICTURE_SUFFIXES:
            if path.stem not in stems and not _PREVIEW.search(path.stem):
                yield path
        elif suffix == ".zip" and _is_product_archive(path):
            yield path


def _list_assets(item: Path) -> Iterator[Path]:
    """Yield the files next to an item, or below, that it refers to."""
    try:
        assets = json.loads(item.read_bytes()).get("assets", {})
        for asset in assets.values():
            href = str(asset.get("href", ""))
            if "://" not in href:
                yield item.parent / href.removeprefix("./")
    except (ValueError, AttributeError, OSError):
        return


def _is_product_archive(path: Path) -> bool:
    """Return whether an archive is named as a product, or holds bands; others can be anything."""
    if _PRODUCT_NAME.search(path.name):
        return True
    try:
        files = list_archive(path)
    except ValueError:
        return False
    bands = {file.band for file in files.bands}
    return files.only_raster() is not None or set(VISIBLE_BANDS) <= bands
