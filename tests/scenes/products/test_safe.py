"""ESA's products: .SAFE folders, their zip archives, and folders of them."""

from __future__ import annotations

import datetime
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from earthvlm import Scene
from earthvlm.scenes.bands import BANDS, FILE_ORDER_12
from earthvlm.scenes.isolated_reader import IsolatedReader
from earthvlm.scenes.products import product_files
from earthvlm.scenes.reading import ReadOptions, open_parts
from earthvlm.scenes.tiling import TiledRaster
from tests.support.made_products import (
    CORNER,
    L1C_NAME,
    NAME,
    OLD_NAME,
    SIDE,
    describe_product,
    make_tile,
    pack,
    write_safe,
)

INSIDE = (slice(8, -8), slice(8, -8))  # where coarse bands are not continued beyond their edge


@pytest.fixture(scope="module")
def safe(tmp_path_factory) -> Path:
    classes = np.full((SIDE // 2, SIDE // 2), 4, np.uint8)
    classes[:24, :24] = 9
    return write_safe(tmp_path_factory.mktemp("products"), make_tile(), scl=classes)


def check_tile(scene: Scene, pixels: np.ndarray | None = None, tolerance: float = 1) -> None:
    """Ten metre bands are exact, and coarser ones the ramp that they were averaged from."""
    pixels = make_tile() if pixels is None else pixels
    for index, band in enumerate(BANDS):
        wanted = pixels[FILE_ORDER_12.index(band)].astype(float)
        found = scene.reflectance[:, :, index]
        if band in ("B02", "B03", "B04", "B08"):
            assert np.array_equal(found, wanted), band
        else:
            assert np.abs(found - wanted)[INSIDE].max() <= tolerance, band


def test_a_safe_folder_opens_as_its_tile(safe):
    scene = Scene.open(safe)
    check_tile(scene)
    assert (scene.width, scene.height, scene.name) == (SIDE, SIDE, NAME)
    assert scene.date == datetime.date(2023, 7, 16)
    assert scene.product.product_id == NAME and scene.product.mgrs_tile == "31TDG"
    assert scene.product.sensing_time.isoformat() == "2023-07-16T10:56:29+00:00"
    assert scene.grid.transform == (10, 0, CORNER[0], 0, -10, CORNER[1])
    assert scene.notes == ()
    assert (scene.scl[:48, :48] == 9).all() and (scene.scl[48:, 48:] == 4).all()
    assert scene.cloud_mask.mean() == 0.25


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", [f"{NAME}.SAFE.zip", "download.zip", "{odd} name.zip"])
def test_a_zip_archive_is_read_in_place(safe, tmp_path, packing, name):
    archive = pack(safe, tmp_path / name, packing)
    scene, folder = Scene.open(archive), Scene.open(safe)
    assert np.array_equal(scene.reflectance, folder.reflectance)
    assert (scene.name, scene.date, scene.product) == (folder.name, folder.date, folder.product)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    part = Scene.open(archive, window=(12, 24, 36, 48))
    assert np.array_equal(part.reflectance[:, :, 0], folder.reflectance[24:72, 12:48, 0])


def test_a_window_of_coarse_bands_lies_where_it_should(safe):
    whole = Scene.open(safe)
    part = Scene.open(safe, window=(31, 17, 40, 44))  # odd: between pixels of 20 and 60 m
    assert np.abs(part.reflectance - whole.reflectance[17:61, 31:71]).max() <= 1
    assert part.grid.transform[2] == CORNER[0] + 310
    assert np.array_equal(part.scl, whole.scl[17:61, 31:71])


@pytest.mark.parametrize(
    ("below", "metres", "bands"),
    [("GRANULE/*", 10, 12), ("GRANULE/*/IMG_DATA", 10, 12), ("GRANULE/*/IMG_DATA/R20m", 20, 10)],
)
def test_folders_of_a_granule_open(safe, below, metres, bands):
    (folder,) = safe.glob(below)
    scene = Scene.open(folder)
    assert scene.pixel_metres == pytest.approx(metres, rel=0.01)
    assert len(scene.bands) == bands and scene.name == NAME
    assert scene.date == datetime.date(2023, 7, 16)
    # The metadata file above says that the offset is there.
    assert np.abs(scene.reflectance[:, :, 0].min() - make_tile()[1].min()) <= 5


def test_a_folder_without_visible_bands_is_refused(safe):
    (folder,) = safe.glob("GRANULE/*/IMG_DATA/R60m")
    with pytest.raises(ValueError, match="a folder without bands of one scene in it"):
        Scene.open(folder)


def test_the_metadata_decides_about_the_offset(tmp_path):
    bright = make_tile() + np.uint16(900)  # no pixel is dark, so values alone mislead
    check_tile(Scene.open(write_safe(tmp_path / "a", bright, OLD_NAME, offset=0)), bright)
    check_tile(Scene.open(write_safe(tmp_path / "b", bright, NAME, offset=1000)), bright)
    doubled = describe_product(NAME, 1000, quantification=20_000)
    half = Scene.open(write_safe(tmp_path / "c", bright, metadata=doubled))
    assert half.reflectance.mean() == pytest.approx(bright.mean() / 2, rel=0.01)
    asked = Scene.open(write_safe(tmp_path / "d", bright, OLD_NAME, offset=0), boa_offset=True)
    assert asked.reflectance.mean() == pytest.approx(bright.mean() - 1000, rel=0.01)


@pytest.mark.parametrize(
    "metadata", [None, "<n1:Level-2A_User_Product/>", "<!ENTITY a 'b'>", "<a>"]
)
def test_without_metadata_the_name_tells(tmp_path, metadata):
    scene = Scene.open(write_safe(tmp_path, make_tile(), metadata=metadata))
    check_tile(scene)
    assert scene.date == datetime.date(2023, 7, 16) and scene.product.mgrs_tile == "31TDG"
    assert any("+1000 offset of newer products was taken off" in note for note in scene.notes)
    unreadable = any("metadata file cannot be read" in note for note in scene.notes)
    assert unreadable == (metadata is not None)


def test_level_1c_products_say_so(tmp_path):
    scene = Scene.open(write_safe(tmp_path, make_tile(), L1C_NAME, offset=0))
    check_tile(scene)
    assert any("level-1C product" in note for note in scene.notes)


def test_pixels_without_data_are_missing(tmp_path):
    pixels = make_tile() + np.uint16(1000)
    pixels[:, :, :36] = 0
    scene = Scene.open(
        write_safe(tmp_path, pixels, offset=0, metadata=describe_product(NAME, 1000))
    )
    assert not scene.valid[:, :30].any() and scene.valid[:, 42:].all()
    assert np.array_equal(scene.reflectance[:, 36:, 0], make_tile()[1][:, 36:])


def test_a_tile_is_cut_into_tiles(safe, tmp_path):
    whole = Scene.open(safe)
    for path in (safe, pack(safe, tmp_path / "a.zip")):
        tiles = {tile.name: tile for tile in TiledRaster(path, "a", tile_size=48).tiles()}
        assert set(tiles) == {"a_r000_c000", "a_r000_c001", "a_r001_c000", "a_r001_c001"}
        corner = tiles["a_r001_c000"].reflectance
        assert np.abs(corner - whole.reflectance[48:, :48]).max() <= 1
        assert tiles["a_r001_c000"].product == whole.product


def test_several_granules_are_refused(safe, tmp_path):
    copy = tmp_path / safe.name
    shutil.copytree(safe, copy)
    (granule,) = (copy / "GRANULE").iterdir()
    shutil.copytree(granule, granule.with_name("L2A_T31TEG_A033211_20230716T105902"))
    with pytest.raises(ValueError, match="holds 2 granules .* give the folder of one of them"):
        Scene.open(copy)


def write_archive(path: Path, members: dict[str, bytes], packing=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.txt": b"text"}, "has no B02 or B03 or B04"),
        ({"../B02.tif": b"x"}, "holds a file outside of itself"),
        ({"/B02.tif": b"x"}, "holds a file outside of itself"),
        ({"B02.tif": bytes(2**24)}, "would unpack from .* which no product does"),
        ({f"B0{n}.tif": b"text" for n in (2, 3, 4)}, "'B0[234].tif' in 'a.zip' is neither"),
        ({f"B0{n}.tif": b"II*\x00 cut" for n in (2, 3, 4)}, "damaged"),
    ],
)
def test_odd_archives_are_refused(tmp_path, members, message):
    with pytest.raises(ValueError, match=message):
        Scene.open(write_archive(tmp_path / "a.zip", members))


def test_damaged_archives_are_refused(safe, tmp_path):
    archive = pack(safe, tmp_path / "a.zip")
    data = archive.read_bytes()
    archive.write_bytes(data[:-100])
    with pytest.raises(ValueError, match="is a damaged archive"):
        Scene.open(archive)
    broken = bytearray(data)
    broken[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    archive.write_bytes(broken)
    with pytest.raises(ValueError, match="damaged|cannot be unpacked|neither"):
        Scene.open(archive)


def test_damaged_metadata_in_an_archive_is_named(safe, tmp_path):
    archive = pack(safe, tmp_path / "a.zip")
    with zipfile.ZipFile(archive) as members:
        (member,) = (each for each in members.infolist() if "MTD_MSI" in each.filename)
    data = bytearray(archive.read_bytes())
    end = member.header_offset + 30 + len(member.filename) + member.compress_size
    data[end - 40 : end] = bytes(40)
    archive.write_bytes(data)
    with pytest.raises(ValueError, match="'MTD_MSIL2A.xml' in 'a.zip' cannot be unpacked"):
        Scene.open(archive)


def test_compressed_bands_are_unpacked_for_a_while(safe, tmp_path, monkeypatch):
    archive = pack(safe, tmp_path / "a.zip")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with open_parts(archive, ReadOptions()) as image:
        assert len(list((tmp_path / "temporary").rglob("*.jp2"))) == 13
        check_tile(Scene(**vars(image.read())))
    assert not list((tmp_path / "temporary").iterdir())
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match="'a.zip' is compressed, and .* too little space"):
        Scene.open(archive)


def test_the_damaged_one_of_many_files_is_named(safe, tmp_path):
    copy = tmp_path / safe.name
    shutil.copytree(safe, copy)
    (red,) = copy.rglob("*_B04_10m.jp2")
    data = red.read_bytes()
    red.write_bytes(data[:900] + bytes(len(data) - 900))
    with pytest.raises(ValueError, match=r"B04_10m.jp2' is damaged"):
        Scene.open(copy)


def test_archives_of_very_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(product_files, "MAX_FILES", 3)
    path = write_archive(tmp_path / "a.zip", {f"{n}.txt": b"" for n in range(4)})
    with pytest.raises(ValueError, match="holds 4 files, more than 3"):
        Scene.open(path)
    write_safe(tmp_path / "b", make_tile())
    with pytest.raises(ValueError, match="holds more than 3 files"):
        Scene.open(tmp_path / "b" / f"{NAME}.SAFE")


def test_uploaded_archives_are_read_in_a_child(safe, tmp_path):
    reader = IsolatedReader(readers=1)
    try:
        scene = reader.open(pack(safe, tmp_path / "upload.zip"), window=(8, 0, 32, 16))
        whole = Scene.open(safe)
        assert np.array_equal(scene.reflectance, whole.reflectance[:16, 8:40])
        assert scene.product == whole.product and scene.overview_of is None

        outside = tmp_path / "outside.zip"
        with zipfile.ZipFile(outside, "w") as archive:
            archive.writestr("../B02.tif", b"II*\0")
        with pytest.raises(ValueError, match="holds a file outside of itself"):
            reader.open(outside)
        cube = tmp_path / "cube.zip"  # a dataset, whose files name each other
        with zipfile.ZipFile(cube, "w") as archive:
            archive.writestr("cube.zarr/zarr.json", "{}")
        with pytest.raises(ValueError, match="has no B02 or B03 or B04"):
            reader.open(cube)
    finally:
        reader.close()


@pytest.mark.slow
def test_an_overview_comes_from_smaller_pixels(tmp_path):
    side = 2304  # a whole product in small: overviews of 2 and more in each band
    pixels = np.repeat(make_tile(side // 24).repeat(24, axis=1), 24, axis=2)
    safe = write_safe(tmp_path, pixels)
    scene = Scene.open(safe)
    assert (scene.width, scene.height) == (1024, 1024)
    assert scene.pixel_metres == pytest.approx(22.5, rel=0.01)
    for index, band in enumerate(BANDS):
        wanted = pixels[FILE_ORDER_12.index(band)]
        found = scene.reflectance[:, :, index]
        assert abs(found.mean() - wanted.mean()) < 2, band
        assert abs(found[300, 700] - wanted[675, 1575]) < 12, band
    assert any("This is an overview" in note for note in scene.notes)
    for red in safe.rglob("*_B04_10m.jp2"):  # an overview needs its copy of 20 m alone
        red.write_bytes(b"")
    assert np.array_equal(Scene.open(safe).reflectance, scene.reflectance)
    with pytest.raises(ValueError, match="B04_10m.jp2' is neither"):
        Scene.open(safe, window=(0, 0, 64, 64))
