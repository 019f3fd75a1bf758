"""Where and when an xarray dataset was taken, and coordinates that say so."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from earthvlm.scenes.grid import Grid

if TYPE_CHECKING:
    import xarray as xr

TIME_NAMES = ("time", "t", "datetime")
GRID_MAPPING = "spatial_ref"
_EVEN = 1e-3  # of a pixel: steps between coordinates may differ so much


def read_grid(
    data: xr.Dataset | xr.DataArray,
    layer: xr.DataArray,
    x: str,
    y: str,
    flips: tuple[bool, bool],
    source: str,
) -> Grid | None:
    """Return the grid that coordinates and CRS give; None without either."""
    crs = _find_crs(data, layer, x)
    if crs is None or x not in layer.coords or y not in layer.coords:
        return None
    columns = layer.coords[x].values.astype(float)[:: -1 if flips[1] else 1]
    rows = layer.coords[y].values.astype(float)[:: -1 if flips[0] else 1]
    steps = []
    for values in (columns, rows):
        if len(values) < 2:
            return None
        step = (values[-1] - values[0]) / (len(values) - 1)
        uneven = np.abs(np.diff(values) - step).max()
        if not step or not math.isfinite(step) or uneven > _EVEN * abs(step) + 1e-9:
            raise ValueError(f"{source} has coordinates that are not evenly spaced, so no grid")
        steps.append(step)
    a, e = steps
    return Grid(crs, (a, 0.0, columns[0] - a / 2, 0.0, e, rows[0] - e / 2))


def _find_crs(data: xr.Dataset | xr.DataArray, layer: xr.DataArray, x: str) -> str | None:
    """Return the CRS that a grid mapping or attributes give, as rasterio writes it."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    found: list[object] = []
    for name in (layer.attrs.get("grid_mapping"), GRID_MAPPING, "crs"):
        mapping = layer.coords.get(name)
        if mapping is None and hasattr(data, "data_vars") and name in data.variables:
            mapping = data[name]
        if mapping is not None:
            found += [mapping.attrs.get(key) for key in ("crs_wkt", "spatial_ref", "epsg_code")]
            if np.ndim(mapping.values) == 0 and str(mapping.values).isdigit():
                found.append(f"EPSG:{mapping.values}")
    for attributes in (layer.attrs, data.attrs):
        epsg = attributes.get("proj:epsg") or attributes.get("epsg")
        found += [attributes.get("proj:code"), attributes.get("crs"), epsg and f"EPSG:{epsg}"]
    for text in found:
        try:
            if text and (crs := CRS.from_user_input(text)):
                return crs.to_string()
        except (CRSError, TypeError):
            continue
    return "EPSG:4326" if x.lower() in ("longitude", "lon") else None


def read_date(layer: xr.DataArray, attributes: Mapping[str, Any]) -> datetime.date | None:
    """Return the day that a time coordinate or an attribute tells, or None."""
    from earthvlm.scenes.rasters.acquisition import DATE_KEYS, parse_date

    for name in TIME_NAMES:
        if name in layer.coords:
            date = parse_date(str(np.asarray(layer.coords[name].values).ravel()[0]))
            if date:
                return date
    texts = {str(key).lower(): str(value) for key, value in attributes.items()}
    return next((date for key in DATE_KEYS if (date := parse_date(texts.get(key, "")))), None)


def make_coordinates(grid: Grid, height: int, width: int) -> dict[str, Any]:
    """Return coordinates of pixel centres, and the CRS as rioxarray and GDAL read it."""
    from rasterio.crs import CRS

    a, b, c, d, e, f = grid.transform
    wkt = CRS.from_user_input(grid.crs).to_wkt()
    mapping = {"crs_wkt": wkt, "spatial_ref": wkt}
    mapping["GeoTransform"] = " ".join(repr(float(value)) for value in (c, a, b, f, d, e))
    found: dict[str, Any] = {GRID_MAPPING: ((), 0, mapping)}
    if not b and not d:
        found["x"] = ("x", c + a * (np.arange(width) + 0.5))
        found["y"] = ("y", f + e * (np.arange(height) + 0.5))
    return found
