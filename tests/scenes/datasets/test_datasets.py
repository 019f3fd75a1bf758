"""xarray datasets, Zarr stores and netCDF files as scenes, and scenes as datasets."""

from __future__ import annotations

import datetime
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earthvlm import Scene
from earthvlm.scenes.bands import BANDS, FILE_ORDER_12
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.tiling import TiledRaster
from tests.support.made_products import CORNER, STEPS, make_tile, shrink

xr = pytest.importorskip("xarray")
CRS = "EPSG:32631"
TIME = np.datetime64("2023-07-16T10:56:29", "ns")
DAY = datetime.date(2023, 7, 16)


def make_coordinates(side: int, metres: float = 10) -> dict:
    return {
        "x": CORNER[0] + metres * (np.arange(side) + 0.5),
        "y": CORNER[1] - metres * (np.arange(side) + 0.5),
    }


def make_dataset(pixels: np.ndarray | None = None, bands=FILE_ORDER_12, **changes):
    """A cube of one time as odc-stac returns it: uint16 variables and a spatial_ref."""
    pixels = make_tile() if pixels is None else pixels
    variables = {band: (("y", "x"), pixels[n]) for n, band in enumerate(bands)}
    reference = ((), 32631, {"crs_wkt": CRS, "grid_mapping_name": "transverse_mercator"})
    coordinates = {**make_coordinates(pixels.shape[1]), "spatial_ref": reference, "time": TIME}
    return xr.Dataset({**variables, **changes}, coords=coordinates)


def check(scene: Scene, pixels: np.ndarray | None = None, bands=BANDS) -> None:
    pixels = make_tile() if pixels is None else pixels
    assert set(scene.bands) == set(bands)
    for band in bands:
        found = scene.reflectance[:, :, BANDS.index(band)]
        assert np.allclose(found, pixels[FILE_ORDER_12.index(band)], atol=0.01), band
    assert scene.grid.transform == (10, 0, CORNER[0], 0, -10, CORNER[1])
    assert scene.grid.crs == CRS and scene.date == DAY
    assert scene.pixel_metres == pytest.approx(10, rel=0.01)


def test_a_dataset_of_bands_is_a_scene():
    check(Scene.from_xarray(make_dataset()))
    check(Scene.from_xarray(make_dataset().expand_dims("time")))
    check(Scene.from_xarray(make_dataset().transpose("x", "y")))
    fractions = make_dataset().astype(np.float32) / 10_000
    check(Scene.from_xarray(fractions))


def test_a_band_dimension_is_read():
    cube = make_dataset().to_dataarray(dim="band")
    check(Scene.from_xarray(cube))
    common = cube.assign_coords(
        band=[f"S2L2A_{n}" for n in range(12)], common_name=("band", list(FILE_ORDER_12))
    )
    check(Scene.from_xarray(common.to_dataset(name="reflectance")))


def test_ascending_coordinates_are_turned():
    upside = make_dataset().isel(y=slice(None, None, -1), x=slice(None, None, -1))
    check(Scene.from_xarray(upside))


def test_fills_scales_and_masks_are_used():
    pixels = make_tile().astype(np.int32) + 1000
    pixels[:, :20] = -999
    data = make_dataset(pixels, SCL=(("y", "x"), np.full((96, 96), 9, np.uint8)))
    for band in FILE_ORDER_12:
        data[band].attrs |= {"scale_factor": 0.0001, "add_offset": -0.1, "_FillValue": -999}
    scene = Scene.from_xarray(data)
    assert not scene.valid[:20].any() and scene.valid[20:].all() and scene.cloud_mask.all()
    assert np.allclose(scene.reflectance[20:, :, 0], make_tile()[1][20:], atol=0.01)


def test_the_offset_is_found_by_the_date():
    check(Scene.from_xarray(make_dataset(make_tile() + np.uint16(1000))))
    bright = make_tile() + np.uint16(900)
    check(Scene.from_xarray(make_dataset(bright), boa_offset=False), bright)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: xr.concat([d, d], "time"), r"holds 2 steps along 'time'; write one to a file"),
        (lambda d: d.drop_vars("B04"), "has no B04"),
        (lambda d: d.rename(x="column"), "name those of its rows and columns y and x"),
        (lambda d: d.assign_coords(x=np.arange(96.0) ** 2), "not evenly spaced"),
        (lambda d: d.assign(band_2=d.B02), "has band B02 twice"),
        (lambda d: xr.Dataset(), "holds no variables"),
        (lambda d: d.isel(x=slice(0, 4)), "is 4 x 96 pixels"),
        (lambda d: d.assign(B08=("z", np.zeros(4))), "B08"),
    ],
)
def test_odd_datasets_are_refused(change, message):
    data = change(make_dataset())
    if message == "B08":  # a variable of one dimension is no band
        assert "B08" not in Scene.from_xarray(data).bands
        return
    with pytest.raises(ValueError, match=message):
        Scene.from_xarray(data)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    bands=st.permutations(FILE_ORDER_12),
    flip_x=st.booleans(),
    flip_y=st.booleans(),
    dtype=st.sampled_from([np.uint16, np.int16, np.float32, np.float64]),
    fractions=st.booleans(),
    crs=st.sampled_from(["EPSG:32631", "EPSG:3857", "EPSG:3035"]),
)
def test_the_same_pixels_make_the_same_scene(bands, flip_x, flip_y, dtype, fractions, crs):
    data = make_dataset()[list(bands)].isel(
        x=slice(None, None, -1 if flip_x else 1), y=slice(None, None, -1 if flip_y else 1)
    )
    data = data.astype(np.float64) / 10_000 if fractions else data.astype(dtype)
    data["spatial_ref"] = ((), 0, {"crs_wkt": crs})
    scene = Scene.from_xarray(data)
    wanted = Scene.from_xarray(make_dataset())
    assert np.allclose(scene.reflectance, wanted.reflectance, atol=0.01)
    assert scene.grid == Grid(crs, wanted.grid.transform) and scene.date == wanted.date


