"""Scene: every way to open one, what it takes off and fills, what it refuses, how it is drawn."""

import datetime
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from earthvlm.scenes.bands import (
    BANDS,
    CHATEARTHNET_FOLDERS,
    EIGHT_BIT_SCALE,
    FILE_ORDER_12,
    FILE_ORDER_13,
)
from earthvlm.scenes.image_reader import locate_chatearthnet
from earthvlm.scenes.reflectance import decide_offset
from earthvlm.scenes.scene import Scene

DATA = os.environ.get("EARTHVLM_TEST_DATA", "")
needs_scenes = pytest.mark.skipif(
    not (DATA and Path(DATA, "scenes").is_dir()),
    reason="EARTHVLM_TEST_DATA names no folder with scenes/",
)
needs_practice = pytest.mark.skipif(
    not (DATA and Path(DATA, "s2_practice").is_dir()),
    reason="EARTHVLM_TEST_DATA names no folder with s2_practice/",
)
SEASIDE_LAND = {  # reflectance x 10000 of a lake and of a meadow, by band
    "B01": (300, 350),
    "B02": (250, 400),
    "B03": (220, 700),
    "B04": (120, 450),
    "B05": (110, 1000),
    "B06": (90, 2300),
    "B07": (90, 2800),
    "B08": (70, 3000),
    "B8A": (60, 3200),
    "B09": (50, 3300),
    "B10": (12, 15),
    "B11": (30, 2000),
    "B12": (20, 1100),
}


def make_values(bands=FILE_ORDER_12, side=32, offset=0):
    """A lake left of a meadow, with a little texture: uint16 `[H, W, C]`."""
    noise = np.random.default_rng(0).uniform(0.9, 1.1, (side, side, 1))
    water = np.arange(side)[None, :, None] < side // 2
    lake, meadow = (np.array([SEASIDE_LAND[band][i] for band in bands]) for i in (0, 1))
    return (np.where(water, lake, meadow) * noise + offset).astype(np.uint16)


def write_tiff(path, values, names=None, tags=None, **profile):
    """Write `[H, W, C]` as a GeoTIFF in UTM 31N whose centre is 500 km east, 4,700 km north."""
    height, width, count = values.shape
    grid = rasterio.Affine(10, 0, 500_000 - 5 * width, 0, -10, 4_700_000 + 5 * height)
    profile = {"crs": "EPSG:32631", "transform": grid, "dtype": values.dtype, **profile}
    size = {"height": height, "width": width, "count": count}
    with rasterio.open(path, "w", driver="GTiff", **size, **profile) as file:
        file.write(np.moveaxis(values, 2, 0))
        file.update_tags(**(tags or {}))
        for number, name in enumerate(names or [], start=1):
            file.set_band_description(number, name)
    return path


def write_triplet(root, name="s2eu_0001.png", side=16, level="s2_images"):
    """Write three 8-bit PNGs as ChatEarthNet lays them out, and return their pixels by band."""
    random = np.random.default_rng(1)
    pixels = {}
    for folder, bands in CHATEARTHNET_FOLDERS.items():
        target = root / folder / (level if folder == "s2_rgb_images" else "")
        target.mkdir(parents=True, exist_ok=True)
        values = random.integers(1, 255, (side, side, 3), dtype=np.uint8)
        Image.fromarray(values).save(target / name)
        pixels |= {band: values[:, :, index] for index, band in enumerate(bands)}
    return pixels


def band_of(scene, band):
    return scene.reflectance[:, :, BANDS.index(band)]


