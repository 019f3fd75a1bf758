"""Files that cannot be read are refused in one sentence."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import rasterio
from PIL import Image

from earthvlm.scenes.bands import (
    FILE_ORDER_12,
)
from earthvlm.scenes.scene import Scene
from tests.support.made_rasters import make_photo, make_values, write_empty_png, write_tiff


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
    "GeoTIFF of 30000 x 30000": (
        _sparse_tiff(count=12, dtype="uint16"),
        "is 30,000 x 30,000 pixels",
    ),
    "8-bit GeoTIFF of 30000 x 30000": (
        _sparse_tiff(count=3, dtype="uint8"),
        "is 30,000 x 30,000 pixels",
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
        "has a band 'SR_B2', which",
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
def test_missing_files_are_reported(path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        Scene.open(path)


def test_readers_print_nothing(tmp_path):
    paths = [_truncated_tiff(tmp_path), _truncated_png(tmp_path), _text(tmp_path)]
    code = (
        "import sys\nfrom earthvlm.scenes.scene import Scene\nfor path in sys.argv[1:]:\n"
        "    try:\n        Scene.open(path)\n    except ValueError:\n        pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