def test_a_scene_is_the_same_after_a_dataset():
    pixels = make_tile()
    pixels[:, :8, :8] = 0
    scene = Scene.from_xarray(make_dataset(pixels), name="a")
    scene = replace(scene, scl=np.full((96, 96), 5, np.uint8))
    data = scene.to_xarray()
    assert data.B04.dtype == np.float32 and data.B04.attrs["wavelength"] == 665
    assert float(data.B04.max()) < 0.2 and np.isnan(data.B04[0, 0])
    again = Scene.from_xarray(data, name="a")
    assert np.allclose(again.reflectance[scene.valid], scene.reflectance[scene.valid], atol=0.01)
    assert np.array_equal(again.valid, scene.valid) and np.array_equal(again.scl, scene.scl)
    assert (again.grid, again.date) == (scene.grid, scene.date)
    plain = Scene.from_array(
        np.full((9, 9, 3), 400.0) + np.arange(9)[:, None, None], ("B02", "B03", "B04")
    )
    assert set(plain.to_xarray().data_vars) == {"B02", "B03", "B04"}


def test_netcdf_and_zarr_files_open(tmp_path):
    data = make_dataset()
    for band in data.data_vars:
        data[band].attrs["grid_mapping"] = "spatial_ref"
    encoding = {band: {"_FillValue": 0} for band in data.data_vars}
    data.to_netcdf(tmp_path / "cube.nc", encoding=encoding)
    data.to_zarr(tmp_path / "cube.zarr", zarr_format=2)
    check(Scene.open(tmp_path / "cube.nc"))
    check(Scene.open(tmp_path / "cube.zarr"))
    part = Scene.open(tmp_path / "cube.nc", window=(10, 20, 30, 40))
    assert np.allclose(part.reflectance[:, :, 0], make_tile()[1][20:60, 10:40])
    (tmp_path / "cut.nc").write_bytes((tmp_path / "cube.nc").read_bytes()[:3000])
    with pytest.raises(ValueError, match="'cut.nc' is damaged, or no netCDF or Zarr"):
        Scene.open(tmp_path / "cut.nc")


