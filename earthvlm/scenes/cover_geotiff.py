"""Write land-cover maps as GeoTIFFs with colours and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from earthvlm.scenes.geotiff import quiet_gdal
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.land_cover import COVER_COLOURS, COVERS, NO_DATA, CoverMap


def write_cover_map(path: Path, cover_map: CoverMap, grid: Grid | None = None) -> None:
    """Write a map as an 8-bit GeoTIFF with a colour table.

    The values are indices in COVERS, 255 is no data. The covers' names are in the tags, as
    CLASS_0=water, and in `path`.aux.xml, where GDAL and QGIS look for them.

    Args:
        path: of the file to write.
        cover_map: of a whole scene.
        grid: of the scene; None leaves the map without a place on Earth.

    Raises:
        FileNotFoundError: where the folder of `path` does not exist.
    """
    import rasterio

    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder '{path.parent}' to save '{path.name}' in")
    height, width = cover_map.classes.shape
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": NO_DATA}
    profile |= {"compress": "deflate", "height": height, "width": width}
    if grid is not None:
        profile |= {"crs": grid.crs, "transform": rasterio.Affine(*grid.transform)}
    colours = {index: (*COVER_COLOURS[cover], 255) for index, cover in enumerate(COVERS)}
    with quiet_gdal(), rasterio.open(path.absolute(), "w", **profile) as file:
        file.write(cover_map.classes, 1)
        file.write_colormap(1, colours)
        file.set_band_description(1, "land cover")
        file.update_tags(**{f"CLASS_{index}": cover for index, cover in enumerate(COVERS)})
    path.with_name(f"{path.name}.aux.xml").write_text(_name_categories(), encoding="utf-8")


def _name_categories() -> str:
    """GDAL's side file that names the values of the only band."""
    names = "".join(f"<Category>{escape(cover)}</Category>" for cover in COVERS)
    return (
        '<PAMDataset><PAMRasterBand band="1">'
        f"<CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>\n"
    )
