"""Open the files that xarray reads: netCDF, and Zarr in folders and archives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

# HDF5, which netCDF 4 is, and the three forms of netCDF before it.
_NETCDF_STARTS = (b"\x89HDF\r\n\x1a\n", b"CDF\x01", b"CDF\x02", b"CDF\x05")
# Where ESA's EOPF products keep their bands and their scene classification.
_REFLECTANCE = "measurements/reflectance"
_CLASSES = "conditions/mask/l2a_classification/r20m"


def import_xarray() -> Any:
    """Import xarray. Raises ValueError, with what to install, where it is missing."""
    try:
        import xarray
    except ImportError as error:
        raise ValueError(
            "xarray is not installed, which this needs: pip install 'earthvlm[xarray]'"
        ) from error
    return xarray


@contextmanager
def open_dataset_file(path: Path) -> Iterator[list[xr.Dataset]]:
    """Open a netCDF file, or a Zarr store in a folder or archive, with the bands of a scene.

    Yields its groups, the finest pixels first; pixels are read when they are asked for. ESA's EOPF
    products keep bands in a group for each pixel size. Raises ValueError where it is neither or is
    damaged.
    """
    xarray = import_xarray()
    with ExitStack() as stack:
        try:
            groups = _open_groups(xarray, path, stack)
        except ImportError as error:
            raise ValueError(
                f"'{path.name}' needs packages that are missing: pip install 'earthvlm[xarray]'"
            ) from error
        except (OSError, KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ValueError(f"'{path.name}' is damaged, or no netCDF or Zarr: {error}") from error
        yield groups


def is_dataset_folder(path: Path) -> bool:
    """Return whether a folder is a Zarr store."""
    names = (".zgroup", "zarr.json", ".zmetadata")
    return path.suffix.lower() == ".zarr" or any((path / name).is_file() for name in names)


def is_dataset_file(path: Path) -> bool:
    """Return whether this is a netCDF file, or a Zarr store in an archive."""
    if path.name.lower().endswith(".zarr.zip"):
        return True
    with path.open("rb") as file:
        return file.read(8).startswith(_NETCDF_STARTS)


def _count_pixels(group: xr.Dataset) -> int:
    """Return how many numbers the largest variable of a group holds."""
    return max((variable.size for variable in group.data_vars.values()), default=0)


def _open_groups(xarray: Any, path: Path, stack: ExitStack) -> list[xr.Dataset]:
    options = {"mask_and_scale": False, "chunks": None, "cache": False}
    if path.is_file() and not path.name.lower().endswith(".zip"):
        return [stack.enter_context(xarray.open_dataset(path, **options))]
    import zarr

    store: Any = str(path)
    if path.is_file():
        store = zarr.storage.ZipStore(path, mode="r")
        stack.callback(store.close)

    def open_group(name: str | None = None) -> xr.Dataset:
        opened = xarray.open_dataset(store, engine="zarr", group=name, **options)
        return stack.enter_context(opened)

    root: Any = zarr.open_group(store, mode="r")
    if _REFLECTANCE not in root:
        opened = [open_group(name) for name in (None, *root.group_keys())]
        filled = [group for group in opened if group.data_vars] or opened[:1]
        merged = [group.assign_attrs({**opened[0].attrs, **group.attrs}) for group in filled]
        return sorted(merged, key=_count_pixels, reverse=True)
    sizes = [name for name in ("r10m", "r20m", "r60m") if name in root[_REFLECTANCE]]
    attributes = dict(root.attrs.get("stac_discovery", {}).get("properties", {}))
    attributes |= dict(root.attrs.get("other_metadata", {}))
    groups = [open_group(f"{_REFLECTANCE}/{name}") for name in sizes]
    if _CLASSES in root:
        groups.append(open_group(_CLASSES))
    return [group.assign_attrs(attributes) for group in groups]
