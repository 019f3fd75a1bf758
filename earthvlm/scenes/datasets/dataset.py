"""xarray datasets as scenes and scenes as datasets; needs the extra `xarray`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from earthvlm.scenes.bands import (
    BANDS,
    REFLECTANCE_SCALE,
    SCL_CLASSES,
    WAVELENGTHS,
    find_baseline,
)
from earthvlm.scenes.datasets.files import import_xarray
from earthvlm.scenes.datasets.grid import GRID_MAPPING, make_coordinates
from earthvlm.scenes.datasets.stack import DatasetStack
from earthvlm.scenes.decoded_image import DecodedImage
from earthvlm.scenes.product import PRODUCT_TAG, Product, read_product
from earthvlm.scenes.rasters.sentinel2_image import ImageMetadata, Sentinel2Image

if TYPE_CHECKING:
    import xarray as xr


def open_datasets(
    groups: Sequence[xr.Dataset | xr.DataArray], name: str, boa_offset: bool | None = None
) -> Sentinel2Image:
    """Find bands, grid, date and product of open datasets, for reading parts of them.

    groups: of one scene, the finest pixels first; see `DatasetStack`. Raises ValueError where
    they are no scene of Sentinel-2.
    """
    stack = DatasetStack(groups, f"'{name}'")
    product, baseline, top_of_atmosphere = read_attributes(stack.attributes, name)
    metadata = ImageMetadata(
        name,
        stack.tags,
        date=stack.date,
        product=product,
        baseline=baseline,
        top_of_atmosphere=top_of_atmosphere,
    )
    return Sentinel2Image(stack, metadata, boa_offset)


def decode_dataset(
    data: xr.Dataset | xr.DataArray, name: str, boa_offset: bool | None = None
) -> DecodedImage:
    """Convert a dataset of one scene to reflectance x 10000; raises what `open_datasets` raises."""
    return open_datasets([data], name, boa_offset).read()


def write_dataset(image: DecodedImage) -> xr.Dataset:
    """Return a scene as a dataset of float32 reflectance (0 to 1) `[y, x]`, a variable a band.

    Pixels without data are NaN. Coordinates, CRS (in `spatial_ref`, as rioxarray reads it), time
    and product are kept where they are known; a rotated grid has its transform alone.
    """
    xarray = import_xarray()
    height, width = image.reflectance.shape[:2]
    coordinates: dict[str, Any] = {}
    if image.grid is not None:
        coordinates |= make_coordinates(image.grid, height, width)
    if image.product is not None and image.product.sensing_time is not None:
        time = image.product.sensing_time.astimezone(datetime.UTC).replace(tzinfo=None)
        coordinates["time"] = np.datetime64(time, "ns")
    elif image.date is not None:
        coordinates["time"] = np.datetime64(image.date, "ns")
    variables = {}
    for index, band in enumerate(BANDS):
        values = image.reflectance[:, :, index] / np.float32(REFLECTANCE_SCALE)
        if np.isnan(values[0, 0]):
            continue
        if image.valid is not None:
            values = np.where(image.valid, values, np.float32(np.nan))
        attributes = {"long_name": band, "units": "1", "wavelength": WAVELENGTHS[band]}
        if image.grid is not None:
            attributes["grid_mapping"] = GRID_MAPPING
        variables[band] = (("y", "x"), values, attributes)
    if image.scl is not None:
        meanings = " ".join(name.replace(" ", "_").replace(",", "") for name in SCL_CLASSES)
        classes = {"flag_values": list(range(len(SCL_CLASSES))), "flag_meanings": meanings}
        variables["SCL"] = (("y", "x"), image.scl, {"long_name": "scene classification", **classes})
    attributes = {"title": image.name}
    if image.product is not None and image.product.product_id:
        attributes[PRODUCT_TAG] = image.product.product_id
    return xarray.Dataset(variables, coords=coordinates, attrs=attributes)


def read_attributes(
    attributes: Mapping[str, Any], name: str
) -> tuple[Product | None, int | None, bool]:
    """Return product, processing baseline and whether it is level 1C, as attributes tell them."""
    texts = {str(key): str(value) for key, value in attributes.items()}
    product = read_product(texts, name)
    known = (product.product_id if product else None) or name
    baseline = find_baseline(
        texts.get("processing:version", ""), texts.get("s2:processing_baseline", ""), known
    )
    return product, baseline, "MSIL1C" in known.upper()
