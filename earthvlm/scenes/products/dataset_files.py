"""Open the files that xarray reads: netCDF, and Zarr in folders and archives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr


def import_xarray() -> Any:
    """Import xarray. Raises ValueError, with what to install, where it is missing."""
    try:
        import xarray
    except ImportError as error:
        raise ValueError(
            "xarray is not installed, which this needs: pip install 'earthvlm[xarray]'"
        ) from error
    return xarray


def open_dataset_file(path: Path) -> xr.Dataset:
    """Open a netCDF file, or a Zarr store in a folder or archive, with the bands of a scene.

    ESA's EOPF products keep bands by pixel size in groups; those of 10 m are opened, with coarser
    ones brought to their grid. Raises ValueError where it is neither or is damaged.
    """
    xarray = import_xarray()
    try:
        if path.is_dir() or path.suffix.lower() == ".zip":
            return _open_zarr(xarray, path)
        with xarray.open_dataset(path, mask_and_scale=False) as data:
            return data.load()
    except ImportError as error:
        raise ValueError(
            f"'{path.name}' needs packages that are missing: pip install 'earthvlm[xarray]'"
        ) from error
    except (OSError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"'{path.name}' is damaged, or no netCDF or Zarr: {error}") from error


def is_dataset_file(path: Path) -> bool:
    """Return whether this is a netCDF (HDF5) file, or a Zarr store in a folder or archive."""
    if path.is_dir():
        names = (".zgroup", "zarr.json", ".zmetadata")
        return path.suffix.lower() == ".zarr" or any((path / name).is_file() for name in names)
    if path.name.lower().endswith(".zarr.zip"):
        return True
    with path.open("rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def _open_zarr(xarray: Any, path: Path) -> xr.Dataset:
    import zarr

    store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else str(path)
    group = zarr.open_group(store, mode="r")
    reflectance = "measurements/reflectance"
    if reflectance not in group:
        return xarray.open_zarr(store, mask_and_scale=False).load()
    return _open_eopf(xarray, store, group, reflectance)


def _open_eopf(xarray: Any, store: Any, group: Any, reflectance: str) -> xr.Dataset:
    """Open ESA's EOPF product: groups r10m, r20m and r60m, and the classification."""
    sizes = [name for name in ("r10m", "r20m", "r60m") if name in group[reflectance]]
    opened = [
        xarray.open_zarr(store, group=f"{reflectance}/{name}", mask_and_scale=False)
        for name in sizes
    ]
    finest = opened[0]
    variables = dict(finest.data_vars.items())
    for coarse in opened[1:]:
        missing = [name for name in coarse.data_vars if name not in variables]
        found = coarse[missing].interp(
            x=finest["x"], y=finest["y"], kwargs={"fill_value": "extrapolate"}
        )
        for name in missing:
            variables[name] = found[name].assign_attrs(coarse[name].attrs)
    classes = "conditions/mask/l2a_classification/r20m"
    if classes in group:
        scl = xarray.open_zarr(store, group=classes, mask_and_scale=False)
        if "scl" in scl:
            variables["scl"] = scl["scl"].sel(x=finest["x"], y=finest["y"], method="nearest")
    attributes = dict(group.attrs.get("stac_discovery", {}).get("properties", {}))
    attributes |= dict(group.attrs.get("other_metadata", {}))
    on_one_grid = {
        name: variable.reset_coords(drop=True).assign_coords(x=finest["x"], y=finest["y"])
        for name, variable in variables.items()
    }
    return xarray.Dataset(on_one_grid, attrs=attributes).load()