def write_eopf(path):
    """ESA's EOPF product in Zarr: a group for each pixel size."""
    for metres, step in ((10, 1), (20, 2), (60, 6)):
        bands = {
            band.lower(): (("y", "x"), shrink(make_tile()[n] + np.uint16(1000), step))
            for n, band in enumerate(FILE_ORDER_12)
            if STEPS[band] == step
        }
        group = xr.Dataset(bands, coords=make_coordinates(96 // step, metres))
        for variable in group.data_vars.values():
            variable.attrs |= {"scale_factor": 0.0001, "add_offset": -0.1, "proj:epsg": 32631}
        group.to_zarr(path, group=f"measurements/reflectance/r{metres}m", zarr_format=2)
    scl = xr.Dataset({"scl": (("y", "x"), np.full((48, 48), 4, np.uint8))},
                     coords=make_coordinates(48, 20))  # fmt: skip
    scl.to_zarr(path, group="conditions/mask/l2a_classification/r20m", zarr_format=2)
    import zarr

    root = zarr.open_group(str(path), mode="a")
    root.attrs["stac_discovery"] = {"properties": {"datetime": "2023-07-16T10:56:29Z"}}
    return path


def test_eopf_products_open(tmp_path):
    name = "S2B_MSIL2A_20230716T105629_N0509_R094_T31TDG_20230716T134210"
    scene = Scene.open(write_eopf(tmp_path / f"{name}.zarr"))
    assert len(scene.bands) == 12 and (scene.scl == 4).all()
    assert np.allclose(scene.reflectance[:, :, 0], make_tile()[1], atol=0.01)
    coarse = scene.reflectance[8:-8, 8:-8, BANDS.index("B11")]
    assert np.abs(coarse - make_tile()[FILE_ORDER_12.index("B11")][8:-8, 8:-8]).max() <= 1
    assert scene.date == DAY and scene.product.mgrs_tile == "31TDG"
    assert scene.grid.crs == CRS


def test_without_xarray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "xarray", None)
    with pytest.raises(ValueError, match=r"pip install 'earthvlm\[xarray\]'"):
        Scene.from_array(
            np.ones((9, 9, 3)) * 400 + np.arange(9)[:, None, None], ("B02", "B03", "B04")
        ).to_xarray()


def test_reading_leaves_no_files(tmp_path):
    make_dataset().to_netcdf(tmp_path / "cube.nc")
    Scene.open(tmp_path / "cube.nc")
    assert os.listdir(tmp_path) == ["cube.nc"]


def write_large(folder, layout: str, side: int = 1536):
    """Four bands of noise, stored in blocks of 128 pixels without compression: 19 MB."""
    bands = ("B02", "B03", "B04", "B08")
    pixels = np.random.default_rng(0).integers(200, 3000, (4, side, side), np.uint16)
    data = make_dataset(pixels, bands)
    path = folder / f"large.{layout}"
    if layout == "nc":
        data.to_netcdf(path, encoding={band: {"chunksizes": (128, 128)} for band in bands})
    else:
        chunks = {band: {"chunks": (128, 128), "compressors": None} for band in bands}
        data.to_zarr(path, zarr_format=2, encoding=chunks)
    return path, pixels


def count_read(task) -> int:
    """The bytes that this process reads while a task runs."""

    def read() -> int:
        text = Path("/proc/self/io").read_text()
        return int(text.split("rchar: ")[1].split()[0])

    before = read()
    task()
    return read() - before


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes as Linux does")
@pytest.mark.parametrize("layout", ["nc", "zarr"])
def test_of_a_dataset_only_the_window_is_read(tmp_path, layout):
    path, pixels = write_large(tmp_path, layout)
    window = (700, 300, 64, 64)
    Scene.open(path, window=window)  # loads modules
    sent = count_read(lambda: Scene.open(path, window=window))
    assert sent < pixels.nbytes * 0.4  # the window, and nine blocks of each band as samples
    part = Scene.open(path, window=window)
    assert np.allclose(part.reflectance[:, :, 0], pixels[0, 300:364, 700:764])
    tiles = {tile.name: tile for tile in TiledRaster(path, "a", tile_size=512).tiles()}
    centre = tiles["a_r001_c001"].reflectance[:, :, 3]
    assert len(tiles) == 9 and np.allclose(centre, pixels[3, 512:1024, 512:1024])


def test_an_overview_of_a_dataset_is_averaged(tmp_path):
    side = 2304
    pixels = np.repeat(np.repeat(make_tile(side // 24)[:4], 24, axis=1), 24, axis=2)
    bands = ("B02", "B03", "B04", "B08")
    data = make_dataset(pixels, bands, SCL=(("y", "x"), np.full((side, side), 4, np.uint8)))
    data.to_zarr(tmp_path / "a.zarr", zarr_format=2, encoding={"B02": {"chunks": (700, 500)}})
    scene = Scene.open(tmp_path / "a.zarr")
    assert (scene.width, scene.height) == (1024, 1024) and (scene.scl == 4).all()
    for index, band in enumerate(bands):
        found = scene.reflectance[:, :, BANDS.index(band)]
        assert abs(found.mean() - pixels[index].mean()) < 0.5
        assert abs(found[300, 700] - pixels[index][675, 1575]) < 6
    assert any("This is an overview" in note for note in scene.notes)


def test_groups_of_a_store_are_copies_or_refused(tmp_path):
    coarse = ("B05", "B11")
    fine = [band for band in FILE_ORDER_12 if band not in coarse]
    for name, bands, step in (("20m", coarse, 2), ("10m", fine, 1)):
        variables = {
            band: (("y", "x"), shrink(make_tile()[FILE_ORDER_12.index(band)], step))
            for band in bands
        }
        coordinates = {**make_coordinates(96 // step, 10 * step), "time": TIME}
        data = xr.Dataset(variables, coords=coordinates, attrs={"proj:code": CRS})
        data.to_zarr(tmp_path / "a.zarr", group=name, zarr_format=2)
    scene = Scene.open(tmp_path / "a.zarr")
    assert len(scene.bands) == 12 and (scene.width, scene.date) == (96, DAY)
    assert np.array_equal(scene.reflectance[:, :, 0], make_tile()[1])
    for day in ("first", "second"):
        make_dataset().to_zarr(tmp_path / "b.zarr", group=day, zarr_format=2)
    with pytest.raises(ValueError, match=r"has band B\d\d twice"):
        Scene.open(tmp_path / "b.zarr")
