"""The layers of an xarray dataset: their labels, dimensions, values, scale and fill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from earthvlm.scenes.datasets.grid import read_grid
from earthvlm.scenes.datasets.windows import Layer
from earthvlm.scenes.rasters.band_identification import name_labels
from earthvlm.scenes.rasters.value_rules import ValueTags

if TYPE_CHECKING:
    import xarray as xr

BAND_DIMENSIONS = ("band", "bands", "wavelength", "spectral")
X_NAMES, Y_NAMES = ("x", "longitude", "lon", "easting"), ("y", "latitude", "lat", "northing")


def list_layers(data: xr.Dataset | xr.DataArray) -> Iterator[tuple[str, xr.DataArray]]:
    """Yield each layer of two dimensions or more by its label."""
    variables: dict[Any, Any] = {data.name or "": data} if not hasattr(data, "data_vars") else {}
    variables |= getattr(data, "data_vars", {})
    for name, variable in variables.items():
        if variable.ndim >= 2:
            yield from _split_layers(str(name), variable)


def _split_layers(name: str, variable: xr.DataArray) -> Iterator[tuple[str, xr.DataArray]]:
    dimension = next((each for each in variable.dims if str(each) in BAND_DIMENSIONS), None)
    if dimension is None:
        label = str(variable.attrs.get("long_name") or "")
        yield (label if not name_labels([name])[0] and name_labels([label])[0] else name), variable
        return
    labels = variable.coords[dimension].values if dimension in variable.coords else []
    for key in ("common_name", "name", "long_name"):
        names = variable.coords.get(key, variable.attrs.get(key))
        if names is not None and not any(name_labels([str(label) for label in labels])):
            labels = getattr(names, "values", names)
    for index in range(variable.sizes[dimension]):
        label = str(labels[index]) if index < len(labels) else f"{name} {index + 1}"
        yield label, variable.isel({dimension: index})


def find_dimension(layer: xr.DataArray, names: Sequence[str], source: str) -> str:
    """Return the dimension that has one of these names. Raises ValueError for none and two."""
    found = [str(name) for name in layer.dims if str(name).lower() in names]
    if len(found) != 1:
        raise ValueError(
            f"{source} has the dimensions {', '.join(map(str, layer.dims))}; name those of its "
            "rows and columns y and x, or latitude and longitude"
        )
    return found[0]


def find_flips(layer: xr.DataArray, x: str, y: str) -> tuple[bool, bool]:
    """Whether rows and columns have to be reversed for north and west to come first."""
    rows, columns = (
        layer.coords[name].values if name in layer.coords and layer.sizes[name] > 1 else None
        for name in (y, x)
    )
    return (
        rows is not None and bool(rows[-1] > rows[0]),
        columns is not None and bool(columns[-1] < columns[0]),
    )


def make_layer(data: xr.Dataset | xr.DataArray, layer: xr.DataArray, source: str) -> Layer:
    """Find rows, columns and grid of a layer of a dataset, without reading it.

    Raises ValueError where it has several times, or coordinates that are no grid.
    """
    x, y = (find_dimension(layer, names, source) for names in (X_NAMES, Y_NAMES))
    others = {name: layer.sizes[name] for name in layer.dims if name not in (x, y)}
    for name, size in others.items():
        if size > 1:
            raise ValueError(
                f"{source} holds {size} steps along '{name}'; write one to a file of its own, or "
                f"choose one in Python, as in dataset.isel({name}=0)"
            )
    flips = find_flips(layer, x, y)
    chunks = layer.encoding.get("preferred_chunks") or {}
    block = (int(chunks[y]), int(chunks[x])) if x in chunks and y in chunks else None
    array = layer.isel(dict.fromkeys(others, 0)).transpose(y, x)
    array = array[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
    grid = read_grid(data, layer, x, y, flips, source)
    return Layer(array, grid, source, _find_fills(layer), block)


def _find_fills(layer: xr.DataArray) -> tuple[float, ...]:
    """Return the values that stand for no data; 0 counts where it is in all bands."""
    keys = ("_FillValue", "nodata", "missing_value")
    found = (layer.attrs.get(key, layer.encoding.get(key)) for key in keys)
    fills = [float(np.asarray(fill).ravel()[0]) for fill in found if fill is not None]
    return tuple(fill for fill in fills if fill != 0)


def read_tags(layers: list[xr.DataArray]) -> ValueTags:
    """Return scale and offset that are still to be applied, from the attributes."""

    def number(layer: xr.DataArray, keys: tuple[str, ...], default: float) -> float:
        found = next((layer.attrs[key] for key in keys if key in layer.attrs), default)
        return float(np.asarray(found).ravel()[0])

    return ValueTags(
        tuple(number(layer, ("scale_factor", "scale", "scales"), 1.0) for layer in layers),
        tuple(number(layer, ("add_offset", "offset", "offsets"), 0.0) for layer in layers),
    )
