"""Scenes that cannot be read are refused in one sentence, before a model is loaded."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from earthvlm.cli import main
from earthvlm.scenes.bands import FILE_ORDER_12
from tests.cli.support import assert_one_sentence
from tests.support.generated_chatearthnet import write_generated_chatearthnet


def write_png_header(path: Path, side: int) -> None:
    """A PNG that declares its size and holds almost no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def write_geotiff(path: Path, values: np.ndarray | None, **profile: object) -> None:
    """Write `[C, H, W]` values, or only the header of a file where there are none."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    if values is not None:
        count, height, width = values.shape
        profile |= {"count": count, "height": height, "width": width, "dtype": values.dtype.name}
    with pytest.warns(NotGeoreferencedWarning):  # noqa: PT031  writing warns as it closes
        with rasterio.open(path, "w", driver="GTiff", **profile) as file:
            if values is not None:
                file.write(values)
                if len(values) == len(FILE_ORDER_12):
                    file.descriptions = FILE_ORDER_12


def write_not_an_image(folder: Path) -> Path:
    (folder / "noise.png").write_bytes(bytes(range(256)) * 8)
    return folder / "noise.png"


def write_truncated_png(folder: Path) -> Path:
    path = folder / "truncated.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def write_truncated_tif(folder: Path) -> Path:
    path = folder / "truncated.tif"
    noise = np.random.default_rng(0).integers(100, 4000, (12, 64, 64), dtype=np.uint16)
    write_geotiff(path, noise)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def write_text_tif(folder: Path) -> Path:
    (folder / "text.tif").write_text("This is a shopping list: bread, milk.\n" * 20)
    return folder / "text.tif"


def write_empty_file(folder: Path) -> Path:
    (folder / "empty.tif").touch()
    return folder / "empty.tif"


def write_lone_triplet_png(folder: Path) -> Path:
    write_generated_chatearthnet(folder, train=1, val=0)
    (folder / "s2_band_8_11_12_images" / "generated_0000.png").unlink()
    return folder / "s2_band_5_6_7_images" / "generated_0000.png"


def write_one_pixel_png(folder: Path) -> Path:
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    return folder / "one.png"


def write_one_pixel_tif(folder: Path) -> Path:
    write_geotiff(folder / "one.tif", np.full((12, 1, 1), 900, np.uint16))
    return folder / "one.tif"


def write_huge_png(folder: Path) -> Path:
    write_png_header(folder / "huge.png", 30_000)
    return folder / "huge.png"


def write_huge_tif(folder: Path) -> Path:
    side = {"height": 30_000, "width": 30_000}
    layout = {"SPARSE_OK": "TRUE", "tiled": True, "blockxsize": 512, "blockysize": 512}
    write_geotiff(folder / "huge.tif", None, count=12, dtype="uint16", **side, **layout)
    return folder / "huge.tif"


def write_nan(folder: Path) -> Path:
    write_geotiff(folder / "nan.tif", np.full((12, 32, 32), np.nan, np.float32))
    return folder / "nan.tif"


def write_zeros(folder: Path) -> Path:
    write_geotiff(folder / "zeros.tif", np.zeros((12, 32, 32), np.uint16))
    return folder / "zeros.tif"


def write_two_bands(folder: Path) -> Path:
    write_geotiff(folder / "two.tif", np.full((2, 32, 32), 900, np.uint16))
    return folder / "two.tif"


BAD_SCENES = {
    "not an image": (write_not_an_image, "noise.png"),
    "truncated PNG": (write_truncated_png, "truncated.png"),
    "truncated GeoTIFF": (write_truncated_tif, "truncated.tif"),
    "text named .tif": (write_text_tif, "text.tif"),
    "empty file": (write_empty_file, "empty.tif"),
    "missing partner of a triplet": (write_lone_triplet_png, "s2_band_8_11_12_images"),
    "1 x 1 PNG": (write_one_pixel_png, "one.png"),
    "1 x 1 GeoTIFF": (write_one_pixel_tif, "one.tif"),
    "30,000 x 30,000 PNG": (write_huge_png, "huge.png"),
    "30,000 x 30,000 GeoTIFF": (write_huge_tif, "huge.tif"),
    "all NaN": (write_nan, "nan.tif"),
    "all zeros": (write_zeros, "zeros.tif"),
    "2 bands": (write_two_bands, "two.tif"),
    "a folder": (lambda folder: folder, "folder"),
    "no such file": (lambda folder: folder / "missing.tif", "missing.tif"),
}


@pytest.mark.parametrize("kind", BAD_SCENES)
@pytest.mark.parametrize("command", [["describe"], ["search", "--scene"]])
def test_a_scene_that_cannot_be_read_is_refused(kind, command, no_model, tmp_path, capfd):
    write, named = BAD_SCENES[kind]
    path = write(tmp_path)
    assert_one_sentence(main([*command, str(path)]), capfd.readouterr(), named)
