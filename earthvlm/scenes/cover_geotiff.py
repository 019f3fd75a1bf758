"""Write land-cover maps as GeoTIFFs that lie where their scene does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from earthvlm.scenes.acquisition import find_mirrored_axes
from earthvlm.scenes.geotiff import open_raster, quiet_gdal, raster_driver
from earthvlm.scenes.land_cover import COVER_COLOURS, COVERS, NO_DATA, CoverMap

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.crs import CRS


def write_cover_map(path: Path, cover_map: CoverMap, scene_file: Path | None = None) -> bool:
    """Write a map as an 8-bit GeoTIFF with a colour table; return whether it has a place on Earth.

    The values are indices in COVERS, 255 is no data. The covers' names are in the tags, as
    CLASS_0=water, and in `path`.aux.xml, where GDAL and QGIS look for them.

    Args:
        path: of the file to write.
        cover_map: of a whole scene.
        scene_file: the raster that the scene was read from; the map takes its grid.

    Raises:
        FileNotFoundError: where the folder of `path` does not exist.
    """
    import rasterio

    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder '{path.parent}' to save '{path.name}' in")
    height, width = cover_map.classes.shape
    crs, transform = read_grid(scene_file, height, width) if scene_file else (None, None)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": NO_DATA}
    profile |= {"compress": "deflate", "height": height, "width": width}
    if transform is not None:
        profile |= {"crs": crs, "transform": transform}
    colours = {index: (*COVER_COLOURS[cover], 255) for index, cover in enumerate(COVERS)}
    with quiet_gdal(), rasterio.open(path.absolute(), "w", **profile) as file:
        file.write(cover_map.classes, 1)
        file.write_colormap(1, colours)
        file.set_band_description(1, "land cover")
        file.update_tags(**{f"CLASS_{index}": cover for index, cover in enumerate(COVERS)})
    path.with_name(f"{path.name}.aux.xml").write_text(_name_categories(), encoding="utf-8")
    return transform is not None


def read_grid(scene_file: Path, height: int, width: int) -> tuple[CRS | None, Affine | None]:
    """Return a raster's coordinate system and transform for a grid of this size over all of it.

    Both are None where the file is no raster, or has no place on Earth.
    """
    from affine import Affine

    if raster_driver(scene_file) is None:
        return None, None
    with open_raster(scene_file) as file:
        if file.crs is None or file.transform.is_identity:
            return None, None
        transform = file.transform
        for axis in find_mirrored_axes(file):  # they were turned as the scene was read
            turned = (1, -1, 0, file.height) if axis == 0 else (-1, 1, file.width, 0)
            across, down, left, top = turned
            transform = transform * Affine(across, 0, left, 0, down, top)
        return file.crs, transform * Affine.scale(file.width / width, file.height / height)


def _name_categories() -> str:
    """GDAL's side file that names the values of the only band."""
    names = "".join(f"<Category>{escape(cover)}</Category>" for cover in COVERS)
    return (
        '<PAMDataset><PAMRasterBand band="1">'
        f"<CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>\n"
    )
