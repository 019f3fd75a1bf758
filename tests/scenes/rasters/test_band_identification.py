"""Which band is which: labels as tools write them, and orders of bands without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from earthvlm import Scene, SceneIndex
from earthvlm.scenes.bands import BANDS, FILE_ORDER_12, FILE_ORDER_13
from earthvlm.scenes.rasters.band_identification import (
    ALPHABETICAL_12,
    ALPHABETICAL_13,
    DIMAP_TAG,
    identify_bands,
    name_labels,
)
from tests.support.made_tiffs import add_ascii_tag

FOUR = ("B02", "B03", "B04", "B08")


@pytest.fixture(scope="module")
def real_scenes() -> list[Scene]:
    """Real scenes of all twelve bands: lakes, forest, fields, villages, some haze."""
    index = SceneIndex.from_pretrained("bundled")
    return [Scene.open(result.scene_file) for result in index.browse(k=16)]


def stack(scene: Scene, order: tuple[str, ...]) -> np.ndarray:
    """Its bands in an order, `[C, H, W]`; a cirrus band is nearly black."""
    bands = []
    for band in order:
        if band == "B10":
            bands.append(10 + scene.reflectance[:, :, BANDS.index("B01")] % 7)
        else:
            bands.append(scene.reflectance[:, :, BANDS.index(band)])
    return np.stack(bands)


def write_raster(path: Path, pixels: np.ndarray, labels: tuple[str, ...] = ()) -> Path:
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width}
    with rasterio.open(path, "w", dtype="uint16", **profile) as file:
        file.write(np.rint(pixels).astype(np.uint16))
        for number, label in enumerate(labels, start=1):
            file.set_band_description(number, label)
    return path


@pytest.mark.parametrize(
    ("labels", "bands"),
    [
        (("Band 1: Blue", "Band 2: Green", "Band 3: Red", "Band 4: NIR"), FOUR),
        (("Band 1 (B02)", "Band 2 (B03)", "Band 3 (B04)", "Band 4 (B08)"), FOUR),
        (("nbart_blue", "nbart_green", "nbart_red", "nbart_nir_1"), FOUR),
        (("blue", "nir_2", "swir_2", "swir_3"), ("B02", "B8A", "B11", "B12")),
        (("swir1", "swir2", "nir08", "nir"), ("B11", "B12", "B8A", "B08")),
        (("BLUE", "NIR", "BROADNIR", "SWIR1"), ("B02", "B8A", "B08", "B11")),
        (("490", "560 nm", "0.665 µm", "842.0"), FOUR),
        (("rededge071", "rededge075", "rededge078", "dataMask"), ("B05", "B06", "B07", None)),
        (("SR_B2", "VV", "quality", ""), (None, None, None, None)),
    ],
)
def test_labels_of_tools_name_bands(labels, bands):
    assert tuple(name_labels(labels)) == bands


@pytest.mark.parametrize(
    "order", [FILE_ORDER_12, ALPHABETICAL_12, BANDS, FILE_ORDER_13, ALPHABETICAL_13]
)
def test_spectra_find_the_order_of_unnamed_bands(real_scenes, order):
    refused = 0
    for scene in real_scenes:
        samples = stack(scene, order).reshape(len(order), -1)
        try:
            found = identify_bands([None] * len(order), samples, scene.name)
        except ValueError:
            refused += 1
        else:
            assert tuple(found.numbers) == order, scene.name
    assert refused <= 3  # clouds alone, in which all bands are alike


def test_an_order_without_cirrus_is_refused(real_scenes):
    samples = stack(real_scenes[0], (*FILE_ORDER_12, "B03")).reshape(13, -1)
    with pytest.raises(ValueError, match="none is as dark as cirrus"):
        identify_bands([None] * 13, samples, "x.tif")


def test_spectra_that_fit_two_orders_are_refused():
    samples = np.random.default_rng(0).normal(3000, 5, (1, 500)).repeat(12, axis=0)
    with pytest.raises(ValueError, match="may be in"):
        identify_bands([None] * 12, samples, "x.tif")


@pytest.mark.parametrize("alpha", [False, True])
def test_a_mask_band_hides_pixels(real_scenes, tmp_path, alpha):
    scene = real_scenes[0]
    pixels = np.concatenate(
        [stack(scene, FILE_ORDER_12), np.full((1, scene.height, scene.width), 1)]
    )
    pixels[:12, :, :8], pixels[12, :, :8] = 5000, 0
    path = write_raster(tmp_path / "masked.tif", pixels)
    if alpha:
        with rasterio.open(path, "r+") as file:
            file.colorinterp = [*file.colorinterp[:12], ColorInterp.alpha]
    opened = Scene.open(path, boa_offset=False)
    assert np.array_equal(opened.reflectance[:, 8:], np.rint(scene.reflectance[:, 8:]))
    assert (opened.reflectance[:, :8] != 5000).all()
    assert any("mask" in note for note in opened.notes)


def test_names_in_metadata_are_read(real_scenes, tmp_path):
    path = write_raster(tmp_path / "openeo.tif", stack(real_scenes[0], BANDS))
    with rasterio.open(path, "r+") as file:
        for number, band in enumerate(BANDS, start=1):
            file.update_tags(number, DESCRIPTION=band)
    opened = Scene.open(path, boa_offset=False)
    assert np.array_equal(opened.reflectance, np.rint(real_scenes[0].reflectance))


def test_names_in_a_dimap_header_are_read(real_scenes, tmp_path):
    path = write_raster(tmp_path / "snap.tif", stack(real_scenes[0], FOUR))
    infos = "".join(
        f"<Spectral_Band_Info><BAND_INDEX>{n}</BAND_INDEX><BAND_NAME>{b}</BAND_NAME>"
        "</Spectral_Band_Info>"
        for n, b in enumerate(FOUR)
    )
    add_ascii_tag(path, DIMAP_TAG, f"<Dimap_Document>{infos}</Dimap_Document>")
    assert set(Scene.open(path, boa_offset=False).bands) == set(FOUR)


def test_all_tiles_of_a_raster_share_one_order(real_scenes, tmp_path):
    from earthvlm.scenes.tiling import TiledRaster

    rows = [stack(scene, BANDS) for scene in real_scenes if scene.height == real_scenes[0].height]
    path = write_raster(tmp_path / "wide.tif", np.concatenate(rows[:4], axis=2))
    tiles = list(TiledRaster(path, "wide", 64, boa_offset=False).tiles())
    expected = Scene.open(path, boa_offset=False).reflectance
    for column, tile in enumerate(tiles[: expected.shape[1] // 64]):  # of the first row
        assert np.array_equal(tile.reflectance, expected[:64, 64 * column : 64 * (column + 1)])
