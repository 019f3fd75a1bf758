"""Open a folder or an archive whose files each hold a band: .SAFE products, BigEarthNet, COGs."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from earthvlm.scenes.bands import BANDS, VISIBLE_BANDS, find_baseline
from earthvlm.scenes.product import PRODUCT_TAG, TILE_TAG, TIME_TAG, read_product
from earthvlm.scenes.products.band_files import NamedFile, choose_files, is_band_folder
from earthvlm.scenes.products.product_files import (
    ProductFiles,
    is_archive,
    list_archive,
    list_folder,
)
from earthvlm.scenes.products.safe_metadata import (
    METADATA_NAME,
    UNREADABLE_NOTE,
    SafeMetadata,
    read_safe_metadata,
)
from earthvlm.scenes.rasters.acquisition import read_acquisition_date, refuse_other_sensors
from earthvlm.scenes.rasters.band_stack import BandFile, BandStack
from earthvlm.scenes.rasters.raster_file import RasterFile, open_rasters
from earthvlm.scenes.rasters.sentinel2_image import (
    ImageMetadata,
    Sentinel2Image,
    require_visible_bands,
)
from earthvlm.scenes.rasters.value_rules import ValueTags
from earthvlm.scenes.reflectance import MAX_PIXELS

_IMAGE_HEADER = b"ihdr"  # the box of JPEG 2000 that begins with height and width
_GRANULE = re.compile(r"(?:^|/)GRANULE/([^/]+)/")
# Folders of a product above which its metadata file is looked for: R10m, IMG_DATA, the granule.
_PARENTS = 4


def find_product(path: Path) -> ProductFiles | None:
    """Return the files of a folder or archive that holds a product's bands, else None.

    Raises ValueError for an archive that is damaged, or unreasonable in what it holds.
    """
    if path.is_dir():
        if not _may_be_product(path):
            return None
        files = list_folder(path)
    elif path.is_file() and path.stat().st_size and is_archive(path):
        files = list_archive(path)
    else:
        return None
    if files.is_archive:
        return files
    return files if set(VISIBLE_BANDS) <= {file.band for file in files.bands} else None


def is_product_folder(folder: Path) -> bool:
    """Return whether a folder is a .SAFE product, or holds the bands of a scene as files."""
    if folder.suffix.upper() == ".SAFE":
        return True
    return is_band_folder([path.name for path in folder.iterdir() if path.is_file()])


def _may_be_product(folder: Path) -> bool:
    """Whether a folder looks like a product, by what lies directly in it."""
    inside = [path.name for path in folder.iterdir() if path.is_dir()]
    names = {name.upper() for name in inside}
    known = {"GRANULE", "IMG_DATA", "R10M", "R20M", "R60M"}
    return bool(known & names) or is_product_folder(folder)


@contextmanager
def open_product(
    files: ProductFiles, boa_offset: bool | None = None, *, whole: bool = False
) -> Iterator[Sentinel2Image]:
    """Open the bands of a product for reading parts of it.

    whole: it is read as a whole. Where an overview has to do for that, bands are taken from the
    coarser copies that level 2A has, of which much less is unpacked and decoded.

    Raises ValueError where the files are not the bands of one scene.
    """
    source = f"'{files.name}'"
    found = _of_one_granule(files, source)
    chosen = choose_files(found, source)
    if whole and "B02" in chosen and _exceeds_scene(files.read_start(chosen["B02"])):
        # One band stays as it is: the image's size and grid are those of the finest.
        finest = "B08" if "B08" in chosen else "B02"
        chosen = choose_files(found, source, coarsest=True) | {finest: chosen[finest]}
    bands = [band for band in (*BANDS, "B10") if band in chosen]
    require_visible_bands(bands, source)
    metadata, notes = _read_metadata(files)
    paths = {band: path for band, path in chosen.items() if band != "B10"}
    with ExitStack() as stack:
        rasters = dict(zip(paths, files.rasters(list(paths.values()), stack), strict=True))
        yield open_bands(
            stack,
            {band: (raster, 1) for band, raster in rasters.items()},
            source,
            _scene_name(files, metadata),
            metadata,
            has_cirrus="B10" in chosen,
            boa_offset=boa_offset,
            notes=notes,
        )


def _exceeds_scene(start: bytes) -> bool:
    """Return whether a JPEG 2000 file, by its first bytes, has more pixels than a scene."""
    at = start.find(_IMAGE_HEADER) + len(_IMAGE_HEADER)
    if at < len(_IMAGE_HEADER) or len(start) < at + 8:
        return False
    height, width = struct.unpack_from(">II", start, at)
    return height * width > MAX_PIXELS


def open_bands(
    stack: ExitStack,
    rasters: Mapping[str, tuple[RasterFile, int]],
    source: str,
    name: str,
    metadata: SafeMetadata | None,
    *,
    tags: ValueTags | None = None,
    has_cirrus: bool = False,
    boa_offset: bool | None = None,
    notes: tuple[str, ...] = (),
) -> Sentinel2Image:
    """Open the rasters of an image's bands, which `stack` closes.

    Args:
        stack: closes the rasters.
        rasters: by band, and by "mask", "scl" and "clouds", a raster and the band's number in it.
        source: names the image in errors.
        name: of the scene.
        metadata: of its product.
        tags: what the values mean, in the order of `rasters` without masks; None asks the metadata
            and then the rasters themselves.
        has_cirrus: whether there is a band B10, as in level 1C.
        boa_offset: whether the values carry the +1000 offset of newer products; None finds out.
        notes: sentences for the user.
    """
    files = {raster.location: raster for raster, _ in rasters.values()}
    opened = dict(zip(files, open_rasters(list(files.values()), stack), strict=True))
    found = {
        band: BandFile(opened[raster.location], number)
        for band, (raster, number) in rasters.items()
    }
    masks = {kind: found.pop(kind, None) for kind in ("mask", "scl", "clouds")}
    bands = BandStack(found, source, **masks)
    refuse_other_sensors(found["B02"].file, rasters["B02"][0].stem, source)
    known = metadata or SafeMetadata()
    facts = ImageMetadata(
        name,
        tags or known.value_tags(tuple(found)) or bands.tags,
        notes=notes,
    )
    facts = _add_facts(facts, known, bands, [raster for raster, _ in rasters.values()])
    if has_cirrus:
        facts = replace(facts, top_of_atmosphere=True)
    return Sentinel2Image(bands, facts, boa_offset)


def _add_facts(
    facts: ImageMetadata, known: SafeMetadata, bands: BandStack, rasters: Sequence[RasterFile]
) -> ImageMetadata:
    """Add what metadata, names and tags tell: date, product, baseline and level."""
    texts = [facts.name, *(raster.stem for raster in rasters)]
    date, period = read_acquisition_date(bands.finest, facts.name)
    if date is None and not period:
        date, period = read_acquisition_date(bands.finest, rasters[0].stem)
    level = known.level or ("1C" if any("MSIL1C" in text.upper() for text in texts) else None)
    product_tags = {
        key: value
        for key, value in (
            (PRODUCT_TAG, known.product_uri),
            (TIME_TAG, known.sensing_time),
            (TILE_TAG, known.tile),
        )
        if value
    }
    return replace(
        facts,
        date=known.date or date,
        product=read_product({**bands.finest.tags(), **product_tags}, facts.name),
        baseline=known.baseline or find_baseline(*texts),
        top_of_atmosphere=level == "1C",
        notes=(*facts.notes, *period),
    )


def _of_one_granule(files: ProductFiles, source: str) -> list[NamedFile]:
    granules = {match[1] for name in files.names if (match := _GRANULE.search(name))}
    if len(granules) > 1:
        raise ValueError(
            f"{source} holds {len(granules)} granules ({', '.join(sorted(granules)[:3])}, ...); "
            "give the folder of one of them"
        )
    return files.bands


def _read_metadata(files: ProductFiles) -> tuple[SafeMetadata | None, tuple[str, ...]]:
    """Read the product's metadata file, in it or in the folders above it; also return notes."""
    found = [name for name in files.names if METADATA_NAME.search(name)]
    text = files.read_text(found[0]) if found else None
    if not found and not files.is_archive:
        for folder in list(files.root.parents)[:_PARENTS]:
            names = [path for path in folder.glob("MTD_MSI*.xml") if path.is_file()]
            if names:
                text = ProductFiles(folder.name, folder, ()).read_text(names[0].name)
                break
    if text is None:
        return None, ()
    metadata = read_safe_metadata(text)
    if metadata is None or not metadata.quantification:
        return metadata, (UNREADABLE_NOTE,)
    return metadata, ()


def _scene_name(files: ProductFiles, metadata: SafeMetadata | None) -> str:
    """Return the product's own name where it is known, else that of folder or archive."""
    if metadata and metadata.product_uri:
        return metadata.product_uri.removesuffix(".SAFE")
    parts = [files.root, *files.root.parents][: _PARENTS + 1]
    if files.is_archive:
        tops = {PurePosixPath(name).parts[0] for name in files.names}
        parts = [Path(top) for top in tops if top.upper().endswith(".SAFE")] or [files.root]
    safe = next((part.name for part in parts if part.suffix.upper() == ".SAFE"), None)
    name = safe or (files.root.name if not files.is_archive else files.root.stem)
    return re.sub(r"\.(SAFE|zip)$", "", name, flags=re.IGNORECASE)
