"""Write maps of a scene as cloud-optimized GeoTIFFs of one byte a pixel, with a colour table."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from earthvlm.scenes.analysis.change_detection import (
    CHANGE_COLOURS,
    UNCHANGED,
    Comparison,
    draw_change,
)
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.land_cover import COVER_COLOURS, COVERS, NO_DATA, CoverMap
from earthvlm.scenes.rasters.acquisition import DATE_TAG
from earthvlm.scenes.rasters.raster_file import quiet_gdal
from earthvlm.scenes.scene import Scene

Colour = tuple[int, int, int]


def write_cover_map(path: Path, cover_map: CoverMap, scene: Scene) -> None:
    """Write the land cover of a scene on its grid; the values are indices in COVERS.

    Raises FileNotFoundError where the folder does not exist.
    """
    write_map(
        path,
        cover_map.classes,
        {value: COVER_COLOURS[cover] for value, cover in enumerate(COVERS)},
        title="land cover",
        names=COVERS,
        grid=scene.grid,
        date=scene.date,
    )


def write_change_map(path: Path, comparison: Comparison, cover: str, scene: Scene) -> None:
    """Write where a cover was gained and lost, on the grid of `scene`, one of those compared.

    The values are places in CHANGE_COLOURS; 255 is where neither scene has the cover. Raises
    ValueError as `draw_change` does, and FileNotFoundError where the folder does not exist.
    """
    values = np.array(draw_change(comparison, cover))
    values[values == UNCHANGED] = NO_DATA
    write_map(
        path,
        values,
        dict(enumerate(CHANGE_COLOURS.values())),
        title=f"change of {cover}",
        names=tuple(CHANGE_COLOURS),
        grid=scene.grid,
        date=scene.date,
    )


def write_map(
    path: Path,
    values: np.ndarray,
    colours: Mapping[int, Colour],
    *,
    title: str,
    names: Sequence[str] = (),
    grid: Grid | None = None,
    date: datetime.date | None = None,
) -> None:
    """Write a map that GIS programs show in its colours.

    Args:
        path: of the file, which is replaced.
        values: uint8 `[H, W]`; 255 is no data.
        colours: red, green and blue of each value.
        title: of the band.
        names: of the values from 0 on. They are in the tags, as CLASS_0=water, and in
            `path`.aux.xml, where GDAL and QGIS look for them.
        grid: of the map's pixels; None leaves it without a place on Earth.
        date: of the scene.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    import rasterio

    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder '{path.parent}' to save '{path.name}' in")
    height, width = values.shape
    profile: dict[str, Any] = {"driver": "COG", "dtype": "uint8", "count": 1, "nodata": NO_DATA}
    # Mixing values would make others of them.
    profile |= {"compress": "deflate", "overview_resampling": "nearest"}
    profile |= {"height": height, "width": width}
    if grid is not None:
        profile |= {"crs": grid.crs, "transform": rasterio.Affine(*grid.transform)}
    tags = {f"CLASS_{value}": name for value, name in enumerate(names)}
    if date is not None:
        tags[DATE_TAG] = date.isoformat()
    with quiet_gdal(), rasterio.open(path.absolute(), "w", **profile) as file:
        file.write(values, 1)
        file.write_colormap(1, {value: (*colour, 255) for value, colour in colours.items()})
        file.set_band_description(1, title)
        file.update_tags(**tags)
    if names:
        path.with_name(f"{path.name}.aux.xml").write_text(_name_categories(names), "utf-8")


def _name_categories(names: Sequence[str]) -> str:
    """GDAL's side file that names the values of the only band."""
    categories = "".join(f"<Category>{escape(name)}</Category>" for name in names)
    return (
        '<PAMDataset><PAMRasterBand band="1">'
        f"<CategoryNames>{categories}</CategoryNames></PAMRasterBand></PAMDataset>\n"
    )
