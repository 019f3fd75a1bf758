"""The layers of an xarray dataset: their labels, dimensions, values, scale and fill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from earthvlm.scenes.rasters.band_identification import name_labels
from earthvlm.scenes.rasters.value_rules import ValueTags, classify_clouds, keep_known_classes

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


def read_layer(layer: xr.DataArray, x: str, y: str, flips: tuple[bool, bool]) -> np.ndarray:
    """Read a layer as stored, float32 `[H, W]`, NaN where its fill value says so."""
    single = {name: 0 for name in layer.dims if name not in (x, y)}
    values = layer.isel(single).transpose(y, x).values.astype(np.float32)
    for key in ("_FillValue", "nodata", "missing_value"):
        fill = layer.attrs.get(key, layer.encoding.get(key))
        if fill is not None and float(np.asarray(fill).ravel()[0]) != 0:
            values[values == np.float32(np.asarray(fill).ravel()[0])] = np.nan
    return values[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1].copy()


def read_tags(layers: list[xr.DataArray]) -> ValueTags:
    """Return scale and offset that are still to be applied, from the attributes."""

    def number(layer: xr.DataArray, keys: tuple[str, ...], default: float) -> float:
        found = next((layer.attrs[key] for key in keys if key in layer.attrs), default)
        return float(np.asarray(found).ravel()[0])

    return ValueTags(
        tuple(number(layer, ("scale_factor", "scale", "scales"), 1.0) for layer in layers),
        tuple(number(layer, ("add_offset", "offset", "offsets"), 0.0) for layer in layers),
    )


def read_classification(
    masks: Mapping[str, xr.DataArray], x: str, y: str, flips: tuple[bool, bool]
) -> np.ndarray | None:
    """Return ESA's scene classification, or one made of a cloud mask, uint8 `[H, W]`, or None."""
    if "scl" in masks:
        return keep_known_classes(read_layer(masks["scl"], x, y, flips))
    if "clouds" in masks:
        return classify_clouds(read_layer(masks["clouds"], x, y, flips))
    return None
