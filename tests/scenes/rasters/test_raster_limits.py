"""Small files that would decode to much memory are refused by their headers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
import rasterio

from earthvlm.scenes.rasters.raster_file import quiet_gdal
from earthvlm.scenes.rasters.raster_limits import check_blocks
from earthvlm.scenes.scene import Scene
from earthvlm.scenes.tiling import TiledRaster
from tests.conftest import random_scene
from tests.support.made_tiffs import write_directory, write_tiff

BLOCKS = "stored in blocks of .* smaller tiles"
# Each takes over 256 MiB where it is not refused, and not so much that the machine would suffer.
BOMBS = {
    "tile": ([write_directory(64, tile=4096)], BLOCKS),
    "strip": ([write_directory(2048, bands=40)], BLOCKS),
    "overview": (
        [write_directory(2048, 3, 8, 256), write_directory(1024, 3, 8, 10240, overview=True)],
        BLOCKS,
    ),
    "bands": ([write_directory(16, bands=3000)], "3,000 bands; give a file of at most 100"),
    "directories": ([write_directory(16)] * 40, "more than 32 images"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_raster_bombs_are_refused_by_their_headers(tmp_path: Path, name: str):
    directories, sentence = BOMBS[name]
    path = tmp_path / f"{name}.tif"
    path.write_bytes(write_tiff(directories))
    with pytest.raises(ValueError, match=sentence):
        Scene.open(path)
    with pytest.raises(ValueError, match=sentence):
        next(TiledRaster(path, "large").tiles())


def test_a_strip_of_a_whole_scene_is_accepted(tmp_path: Path):
    path = tmp_path / "whole.tif"
    path.write_bytes(write_tiff([write_directory(2048, bands=13)]))
    with quiet_gdal(), rasterio.open(path) as file:
        assert file.block_shapes[0] == (2048, 2048)
        check_blocks(file, path)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("name", [b"iCCP", b"zTXt"])
def test_exploding_png_metadata_takes_little_memory(tmp_path: Path, name: bytes):
    header = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    packed = name + b"\x00\x00" + zlib.compress(bytes(100_000_000), 9)
    pixels = zlib.compress(bytes(range(49)) * 16)
    chunks = [(b"IHDR", header), (name, packed), (b"IDAT", pixels), (b"IEND", b"")]
    path = tmp_path / "small.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks))
    tracemalloc.start()
    with contextlib.suppress(ValueError):
        Scene.open(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows forks no process")
def test_forked_process_reads_what_its_parent_read(tmp_path):
    """GDAL's threads, which decode blocks, do not survive a fork."""
    random_scene(160, 130).save(tmp_path / "a.tif")
    Scene.open(tmp_path / "a.tif")
    context = multiprocessing.get_context("fork")
    process = context.Process(target=Scene.open, args=(tmp_path / "a.tif",))
    process.start()
    process.join(60)
    process.kill()
    process.join()
    assert process.exitcode == 0
