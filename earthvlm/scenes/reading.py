"""Read whatever shows a Sentinel-2 scene, a single file or a product, to a decoded image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from earthvlm.scenes.datasets.dataset import open_datasets
from earthvlm.scenes.datasets.files import (
    is_dataset_file,
    is_dataset_folder,
    open_dataset_file,
)
from earthvlm.scenes.decoded_image import DecodedImage, crop_fields
from earthvlm.scenes.parts import choose_part
from earthvlm.scenes.pictures.image_reader import ACCEPTED, read_photo
from earthvlm.scenes.pictures.triplet_reader import find_triplet_root, read_triplet
from earthvlm.scenes.products.addresses import (
    fetch_start,
    file_name,
    is_address,
    is_json,
    remote_raster,
)
from earthvlm.scenes.products.band_files import is_band_folder, name_files
from earthvlm.scenes.products.band_folder import find_product, open_product
from earthvlm.scenes.products.product_files import ProductFiles
from earthvlm.scenes.products.stac_item import is_stac_item, open_stac_item
from earthvlm.scenes.rasters.geotiff import open_image, read_geotiff
from earthvlm.scenes.rasters.raster_file import RasterFile, raster_driver
from earthvlm.scenes.rasters.sentinel2_image import Sentinel2Image


@dataclass(frozen=True)
class ReadOptions:
    """How an image is read.

    Attributes:
        boa_offset: whether the values carry the +1000 offset of newer products; None finds out.
        bbox: west, south, east, north in degrees of the part to read.
        window: first column, first row, width, height in pixels of the part to read.
        bands: the names of the bands in their order, in place of what the file says.
    """

    boa_offset: bool | None = None
    bbox: Sequence[float] | None = None
    window: Sequence[int] | None = None
    bands: Sequence[str] | None = None


def read_image(place: str | Path, options: ReadOptions) -> DecodedImage:
    """Read whatever shows a scene: a single file, a product, a STAC item, or an address of one.

    Raises FileNotFoundError for what does not exist, ConnectionError for an address that cannot be
    reached, and ValueError for what is no usable scene.
    """
    whole = options.bbox is None and options.window is None
    found = _find_image(place, options, whole)
    if found is None:
        return read_file(Path(place), options)
    if isinstance(found, RasterFile):
        return _read_raster(found, options)
    with found as image:
        return image.read(options.bbox, options.window)


@contextmanager
def open_parts(place: str | Path, options: ReadOptions) -> Iterator[Sentinel2Image | DecodedImage]:
    """Open an image for reading parts of it; pictures and ChatEarthNet's tiles are read whole.

    Raises what `read_image` raises.
    """
    found = _find_image(place, options)
    if found is None:
        path = Path(place)
        if find_triplet_root(path) is not None or raster_driver(path) is None:
            yield read_file(path, options)
            return
        found = RasterFile.on_disk(path)
    if isinstance(found, RasterFile):
        found = open_image(found, options.boa_offset, options.bands)
    with found as image:
        yield image


def _find_image(
    place: str | Path, options: ReadOptions, whole: bool = False
) -> AbstractContextManager[Sentinel2Image] | RasterFile | None:
    """Find an image that can be read in parts; see `open_product` for `whole`.

    Returns an image whose bands lie in files or variables of their own, to be opened; the raster
    behind an address; None for a single file on disk.
    """
    if is_address(place):
        return _find_remote_image(str(place), options)
    path = Path(place)
    if (path.is_dir() and is_dataset_folder(path)) or (path.is_file() and is_dataset_file(path)):
        _refuse_bands(options, path.name)
        return _open_dataset(path, options)
    if path.is_file() and is_stac_item(path):
        _refuse_bands(options, path.name)
        return open_stac_item(path, options.boa_offset)
    files = find_product(path)
    if files is None:
        return None
    return _open_files(files, options, whole)


@contextmanager
def _open_files(files: ProductFiles, options: ReadOptions, whole: bool) -> Iterator[Sentinel2Image]:
    """Open a product, or the only raster of an archive, as download services pack it."""
    name = files.only_raster()
    with ExitStack() as stack:
        if name is None:
            _refuse_bands(options, files.name)
            image = open_product(files, options.boa_offset, whole=whole)
        else:
            (raster,) = files.rasters([name], stack)
            image = open_image(raster, options.boa_offset, options.bands)
        yield stack.enter_context(image)


def _find_remote_image(
    address: str, options: ReadOptions
) -> AbstractContextManager[Sentinel2Image] | RasterFile:
    name = file_name(address)
    start = b"{" if name.lower().endswith((".json", ".geojson")) else fetch_start(address)
    if not is_json(start):
        return remote_raster(address, start=start)
    _refuse_bands(options, name)
    return open_stac_item(address, options.boa_offset)


def read_upload(path: Path, options: ReadOptions) -> DecodedImage:
    """Read what a visitor may send: a single file, a zip archive of a product, or band files.

    Band files are those of a folder that the server made of uploads. Datasets, STAC items and
    addresses are not read. Raises what `read_file` raises.
    """
    files = find_product(path) if path.is_dir() or path.suffix.lower() == ".zip" else None
    if files is None:
        return read_file(path, options)
    whole = options.bbox is None and options.window is None
    with _open_files(replace(files, in_place=True), options, whole) as image:
        return image.read(options.bbox, options.window)


def read_file(path: Path, options: ReadOptions) -> DecodedImage:
    """Read a single file: a GeoTIFF, JPEG 2000, a PNG of a ChatEarthNet triplet, or a photo.

    Nothing that the file refers to is read, so it may come from anybody. Raises FileNotFoundError
    for what does not exist, and ValueError for what is no usable scene.
    """
    if path.is_dir():
        raise ValueError(
            f"'{path}' is a folder without bands of one scene in it; give a .SAFE product, a "
            "folder with a file for each band, a single file, or, with a ChatEarthNet data folder, "
            "the name of an image in it"
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'; check its path")
    root = find_triplet_root(path)
    if root is not None:
        return read_triplet_part(root, path.name, options)
    if path.stat().st_size == 0:
        raise ValueError(f"'{path.name}' is empty (0 bytes); give {ACCEPTED}")
    if raster_driver(path) is not None:
        try:
            return _read_raster(RasterFile.on_disk(path), options)
        except ValueError:
            _refuse_one_band(path)
            raise
    _refuse_bands(options, path.name)
    if options.bbox is not None:
        raise ValueError(
            f"'{path.name}' does not say where it lies, so no bounding box can be cut out; "
            "give a window"
        )
    return read_photo(path, options.window)


@contextmanager
def _open_dataset(path: Path, options: ReadOptions) -> Iterator[Sentinel2Image]:
    name = re.sub(r"\.(zarr|nc|nc4|h5|SAFE|zip)$", "", path.name.removesuffix(".zip"))
    with open_dataset_file(path) as groups:
        yield open_datasets(groups, name, options.boa_offset)


def _refuse_one_band(path: Path) -> None:
    """Raise ValueError for a band's file next to those of the scene's other bands."""
    if name_files([path.name]) and is_band_folder([each.name for each in path.parent.iterdir()]):
        raise ValueError(
            f"'{path.name}' is one band of a scene; give the folder that holds them all, "
            f"'{path.parent}'"
        )


def _read_raster(raster: RasterFile, options: ReadOptions) -> DecodedImage:
    return read_geotiff(
        raster,
        boa_offset=options.boa_offset,
        bbox=options.bbox,
        window=options.window,
        bands=options.bands,
    )


def read_triplet_part(root: Path, image_name: str, options: ReadOptions) -> DecodedImage:
    """Read a ChatEarthNet image, or a part of it; raises what `read_triplet` raises."""
    _refuse_bands(options, image_name)
    image = read_triplet(root, image_name)
    if options.bbox is None and options.window is None:
        return image
    shape = image.reflectance.shape[:2]
    part = choose_part(shape, image.grid, f"'{image.name}'", options.bbox, options.window)
    return replace(image, **crop_fields(image, part.row, part.column, part.height, part.width))


def _refuse_bands(options: ReadOptions, name: str) -> None:
    if options.bands is not None:
        raise ValueError(
            f"'{name}' is no raster with bands of its own, so none can be named; leave that out"
        )