def write_empty_png(path, width, height):
    """A PNG that promises width x height one-bit pixels and holds hardly any."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\x00")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


# --- GeoTIFF: bands ------------------------------------------------------------------------------


def test_geotiff_bands_go_by_their_descriptions_in_any_order(tmp_path):
    order = tuple(reversed(FILE_ORDER_12))
    values = make_values(order)
    scene = Scene.open(write_tiff(tmp_path / "a.tif", values, order))
    for index, band in enumerate(order):
        np.testing.assert_array_equal(band_of(scene, band), values[:, :, index])
    assert scene.bands == BANDS
    assert scene.reflectance.dtype == np.float32
    assert scene.notes == ()
    assert (scene.height, scene.width, scene.name) == (32, 32, "a")


@pytest.mark.parametrize("order", [FILE_ORDER_12, FILE_ORDER_13])
@pytest.mark.parametrize("numbered", [False, True])
def test_geotiff_without_names_is_read_in_documented_order_and_says_so(tmp_path, order, numbered):
    values = make_values(order)
    names = [f"Band {number}" for number in range(1, len(order) + 1)] if numbered else None
    scene = Scene.open(write_tiff(tmp_path / "a.tif", values, names))
    for band in BANDS:
        np.testing.assert_array_equal(band_of(scene, band), values[:, :, order.index(band)])
    assert ", ".join(order) in scene.notes[0]


def test_geotiff_with_some_bands_has_the_others_missing(tmp_path):
    order = ("B02", "B03", "B04", "B08")
    names = ["Blue", "Green", "Red", "NIR"]
    scene = Scene.open(write_tiff(tmp_path / "a.tif", make_values(order), names))
    assert scene.bands == order
    assert np.isnan(band_of(scene, "B11")).all()
    assert not scene.is_rgb_only


def test_bands_of_no_interest_are_left_out_with_a_note(tmp_path):
    values = np.dstack([make_values(), np.full((32, 32, 2), 4, np.uint16)])
    names = [*FILE_ORDER_12, "SCL", "AOT"]
    scene = Scene.open(write_tiff(tmp_path / "a.tif", values, names))
    assert scene.bands == BANDS
    assert any("SCL, AOT" in note for note in scene.notes)


def test_bands_that_are_zero_throughout_count_as_missing(tmp_path):
    values = make_values()
    for band in ("B01", "B09"):
        values[:, :, FILE_ORDER_12.index(band)] = 0
    scene = Scene.open(write_tiff(tmp_path / "a.tif", values, FILE_ORDER_12))
    assert set(BANDS) - set(scene.bands) == {"B01", "B09"}
    assert any("B01, B09" in note for note in scene.notes)


# --- GeoTIFF: values -----------------------------------------------------------------------------


def test_fractions_are_scaled_and_say_so(tmp_path):
    values = make_values()
    path = write_tiff(tmp_path / "a.tif", (values / 10_000).astype(np.float32), FILE_ORDER_12)
    scene = Scene.open(path)
    expected = values[:, :, FILE_ORDER_12.index("B08")]
    np.testing.assert_allclose(band_of(scene, "B08"), expected, rtol=1e-5)
    assert any("multiplied by 10000" in note for note in scene.notes)


def test_declared_scale_and_offset_are_applied(tmp_path):
    values = make_values(offset=1000)
    path = write_tiff(tmp_path / "a_20230601T105031.tif", values, FILE_ORDER_12)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [1e-4] * 12, [-0.1] * 12
    expected = values[:, :, FILE_ORDER_12.index("B08")] - 1000.0
    np.testing.assert_allclose(band_of(Scene.open(path), "B08"), expected, atol=0.1)


def test_masked_pixels_are_filled_with_the_median_and_counted(tmp_path):
    values = make_values()
    values[:8, :, :] = 65_535  # a quarter
    path = write_tiff(tmp_path / "a.tif", values, FILE_ORDER_12, nodata=65_535)
    scene = Scene.open(path)
    red = values[:, :, FILE_ORDER_12.index("B04")]
    assert (band_of(scene, "B04")[:8] == np.median(red[8:])).all()
    np.testing.assert_array_equal(band_of(scene, "B04")[8:], red[8:])
    assert any(note.startswith("25% ") for note in scene.notes)


def test_pixels_that_are_zero_in_every_band_are_no_data_but_a_dark_band_is(tmp_path):
    values = make_values()
    values[0, 0, :] = 0
    values[5, 5, FILE_ORDER_12.index("B12")] = 0
    path = write_tiff(tmp_path / "a.tif", values, FILE_ORDER_12, nodata=0)
    scene = Scene.open(path)
    assert band_of(scene, "B12")[5, 5] == 0
    assert band_of(scene, "B12")[0, 0] > 0
    assert any("Less than 1%" in note for note in scene.notes)


def test_few_nan_pixels_are_filled(tmp_path):
    values = make_values().astype(np.float32)
    values[:3, :3] = np.nan
    scene = Scene.open(write_tiff(tmp_path / "a.tif", values, FILE_ORDER_12))
    assert np.isfinite(scene.reflectance).all()
    assert any("hold no data" in note for note in scene.notes)


# --- GeoTIFF: the +1000 offset -------------------------------------------------------------------

OLD, NEW = datetime.date(2021, 7, 1), datetime.date(2023, 7, 1)


@pytest.mark.parametrize(
    ("name", "offset", "taken_off"),
    [
        ("a_20210701T105031", 0, False),  # older: never there
        ("a_20230701T105031", 1000, True),  # newer, and its values show it
        ("a_20230701T105031", 0, False),  # newer, but harmonised already
        ("a", 1000, True),  # unknown date: the values show it
        ("a", 0, False),
        ("S2A_MSIL2A_20180305T105021_N0500_R051_T31TDG", 1000, True),  # old, processed again
        ("S2A_MSIL2A_20180305T105021_N0206_R051_T31TDG", 1000, False),  # bright by itself
    ],
)
def test_the_offset_is_recognised(tmp_path, name, offset, taken_off):
    path = write_tiff(tmp_path / f"{name}.tif", make_values(offset=offset), FILE_ORDER_12)
    scene = Scene.open(path)
    plain = make_values(offset=offset).astype(np.float32)
    expected = np.maximum(plain - 1000, 0) if taken_off else plain
    np.testing.assert_array_equal(band_of(scene, "B08"), expected[:, :, FILE_ORDER_12.index("B08")])
    if offset or "2023" in name:
        assert any("+1000" in note for note in scene.notes)
    else:
        assert scene.notes == ()


def test_the_caller_may_decide_about_the_offset(tmp_path):
    path = write_tiff(tmp_path / "a.tif", make_values(offset=1000), FILE_ORDER_12)
    kept, taken = (Scene.open(path, boa_offset=choice) for choice in (False, True))
    assert band_of(kept, "B8A").max() - band_of(taken, "B8A").max() == 1000
    assert kept.notes == ()


def test_the_cirrus_band_helps_to_see_that_there_is_no_offset(tmp_path):
    # A cloud: every band but B10 is bright, and the date leaves it open.
    values = make_values(FILE_ORDER_13)
    cirrus = FILE_ORDER_13.index("B10")
    bright = values + 1100
    bright[:, :, cirrus] = values[:, :, cirrus]
    scene = Scene.open(write_tiff(tmp_path / "a.tif", bright, FILE_ORDER_13))
    assert band_of(scene, "B08").max() == bright[:, :, FILE_ORDER_13.index("B08")].max()


@pytest.mark.parametrize(
    ("darkest", "date", "baseline", "taken_off", "says_how"),
    [
        (14, NEW, None, False, False),
        (850, NEW, None, False, False),  # haze, but below what the offset leaves
        (850, None, None, False, False),
        (1030, NEW, None, True, True),
        (2500, NEW, None, True, True),  # a newer cloud: the rule of the product
        (1030, OLD, None, False, True),  # in doubt: kept, and said
        (1700, OLD, None, False, False),  # an older cloud
        (1030, None, None, True, True),
        (1700, None, None, False, True),
        (1030, NEW, 301, False, True),  # the baseline outranks the date
    ],
)
def test_what_decides_about_the_offset(darkest, date, baseline, taken_off, says_how):
    decision, notes = decide_offset(darkest, date=date, baseline=baseline)
    assert decision is taken_off
    assert any("boa_offset=" in note for note in notes) is says_how


@needs_scenes
@pytest.mark.parametrize(
    "date", ["2020-01-13", "2020-01-18", "2020-02-02", "2020-09-14", "2021-07-16", "2022-03-08"]
)
def test_real_harmonised_scenes_are_left_as_they_are(date):
    path = Path(DATA, "scenes", f"boadella_{date}_L2A.tif")
    scene = Scene.open(path)
    with rasterio.open(path) as file:
        raw = file.read()
        names = file.descriptions
    for band in BANDS:
        np.testing.assert_array_equal(band_of(scene, band), raw[names.index(band)])
    assert scene.date == datetime.date.fromisoformat(date)
    assert (scene.longitude, scene.latitude) == pytest.approx((2.815, 42.3476), abs=1e-3)


@needs_scenes
@pytest.mark.parametrize("date", ["2020-02-02", "2021-07-16", "2022-03-08"])
@pytest.mark.parametrize("name", ["scene", "scene_20240301T105031"])
def test_the_offset_added_to_a_real_scene_is_taken_off(tmp_path, date, name):
    original = Scene.open(Path(DATA, "scenes", f"boadella_{date}_L2A.tif"))
    values = (original.reflectance + 1000).astype(np.uint16)
    scene = Scene.open(write_tiff(tmp_path / f"{name}.tif", values, BANDS))
    np.testing.assert_array_equal(scene.reflectance, original.reflectance)


# --- GeoTIFF: place and date ---------------------------------------------------------------------


def test_place_is_the_centre_in_degrees_from_any_projection(tmp_path):
    path = write_tiff(tmp_path / "a.tif", make_values(), FILE_ORDER_12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scene = Scene.open(path)
    # UTM 31N has its middle meridian, easting 500 km, at 3 degrees east.
    assert scene.longitude == pytest.approx(3.0, abs=1e-6)
    assert scene.latitude == pytest.approx(42.4527, abs=1e-3)


def test_without_projection_the_place_is_unknown_and_nothing_warns(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write_tiff(
            tmp_path / "a.tif", make_values(), FILE_ORDER_12, crs=None, transform=None
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scene = Scene.open(path)
    assert (scene.longitude, scene.latitude) == (None, None)
    assert "place unknown" in scene.summary()


def test_the_date_is_of_the_product_and_not_of_saving(tmp_path):
    tags = {"TIFFTAG_DATETIME": "2024:05:05 10:00:00"}
    named = tmp_path / "S2B_MSIL2A_20210308T105111.tif"
    scene = Scene.open(write_tiff(named, make_values(), FILE_ORDER_12, tags))
    assert scene.date == datetime.date(2021, 3, 8)
    scene = Scene.open(write_tiff(tmp_path / "a.tif", make_values(), FILE_ORDER_12, tags))
    assert scene.date is None


# --- ChatEarthNet triplets -----------------------------------------------------------------------


@pytest.mark.parametrize("level", ["s2_images", ""])
@pytest.mark.parametrize("folder", CHATEARTHNET_FOLDERS)
def test_any_png_of_a_triplet_opens_all_nine_bands(tmp_path, folder, level):
    pixels = write_triplet(tmp_path, level=level)
    inside = level if folder == "s2_rgb_images" else ""
    scene = Scene.open(tmp_path / folder / inside / "s2eu_0001.png")
    assert set(scene.bands) == set(pixels) and len(scene.bands) == 9
    for band, values in pixels.items():
        np.testing.assert_allclose(band_of(scene, band), values * EIGHT_BIT_SCALE[band], rtol=1e-5)
    assert scene.name == "s2eu_0001"
    assert not scene.is_rgb_only


@pytest.mark.parametrize("name", ["s2eu_0001.png", "s2eu_0001"])
def test_the_data_folder_and_a_name_open_a_triplet(tmp_path, name):
    write_triplet(tmp_path)
    by_name = Scene.open(tmp_path, name)
    by_path = Scene.open(tmp_path / "s2_band_5_6_7_images" / "s2eu_0001.png")
    np.testing.assert_array_equal(by_name.reflectance, by_path.reflectance)


@pytest.mark.parametrize("folder", CHATEARTHNET_FOLDERS)
def test_a_missing_partner_is_named(tmp_path, folder):
    write_triplet(tmp_path)
    missing = next((tmp_path / folder).rglob("s2eu_0001.png"))
    missing.unlink()
    with pytest.raises(FileNotFoundError, match=str(missing)):
        Scene.open(tmp_path, "s2eu_0001")


def test_a_triplet_of_two_sizes_and_a_placeholder_are_refused(tmp_path):
    write_triplet(tmp_path)
    odd = tmp_path / "s2_band_8_11_12_images" / "s2eu_0001.png"
    Image.new("RGB", (32, 16), "green").save(odd)
    with pytest.raises(ValueError, match="32 x 16 pixels in s2_band_8_11_12_images and 16 x 16"):
        Scene.open(odd)
    for colour in ("black", "white"):
        for path in tmp_path.rglob("s2eu_0001.png"):
            Image.new("RGB", (16, 16), colour).save(path)
        with pytest.raises(ValueError, match="no data in it"):
            Scene.open(odd)


def test_an_image_name_does_not_lead_out_of_the_folder(tmp_path):
    write_triplet(tmp_path)
    (tmp_path / "inner").mkdir()
    with pytest.raises(ValueError, match="not a plain image name"):
        Scene.open(tmp_path / "inner", "../../s2eu_0001.png")
    with pytest.raises(FileNotFoundError, match="no ChatEarthNet folder"):
        Scene.open(tmp_path / "nowhere", "s2eu_0001.png")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("1908_3064_patch00", (-96.1, 41.3)),  # Omaha
        ("5107_3291_patch11", (44.4, 33.3)),  # Baghdad
        ("4134_2853_patch01", (1.7, 47.9)),  # the Loire near Orleans
    ],
)
def test_names_of_chatearthnet_tell_the_place(tmp_path, name, place):
    assert locate_chatearthnet(name) == pytest.approx(place, abs=0.15)
    write_triplet(tmp_path, f"{name}.png")
    scene = Scene.open(tmp_path, name)
    assert (scene.longitude, scene.latitude) == locate_chatearthnet(name)


def test_quarters_of_a_tile_lie_where_their_digits_say():
    west, south_east = (locate_chatearthnet(f"4134_2853_patch{digits}") for digits in ("00", "11"))
    assert south_east[0] - west[0] == pytest.approx(360 / 2**14)
    assert south_east[1] < west[1]
    assert locate_chatearthnet("s2eu_0001") is None
    assert locate_chatearthnet("9000_3000_patch00") is None


@needs_practice
def test_real_triplet():
    folder = Path(DATA, "s2_practice")
    path = next((folder / "s2_band_8_11_12_images").glob("*.png"))
    scene = Scene.open(path)
    assert (scene.height, scene.width, len(scene.bands)) == (64, 64, 9)
    assert 0 < np.nanmedian(scene.reflectance) < 8000
    assert (scene.date, scene.longitude) == (None, None)


# --- RGB photos ----------------------------------------------------------------------------------


def make_photo(width=40, height=30, mode="RGB"):
    values = np.random.default_rng(2).integers(1, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize(
    ("suffix", "mode"), [("png", "RGB"), ("png", "RGBA"), ("tif", "RGB"), ("webp", "RGB")]
)
def test_a_photo_is_three_bands_and_says_that_it_sees_less(tmp_path, suffix, mode):
    path = tmp_path / f"photo.{suffix}"
    photo = make_photo(mode=mode)
    photo.save(path, **({"lossless": True} if suffix == "webp" else {}))
    scene = Scene.open(path)
    assert scene.is_rgb_only and set(scene.bands) == {"B02", "B03", "B04"}
    for index, band in enumerate(("B04", "B03", "B02")):
        expected = np.asarray(photo)[:, :, index] * (3558 / 255)
        np.testing.assert_allclose(band_of(scene, band), expected, rtol=1e-5)
    assert any("3 of 12 bands" in note for note in scene.notes)
    assert "3 of 12 bands" in scene.summary()
    assert scene.available_composites() == ("true colour",)


def test_jpeg_is_turned_as_its_orientation_says(tmp_path):
    photo = Image.new("RGB", (40, 24), "black")
    photo.paste("white", (0, 0, 20, 24))  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter to the right: the top half is white
    photo.save(tmp_path / "a.jpg", exif=exif)
    scene = Scene.open(tmp_path / "a.jpg")
    assert (scene.width, scene.height) == (24, 40)
    assert band_of(scene, "B03")[:15].min() > 3000 > 500 > band_of(scene, "B03")[25:].max()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_palette_photo_shows_its_colours(tmp_path, suffix):
    photo = Image.new("P", (20, 20), 0)
    photo.putpalette([255, 0, 0, 0, 0, 255, *range(60)])
    photo.paste(1, (0, 0, 10, 20))
    for colour in range(2, 20):  # fewer would be a map of classes
        photo.putpixel((colour, 0), colour)
    photo.save(tmp_path / f"a.{suffix}")
    scene = Scene.open(tmp_path / f"a.{suffix}")
    assert (band_of(scene, "B02")[1:, :10] == 3558).all()
    assert (band_of(scene, "B04")[1:, 10:] == 3558).all()
    assert not any("grey" in note for note in scene.notes)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_grey_photo_is_taken_with_a_note(tmp_path, suffix):
    make_photo(mode="L").save(tmp_path / f"a.{suffix}")
    scene = Scene.open(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(band_of(scene, "B02"), band_of(scene, "B04"))
    assert any("grey" in note for note in scene.notes)


def test_transparent_pixels_are_no_data(tmp_path):
    photo = make_photo(40, 40, "RGBA")
    photo.paste((9, 9, 9, 0), (0, 0, 40, 10))
    photo.save(tmp_path / "a.png")
    scene = Scene.open(tmp_path / "a.png")
    assert any(note.startswith("25% ") for note in scene.notes)
    assert band_of(scene, "B04")[0, 0] == np.median(band_of(scene, "B04")[10:])


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_large_photo_is_shrunk_with_a_note(tmp_path, suffix):
    make_photo(2000, 1000).save(tmp_path / f"a.{suffix}")
    scene = Scene.open(tmp_path / f"a.{suffix}")
    assert (scene.width, scene.height) == (1024, 512)
    assert any("2000 x 1000" in note for note in scene.notes)


def test_an_8_bit_geotiff_photo_keeps_its_place_and_date(tmp_path):
    path = tmp_path / "T31TDG_20210308T105111_TCI.tif"
    scene = Scene.open(write_tiff(path, np.asarray(make_photo()), photometric="RGB"))
    assert scene.is_rgb_only
    assert scene.longitude == pytest.approx(3.0, abs=1e-6)
    assert scene.date == datetime.date(2021, 3, 8)


# --- bad input -----------------------------------------------------------------------------------


def _truncated_png(folder):
    make_photo(200, 200).save(folder / "cut.png")
    data = (folder / "cut.png").read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    return folder / "cut.png"


def _truncated_tiff(folder):
    path = write_tiff(folder / "cut.tif", make_values(side=128), FILE_ORDER_12)
    path.write_bytes(path.read_bytes()[:100_000])
    return path


def _truncated_tiff_header(folder):
    path = folder / "stub.tif"
    path.write_bytes(b"II*\x00\x08\x00\x00\x00")
    return path


def _text(folder):
    (folder / "text.tif").write_text("B02,B03,B04\n1,2,3\n")
    return folder / "text.tif"


def _empty(folder):
    (folder / "empty.tif").touch()
    return folder / "empty.tif"


def _vrt(folder):
    source = write_tiff(folder / "a.tif", make_values(), FILE_ORDER_12)
    band = f"<SimpleSource><SourceFilename>{source}</SourceFilename></SimpleSource>"
    bands = f'<VRTRasterBand dataType="UInt16" band="1">{band}</VRTRasterBand>'
    path = folder / "a.vrt"
    path.write_text(f'<VRTDataset rasterXSize="32" rasterYSize="32">{bands}</VRTDataset>')
    return path


def _sparse_tiff(**kind):
    def write(folder):
        size = {"height": 30_000, "width": 30_000, **kind}
        tiles = {"tiled": True, "blockxsize": 2048, "blockysize": 2048, "sparse_ok": True}
        grid = {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 4.7e6)}
        with rasterio.open(folder / "huge.tif", "w", driver="GTiff", **size, **tiles, **grid):
            pass
        return folder / "huge.tif"

    return write


def _tiff(name, **options):
    def write(folder):
        values = make_values()
        for change in options.get("changes", ()):
            values = change(values)
        return write_tiff(folder / name, values, options.get("names"))

    return write


def _photo(width, height, mode="RGB"):
    def write(folder):
        make_photo(width, height, mode).save(folder / "a.png")
        return folder / "a.png"

    return write


def _black_photo(folder):
    Image.new("RGB", (40, 40)).save(folder / "a.png")
    return folder / "a.png"


def _deep_grey(folder):
    values = np.random.default_rng(3).integers(0, 60_000, (20, 20), dtype=np.uint16)
    Image.fromarray(values).save(folder / "a.png")
    return folder / "a.png"


def _mostly_nan(values):
    values = values.astype(np.float32)
    values[:20] = np.nan
    return values


BAD_FILES = {
    "truncated PNG": (_truncated_png, "damaged picture"),
    "truncated GeoTIFF": (_truncated_tiff, "is damaged"),
    "GeoTIFF of a few bytes": (_truncated_tiff_header, "is damaged"),
    "text named .tif": (_text, "not an image"),
    "zero bytes": (_empty, "0 bytes"),
    "GDAL's virtual format": (_vrt, "not an image"),
    "folder": (lambda folder: folder, "is a folder"),
    "PNG of 1 x 1": (_photo(1, 1), "is 1 x 1 pixels"),
    "PNG of 500 x 3": (_photo(500, 3), "is 500 x 3 pixels"),
    "PNG of 20000 x 10": (_photo(20_000, 10), "too narrow"),
    "PNG of 30000 x 30000": (lambda f: write_empty_png(f / "a.png", 30_000, 30_000), "pixels"),
    "PNG of 12000 x 10000": (
        lambda f: write_empty_png(f / "a.png", 12_000, 10_000),
        "has 12000 x 10000 pixels",
    ),
    "black PNG": (_black_photo, "no data in it"),
    "16-bit grey PNG": (_deep_grey, "more than 8 bits"),
    "GeoTIFF of 30000 x 30000": (_sparse_tiff(count=12, dtype="uint16"), "is 30000 x 30000 pixels"),
    "8-bit GeoTIFF of 30000 x 30000": (
        _sparse_tiff(count=3, dtype="uint8"),
        "has 30000 x 30000 pixels",
    ),
    "GeoTIFF of 1 x 1": (_tiff("a.tif", changes=[lambda v: v[:1, :1]]), "is 1 x 1 pixels"),
    "2 bands": (_tiff("a.tif", changes=[lambda v: v[:, :, :2]]), "has 2 bands"),
    "2 bands of 8 bits": (
        _tiff("a.tif", changes=[lambda v: (v[:, :, :2] // 20).astype(np.uint8)]),
        "has 2 bands",
    ),
    "11 bands": (_tiff("a.tif", changes=[lambda v: v[:, :, :11]]), "has 11 bands"),
    "12 bands of 8 bits": (
        _tiff("a.tif", changes=[lambda v: (v // 20).astype(np.uint8)]),
        "8-bit values",
    ),
    "8-bit values in 16 bits": (_tiff("a.tif", changes=[lambda v: v // 20]), "at most 1"),
    "no visible bands": (
        _tiff("a.tif", changes=[lambda v: v[:, :, :4]], names=["B05", "B06", "B07", "B08"]),
        "has no B02 or B03 or B04",
    ),
    "bands of another sensor": (
        _tiff("a.tif", changes=[lambda v: v[:, :, :3]], names=[f"SR_B{i}" for i in (2, 3, 4)]),
        "has no B02",
    ),
    "one band twice": (
        _tiff("a.tif", changes=[lambda v: v[:, :, :4]], names=["B02", "B03", "B04", "red"]),
        "B04 twice",
    ),
    "all zeros": (_tiff("a.tif", changes=[lambda v: v * 0], names=FILE_ORDER_12), "no data in it"),
    "constant": (_tiff("a.tif", changes=[lambda v: v * 0 + 900]), "no data in it"),
    "all NaN": (
        _tiff("a.tif", changes=[lambda v: (v * np.nan).astype(np.float32)]),
        "no data in it",
    ),
    "mostly NaN": (_tiff("a.tif", changes=[_mostly_nan]), "in only 38% of its pixels"),
    "normalised": (
        _tiff("a.tif", changes=[lambda v: (v / 1500.0 - 1).clip(-1, 1).astype(np.float32)]),
        "many negative values",
    ),
    "complex numbers": (_tiff("a.tif", changes=[lambda v: v.astype(np.complex64)]), "complex"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_in_one_sentence(tmp_path, case):
    write, words = BAD_FILES[case]
    path = write(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=words) as caught:
            Scene.open(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    assert path.name in message


@pytest.mark.parametrize("path", ["nowhere.tif", "/vsicurl/http://127.0.0.1/a.tif", "a\x00b.tif"])
def test_what_does_not_exist_is_not_found(path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        Scene.open(path)


def test_nothing_but_the_sentence_reaches_the_screen(tmp_path):
    paths = [_truncated_tiff(tmp_path), _truncated_png(tmp_path), _text(tmp_path)]
    code = (
        "import sys\nfrom earthvlm.scenes.scene import Scene\nfor path in sys.argv[1:]:\n"
        "    try:\n        Scene.open(path)\n    except ValueError:\n        pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- arrays --------------------------------------------------------------------------------------


def test_from_array_places_bands_by_name_and_copies():
    order = ("B8A", "B4", "b03", "B02")
    values = make_values(("B8A", "B04", "B03", "B02"))
    scene = Scene.from_array(values, order, date=OLD, longitude=1.5, latitude=-2.5, name="x")
    assert scene.bands == ("B02", "B03", "B04", "B8A")
    np.testing.assert_array_equal(band_of(scene, "B8A"), values[:, :, 0])
    assert (scene.date, scene.longitude, scene.latitude, scene.name) == (OLD, 1.5, -2.5, "x")
    before = band_of(scene, "B8A").copy()
    values[:] = 0
    np.testing.assert_array_equal(band_of(scene, "B8A"), before)


def test_from_array_recognises_fractions_and_leaves_its_input_alone():
    values = (make_values() / 10_000).astype(np.float32)
    original = values.copy()
    scene = Scene.from_array(values, FILE_ORDER_12)
    assert band_of(scene, "B08").max() > 2500
    assert any("multiplied by 10000" in note for note in scene.notes)
    np.testing.assert_array_equal(values, original)


def test_from_array_asks_about_the_offset_and_takes_it_off_on_demand():
    values = make_values(offset=1000)
    asked = Scene.from_array(values, FILE_ORDER_12)
    assert band_of(asked, "B08").max() > 4000
    assert any("boa_offset=True" in note for note in asked.notes)
    assert Scene.from_array(values, FILE_ORDER_12, boa_offset=False).notes == ()
    taken = Scene.from_array(values, FILE_ORDER_12, boa_offset=True)
    assert band_of(asked, "B08").max() - band_of(taken, "B08").max() == 1000
    assert Scene.from_array(make_values(), FILE_ORDER_12, date=NEW).notes == ()


@pytest.mark.parametrize(
    ("values", "bands", "words"),
    [
        (make_values(), ("B02", "B03", "B04"), "12 band names|3 band names"),
        (make_values()[:, :, 0], ("B02",), "shape"),
        (make_values()[:, :, :3], ("B02", "B03", "B13"), "'B13' is no band"),
        (make_values()[:, :, :3], ("B02", "B03", "B2"), "at least 3 different"),
        (make_values()[:, :, :2], ("B02", "B03"), "at least 3 different"),
        (make_values() * 0, FILE_ORDER_12, "no data in it"),
        (make_values() * np.nan, FILE_ORDER_12, "no data in it"),
        (make_values()[:4], FILE_ORDER_12, "at least 8 x 8"),
        (np.zeros((8, 2049, 3)), ("B02", "B03", "B04"), "at most 2048"),
        (make_values().astype(str), FILE_ORDER_12, "not numbers"),
    ],
)
def test_bad_arrays_are_refused(values, bands, words):
    with pytest.raises(ValueError, match=words):
        Scene.from_array(values, bands)


def test_a_scene_made_by_hand_is_checked():
    with pytest.raises(ValueError, match="Scene.from_array"):
        Scene(np.zeros((16, 16, 3), np.float32))
    with pytest.raises(ValueError, match="Scene.from_array"):
        Scene(np.zeros((16, 16, 12)))
    values = np.ones((16, 16, 12), np.float32)
    values[3, 3, 5] = np.nan
    with pytest.raises(ValueError, match="NaN in part of a band"):
        Scene(values)


# --- drawing, words and saving -------------------------------------------------------------------


@pytest.fixture
def lake():
    return Scene.from_array(
        make_values(), FILE_ORDER_12, date=OLD, longitude=2.815, latitude=-42.35, name="lake"
    )


def test_composites_show_what_they_stand_for(lake):
    water, land = (slice(None), slice(0, 16)), (slice(None), slice(16, 32))
    true_colour, infrared, short_wave, ndvi = (
        np.asarray(lake.composite(name)).astype(float) for name in lake.available_composites()
    )
    assert true_colour.shape == (32, 32, 3)
    assert lake.composite().mode == "RGB"
    red, green, blue = (true_colour[:, :, channel] for channel in range(3))
    assert green[land].mean() > max(red[land].mean(), blue[land].mean())  # meadow is green
    assert blue[water].mean() > red[water].mean() + 10  # a lake is bluish
    assert true_colour[water].mean() < 60 < true_colour[land].mean()
    assert infrared[land][:, :, 0].mean() > infrared[land][:, :, 1].mean() + 50  # plants are red
    assert short_wave[water].mean() < 10  # water is black
    assert ndvi[land][:, :, 1].mean() > ndvi[land][:, :, 0].mean() + 30  # plants are green
    assert ndvi[water][:, :, 2].mean() > ndvi[water][:, :, 0].mean()  # water is bluish


def test_the_stretch_uses_the_whole_range_and_ignores_a_glint(lake):
    values = make_values()
    values[0, 0] = 15_000
    glint = Scene.from_array(values, FILE_ORDER_12)
    for scene in (lake, glint):
        picture = np.asarray(scene.composite())
        assert picture.min() < 40 and picture.max() > 200
        assert np.median(picture[:, 16:]) > 60


def test_sea_without_contrast_is_not_drawn_as_noise():
    noise = np.random.default_rng(5).integers(300, 320, (32, 32, 12))
    picture = np.asarray(Scene.from_array(noise.astype(np.uint16), FILE_ORDER_12).composite())
    assert np.ptp(picture) < 40


def test_short_wave_composite_takes_b08_where_b8a_is_missing(lake):
    nine = tuple(band for band in FILE_ORDER_12 if band not in ("B8A", "B01", "B09"))
    scene = Scene.from_array(make_values(nine), nine)
    assert "short-wave infrared" in scene.available_composites()
    assert scene.composite("short-wave infrared").size == (32, 32)


def test_a_composite_that_cannot_be_drawn_names_what_is_missing():
    order = ("B02", "B03", "B04")
    scene = Scene.from_array(make_values(order), order)
    with pytest.raises(ValueError, match="lacks B08 for NDVI"):
        scene.composite("NDVI")
    with pytest.raises(ValueError, match="lacks B12, B8A for short-wave infrared"):
        scene.composite("short-wave infrared")
    with pytest.raises(ValueError, match="known are true colour"):
        scene.composite("thermal")


def test_thumbnail_keeps_proportions_and_needs_no_visible_bands():
    scene = Scene.from_array(make_values()[:16], FILE_ORDER_12)
    assert scene.thumbnail(16).size == (16, 8)
    order = ("B05", "B06", "B07")
    assert Scene.from_array(make_values(order), order).thumbnail().size == (32, 32)


def test_summary_is_one_line_of_size_bands_date_and_place(lake):
    words = "32 x 32 pixels, all 12 bands, 1 July 2021, 42.350° S 2.815° E"
    assert lake.summary() == words
    order = ("B02", "B03", "B04", "B08")
    partial = Scene.from_array(make_values(order), order).summary()
    assert "4 of 12 bands (without B05" in partial and "date unknown" in partial


def test_a_saved_scene_opens_to_the_same_scene(tmp_path, lake):
    lake.save(tmp_path / "lake.tif")
    again = Scene.open(tmp_path / "lake.tif")
    np.testing.assert_array_equal(again.reflectance, lake.reflectance)
    for attribute in ("date", "longitude", "latitude", "name", "bands", "notes"):
        assert getattr(again, attribute) == getattr(lake, attribute)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a saved scene has no grid
        file = rasterio.open(tmp_path / "lake.tif")
    with file:
        assert set(file.dtypes) == {"uint16"} and file.descriptions == BANDS


def test_saving_keeps_missing_bands_missing_and_guesses_nothing(tmp_path):
    order = ("B02", "B03", "B04", "B08")
    cloud = Scene.from_array(make_values(order, offset=1000), order, date=NEW, boa_offset=False)
    cloud.reflectance[0, 0, :4] = 0  # zero in every band, and a value all the same
    cloud.save(tmp_path / "cloud.tif")
    again = Scene.open(tmp_path / "cloud.tif")
    np.testing.assert_array_equal(again.reflectance, cloud.reflectance)
    assert again.bands == order and again.notes == ()


def test_a_scene_without_visible_bands_can_be_saved_and_opened(tmp_path):
    order = ("B05", "B06", "B07")
    scene = Scene.from_array(make_values(order), order)
    scene.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(Scene.open(tmp_path / "a.tif").reflectance, scene.reflectance)


def test_a_saved_photo_stays_a_photo(tmp_path):
    make_photo().save(tmp_path / "photo.png")
    Scene.open(tmp_path / "photo.png").save(tmp_path / "photo.tif")
    again = Scene.open(tmp_path / "photo.tif")
    assert again.is_rgb_only
    original = band_of(Scene.open(tmp_path / "photo.png"), "B03")
    assert np.abs(band_of(again, "B03") - original).max() <= 0.5


def test_saving_into_no_folder_is_refused(tmp_path, lake):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        lake.save(tmp_path / "nowhere" / "lake.tif")
