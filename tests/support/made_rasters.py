"""Rasters, pictures and ChatEarthNet triplets with known pixels, written to files."""

from __future__ import annotations

import datetime
import struct
import zlib

import numpy as np
import rasterio
from PIL import Image

from earthvlm.scenes.bands import BANDS, CHATEARTHNET_FOLDERS, FILE_ORDER_12
from earthvlm.scenes.scene import Scene

OLD, NEW = datetime.date(2021, 7, 1), datetime.date(2023, 7, 1)  # before and after the +1000 offset
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
    """A lake to the left of a meadow, with some texture: uint16 `[H, W, C]`."""
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
    """A PNG whose header claims width x height one-bit pixels, with almost no data."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\x00")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def make_photo(width=40, height=30, mode="RGB"):
    values = np.random.default_rng(2).integers(1, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def make_lake() -> Scene:
    """Return a named scene of a lake and a meadow, with a date and a place."""
    return Scene.from_array(
        make_values(), FILE_ORDER_12, date=OLD, longitude=2.815, latitude=-42.35, name="lake"
    )
