"""xarray datasets as scenes and scenes as datasets; needs the extra `xarray`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from earthvlm.scenes.bands import (
    BANDS,
    REFLECTANCE_SCALE,
    SCL_CLASSES,
    WAVELENGTHS,
    find_baseline,
)
from earthvlm.scenes.decoded_image import DecodedImage
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.parts import choose_part, describe_overview
from earthvlm.scenes.product import PRODUCT_TAG, Product, read_product
from earthvlm.scenes.products.dataset_files import import_xarray
from earthvlm.scenes.products.dataset_grid import (
    GRID_MAPPING,
    make_coordinates,
    read_date,
    read_grid,
)
from earthvlm.scenes.products.dataset_layers import (
    X_NAMES,
    Y_NAMES,
    find_dimension,
    find_flips,
    list_layers,
    read_classification,
    read_layer,
    read_tags,
)
from earthvlm.scenes.rasters.band_identification import find_mask_kind, name_labels
from earthvlm.scenes.rasters.sentinel2_image import (
    TOP_OF_ATMOSPHERE_NOTE,
    fill_values,
    require_visible_bands,
)
from earthvlm.scenes.rasters.value_rules import ValueTags, decide_rules
from earthvlm.scenes.reflectance import place_bands, sample_pixels

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class DatasetImage:
    """The bands of a dataset on one grid.

    Attributes:
        values: stored values `[H, W, C]` float32, NaN where there is no data.
        bands: their names.
        tags: scale and offset of the values.
        scl: ESA's scene classification, uint8 `[H, W]`, or None.
        grid: where the pixels lie, north at the top, or None.
        date: of the acquisition.
        attributes: of the dataset.
        is_float: whether the values are stored as fractions.
    """

    values: np.ndarray
    bands: tuple[str, ...]
    tags: ValueTags
    scl: np.ndarray | None
    grid: Grid | None
    date: datetime.date | None
    attributes: Mapping[str, Any]
    is_float: bool


def read_dataset(data: xr.Dataset | xr.DataArray, source: str) -> DatasetImage:
    """Find the bands, the grid and the date of a dataset of one scene.

    Bands are variables, or steps along a dimension called band. Raises ValueError where there are
    several times, no visible bands, or coordinates that are no grid.
    """
    layers = dict(list_layers(data))
    if not layers:
        raise ValueError(f"{source} holds no variables of rows and columns")
    named = name_labels(list(layers))
    bands: dict[str, xr.DataArray] = {}
    masks: dict[str, xr.DataArray] = {}
    for (label, layer), band in zip(layers.items(), named, strict=True):
        kind = find_mask_kind(label)
        if kind:
            masks[kind] = layer
        elif band in bands:
            raise ValueError(f"{source} has band {band} twice; give each band once")
        elif band:
            bands[band] = layer
    require_visible_bands(tuple(bands), source)
    some = bands["B02"]
    x, y = (find_dimension(some, names, source) for names in (X_NAMES, Y_NAMES))
    times = {name: some.sizes[name] for name in some.dims if name not in (x, y)}
    for name, size in times.items():
        if size > 1:
            raise ValueError(
                f"{source} holds {size} steps along '{name}'; choose one, as in "
                f"dataset.isel({name}=0)"
            )
    layers = {**bands, **{f"mask {kind}": layer for kind, layer in masks.items()}}
    for label, layer in layers.items():
        if (layer.sizes.get(y), layer.sizes.get(x)) != (some.sizes[y], some.sizes[x]):
            raise ValueError(
                f"{source} holds '{label}' in another size than B02; bring its variables to one "
                "grid first"
            )
    flips = find_flips(some, x, y)
    values = np.stack([read_layer(layer, x, y, flips) for layer in bands.values()], axis=2)
    is_float = all(layer.dtype.kind == "f" for layer in bands.values())
    if "mask" in masks:
        values[read_layer(masks["mask"], x, y, flips) == 0] = np.nan
    return DatasetImage(
        values,
        tuple(bands),
        read_tags(list(bands.values())),
        read_classification(masks, x, y, flips),
        read_grid(data, some, x, y, flips, source),
        read_date(some, data.attrs),
        {**data.attrs},
        is_float,
    )


def decode_dataset(
    data: xr.Dataset | xr.DataArray,
    name: str,
    *,
    boa_offset: bool | None = None,
    bbox: Sequence[float] | None = None,
    window: Sequence[int] | None = None,
) -> DecodedImage:
    """Convert a dataset of one scene to reflectance x 10000; see `read_dataset`.

    Raises ValueError where it is no reflectance, and where it is larger than a scene and no part
    of it is asked for.
    """
    source = f"'{name}'"
    image = read_dataset(data, source)
    product, baseline, top_of_atmosphere = read_attributes(image.attributes, name)
    rules = decide_rules(
        sample_pixels(image.values),
        image.tags,
        source,
        is_float=image.is_float,
        date=image.date,
        baseline=baseline,
        boa_offset=boa_offset,
    )
    shape = image.values.shape[:2]
    part = choose_part(shape, image.grid, source, bbox, window)
    rows, columns = (
        np.linspace(start, start + length - 1, count).round().astype(int)
        for start, length, count in (
            (part.row, part.height, part.rows),
            (part.column, part.width, part.columns),
        )
    )
    where = np.ix_(rows, columns)
    values, bands, valid, notes = fill_values(image.values[where], image.bands, source)
    rules.of_bands([image.bands.index(band) for band in bands]).apply(values)
    grid = image.grid and part.grid_of(image.grid)
    place = grid.locate(part.rows / 2, part.columns / 2) if grid else None
    longitude, latitude = place or (None, None)
    metres = grid.pixel_metres(part.rows, part.columns) if grid else None
    notes += rules.notes
    notes += [TOP_OF_ATMOSPHERE_NOTE] if top_of_atmosphere else []
    notes += [describe_overview(part, None)] if part.is_reduced else []
    return DecodedImage(
        place_bands(values, bands),
        name,
        image.date,
        longitude,
        latitude,
        tuple(notes),
        pixel_metres=metres,
        valid=valid,
        scl=None if image.scl is None else image.scl[where],
        grid=grid,
        product=product,
    )


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
