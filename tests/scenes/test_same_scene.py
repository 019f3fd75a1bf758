"""The same pixels open to the same scene, in whatever order, form and place a file holds them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from earthvlm.scenes.bands import BANDS, FILE_ORDER_12
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.scene import Scene
from tests.support.made_rasters import make_values

SIDE = 48
VALUES = make_values(FILE_ORDER_12, SIDE).astype(np.float64)
# Where the pixels without data are, if there are any.
HOLE = np.zeros((SIDE, SIDE), bool)
HOLE[5:12, 30:44] = True
# x 10000, as integers with a scale in the tags, and as fractions.
AS_NUMBERS, AS_SCALED, AS_FRACTIONS = "numbers", "scaled", "fractions"
FORMS = [
    *((AS_NUMBERS, dtype) for dtype in ("uint16", "int16", "uint32", "int32", "float32")),
    *((AS_SCALED, dtype) for dtype in ("uint16", "int16", "int32")),
    *((AS_FRACTIONS, dtype) for dtype in ("float32", "float64")),
]
NODATA = {
    "uint16": (None, 0, 65535),
    "int16": (None, 0, -9999, -32768),
    "uint32": (None, 0, 65535),
    "int32": (None, 0, -9999),
    "float32": (None, 0, -9999, float("nan")),
    "float64": (None, 0, -9999, float("nan")),
}
LABELS = {
    "ESA": lambda band: band,
    "short": lambda band: band.replace("B0", "B"),
    "lower case": str.lower,
    "in words": lambda band: f"Band {band.removeprefix('B').lstrip('0')} ({band})",
}
LAYOUTS = [
    {},
    {"interleave": "band"},
    {"interleave": "pixel", "compress": "lzw"},
    {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"},
    {"tiled": True, "blockxsize": 32, "blockysize": 16, "interleave": "band", "compress": "zstd"},
    {"blockysize": 1, "compress": "deflate", "BIGTIFF": "YES"},
]
PLACES = {
    "EPSG:32631": (500_000.0, 4_700_000.0, 10.0),
    "EPSG:32733": (300_000.0, 7_900_000.0, 10.0),
    "EPSG:32660": (620_000.0, 7_300_000.0, 20.0),
    "EPSG:3857": (1_400_000.0, 6_600_000.0, 15.0),
    "EPSG:4326": (12.5, 52.5, 0.0001),
    "EPSG:3035": (4_400_000.0, 3_200_000.0, 10.0),
}


@dataclass(frozen=True)
class Form:
    """How a file holds the pixels of VALUES."""

    order: tuple[str, ...]
    labels: str
    crs: str
    axes: tuple[int, ...]
    stored: tuple[str, str]
    nodata: float | None
    with_hole: bool
    layout: int


@st.composite
def forms(draw) -> Form:
    stored = draw(st.sampled_from(FORMS))
    nodata = draw(st.sampled_from(NODATA[stored[1]]))
    return Form(
        order=tuple(draw(st.permutations(FILE_ORDER_12))),
        labels=draw(st.sampled_from(sorted(LABELS))),
        crs=draw(st.sampled_from(sorted(PLACES))),
        axes=draw(st.sampled_from([(), (0,), (1,), (0, 1)])),
        stored=stored,
        nodata=nodata,
        with_hole=nodata is not None and draw(st.booleans()),
        layout=draw(st.integers(0, len(LAYOUTS) - 1)),
    )


def grid_of(form: Form) -> Grid:
    x, y, step = PLACES[form.crs]
    return Grid(form.crs, (step, 0.0, x, 0.0, -step, y))


def write(path: Path, form: Form) -> None:
    kind, dtype = form.stored
    values = VALUES[:, :, [FILE_ORDER_12.index(band) for band in form.order]]
    if kind == AS_FRACTIONS:
        values = values / 10_000
    if form.with_hole:
        values = np.where(HOLE[:, :, None], form.nodata, values)
    values = np.flip(values.astype(dtype), form.axes)
    grid = grid_of(form).flip(form.axes, SIDE, SIDE)
    size = {"height": SIDE, "width": SIDE, "count": len(form.order), "dtype": dtype}
    place = {"crs": form.crs, "transform": rasterio.Affine(*grid.transform)}
    profile = {**size, **place, **LAYOUTS[form.layout], "nodata": form.nodata}
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        file.write(np.moveaxis(values, 2, 0))
        if kind == AS_SCALED:
            file.scales = [0.0001] * file.count
        file.descriptions = [LABELS[form.labels](band) for band in form.order]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(Form(FILE_ORDER_12, "ESA", "EPSG:32660", (0, 1), (AS_SCALED, "int16"), -9999, True, 4))
@given(forms())
def test_every_form_of_the_same_pixels_is_one_scene(form: Form):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "export.tif")
        write(path, form)
        scene = Scene.open(path)
        scene.save(Path(folder, "saved.tif"))
        saved = Scene.open(Path(folder, "saved.tif"))
    expected = VALUES[:, :, [FILE_ORDER_12.index(band) for band in BANDS]]
    data = ~HOLE if form.with_hole else np.ones_like(HOLE)
    for each in (scene, saved):
        assert each.bands == BANDS
        np.testing.assert_allclose(each.reflectance[data], expected[data], atol=0.51)
        assert each.valid is None if data.all() else (each.valid == data).all()
        assert each.grid.crs == form.crs
        np.testing.assert_allclose(each.grid.transform, grid_of(form).transform, rtol=1e-12)
        place = grid_of(form).locate(SIDE / 2, SIDE / 2)
        np.testing.assert_allclose((each.longitude, each.latitude), place, atol=1e-9)
    np.testing.assert_allclose(scene.reflectance[data], expected[data], atol=0.01)
