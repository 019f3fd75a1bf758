"""Files that other tools write: read with the right bands, or refused with what to do."""

from __future__ import annotations

import gzip
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
import rasterio

from earthvlm import Scene
from earthvlm.scenes.bands import FILE_ORDER_12
from tests.support.made_rasters import make_values, write_tiff

VISIBLE = ("B04", "B03", "B02", "B08")


@pytest.mark.parametrize(
    "labels",
    [
        ("Rouge", "Vert", "Bleu", "PIR"),
        ("Rot", "Grün", "Blau", "NIR"),
        ("RED", "GREEN", "BLUE", "NIR"),
        ("B4, central wavelength 665 nm", "B3, central wavelength 560 nm",
         "B2, central wavelength 490 nm", "B8, central wavelength 842 nm"),
        tuple(f"T31TDG_20210716T105031_{band}_10m" for band in VISIBLE),
        tuple(f"20210716T105031_20210716T105028_T31TDG_{band}" for band in VISIBLE),
        ("0.665 Micrometers", "0.560 Micrometers", "0.490 Micrometers", "0.842 Micrometers"),
        ("B4_median", "B3_median", "B2_median", "B8_median"),
    ],
)  # fmt: skip
def test_labels_of_other_tools_are_known(tmp_path, labels):
    values = make_values(VISIBLE)
    scene = Scene.open(write_tiff(tmp_path / "a.tif", values, labels))
    assert scene.bands == ("B02", "B03", "B04", "B08")
    assert np.array_equal(scene.reflectance[:, :, :4], values[:, :, [2, 1, 0, 3]])


def test_masks_by_their_names_in_snap_are_used(tmp_path):
    values = make_values()
    classes = np.full((*values.shape[:2], 1), 9, np.uint16)
    path = write_tiff(
        tmp_path / "a.tif",
        np.concatenate([values, classes], axis=2),
        (*FILE_ORDER_12, "quality_scene_classification"),
    )
    assert Scene.open(path).cloud_mask.all()


def write_numbers(path, change, bands=VISIBLE, **profile):
    return write_tiff(path, change(make_values(bands).astype(np.float64)), bands, **profile)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("coastal_blue", "blue", "green_i", "green", "red", "nir"), "has a band 'coastal_blue'"),
        (("blue", "green", "red", "nir08", "lwir11"), "has a band 'lwir11', which Sentinel-2 does"),
    ],
)
def test_bands_of_other_sensors_are_refused(tmp_path, labels, message):
    values = make_values(FILE_ORDER_12[: len(labels)])
    with pytest.raises(ValueError, match=message):
        Scene.open(write_tiff(tmp_path / "a.tif", values, labels))


def test_numbers_of_other_units_are_refused_or_told(tmp_path):
    grid = {"crs": "EPSG:32631", "transform": rasterio.Affine(30, 0, 480_000, 0, -30, 4_690_020)}
    landsat = write_numbers(
        tmp_path / "a.tif", lambda v: ((v / 1e4 + 0.2) / 2.75e-5).astype(np.uint16), **grid
    )
    with pytest.raises(ValueError, match="'a.tif' has the numbers of Landsat's Collection 2"):
        Scene.open(landsat)
    stretched = write_numbers(
        tmp_path / "b.tif", lambda v: (v / v.max() * 60_000).astype(np.uint16)
    )
    with pytest.raises(ValueError, match="brighter than anything on Earth is as reflectance"):
        Scene.open(stretched)
    thousandths = write_numbers(tmp_path / "c.tif", lambda v: (v / 10).astype(np.uint16))
    assert any("in another unit than" in note for note in Scene.open(thousandths).notes)
    assert not any(
        "in another unit than" in note
        for note in Scene.open(write_tiff(tmp_path / "d.tif", make_values(), FILE_ORDER_12)).notes
    )


def test_scales_that_contradict_each_other_are_refused(tmp_path):
    path = write_tiff(tmp_path / "a.tif", make_values(VISIBLE), VISIBLE)
    with rasterio.open(path, "r+") as file:
        file.scales = (0.0001, 0.0001, 1.0, 0.0001)
    with pytest.raises(ValueError, match="scales from 0.0001 to 1 in its bands' tags"):
        Scene.open(path)


def write_deep_png(path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + bytes(range(16 * 6)) for _ in range(16))
    header = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def test_what_is_no_image_is_named_with_advice(tmp_path):
    raster = write_tiff(tmp_path / "a.tif", make_values(), FILE_ORDER_12)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(raster, "a.tif")
    (tmp_path / "a.tif.gz").write_bytes(gzip.compress(raster.read_bytes()))
    with rasterio.open(raster) as file:
        profile = file.profile | {"driver": "ENVI"}
        pixels = file.read()
    for key in ("tiled", "blockxsize", "blockysize", "compress", "interleave"):
        profile.pop(key, None)
    with rasterio.open(tmp_path / "b.bsq", "w", **profile) as file:
        file.write(pixels)
    (tmp_path / "login.tif").write_text("<!DOCTYPE html><html>Log in</html>")
    (tmp_path / "pointer.tif").write_text("version https://git-lfs.github.com/spec/v1\n")
    write_deep_png(tmp_path / "deep.png")
    for name, message in (
        ("a.tar", "it is a tar archive; unpack it first"),
        ("a.tif.gz", "it is compressed by gzip; unpack it first"),
        ("b.bsq", "it is an ENVI raster; convert it"),
        ("b.hdr", "it is the header of an ENVI raster"),
        ("login.tif", "it is a web page, as of a login or an error"),
        ("pointer.tif", "it is a pointer of Git LFS to the file; fetch it"),
        ("deep.png", "is a picture of more than 8 bits"),
    ):
        with pytest.raises(ValueError, match=message):
            Scene.open(tmp_path / name)


def test_the_only_raster_of_an_archive_is_read(tmp_path):
    raster = write_tiff(tmp_path / "download.tif", make_values(), FILE_ORDER_12)
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "download.zip", "w", packing) as archive:
            archive.write(raster, "readme.txt")
            archive.write(raster, "inner/download.tif")
            archive.writestr("__MACOSX/inner/._download.tif", b"resource fork")
        scene = Scene.open(tmp_path / "download.zip")
        assert np.array_equal(scene.reflectance, Scene.open(raster).reflectance)
        assert scene.name == "download"
