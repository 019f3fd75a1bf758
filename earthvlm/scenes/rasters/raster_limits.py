"""Bounds on a raster file's layout, checked before GDAL reads any of its pixels.

A block (tile or strip) is decoded whole, whatever part of it the image uses, so a file of a few
hundred bytes can ask for gigabytes although its image is small.
"""

from __future__ import annotations

import os
import struct
from typing import IO, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import rasterio

MAX_FILE_BANDS = 100
# A 13-band 16-bit scene of 2048 x 2048 pixels written as one strip takes 109 MB, one of 32-bit
# floats 218 MB.
MAX_BLOCK_BYTES = 256 * 2**20
# The image, its mask and its overviews: ten levels halve 2048 pixels to 2.
MAX_DIRECTORIES = 32
GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no side files
    "GDAL_PAM_ENABLED": "NO",
    # Of rasters behind addresses: give up in time, try again what fails for a moment, and fetch no
    # more than is needed.
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_TIMEOUT": 60,
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    # JPEG 2000 is decoded in as many threads as there are processors, if nothing else is said.
    "GDAL_NUM_THREADS": os.environ.get("GDAL_NUM_THREADS", "2"),
    "GDAL_CACHEMAX": 64,  # MB, for all files together; GDAL's default is 5 % of the memory
}
# A forked process, such as a worker of a data loader, lacks the threads of its parent's GDAL and
# would wait for them without end.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: GDAL_OPTIONS.update(GDAL_NUM_THREADS="1"))


def check_directories(file: IO[bytes], name: str) -> None:
    """Raise ValueError for a TIFF of more than MAX_DIRECTORIES images, overviews and masks.

    GDAL walks all of them when it opens the file. Damage is left to GDAL, which reports it.
    """
    start = file.read(16)
    order = ">" if start[:2] == b"MM" else "<"
    if start[:4] in (b"II*\x00", b"MM\x00*"):
        count_form, entry_bytes, next_form, at = "H", 12, "I", 4
    elif start[:4] in (b"II+\x00", b"MM\x00+"):
        count_form, entry_bytes, next_form, at = "Q", 20, "Q", 8
    else:
        return

    def read_number(form: str, at: int) -> int:
        file.seek(at)
        return struct.unpack(order + form, file.read(struct.calcsize(form)))[0]

    try:
        at = read_number(next_form, at)
        for _ in range(MAX_DIRECTORIES):
            entries = read_number(count_form, at)
            at = read_number(next_form, at + struct.calcsize(count_form) + entry_bytes * entries)
            if not at:
                return
    except (struct.error, OSError, ValueError, OverflowError):
        return
    raise ValueError(
        f"'{name}' holds more than {MAX_DIRECTORIES} images; "
        "save the one that is meant as a file of its own"
    )


def check_blocks(file: rasterio.DatasetReader, name: str) -> None:
    """Raise ValueError for too many bands, and for a block of more than MAX_BLOCK_BYTES decoded.

    Overviews are checked too, since a reduced read decodes their blocks.
    """
    import rasterio

    if file.count > MAX_FILE_BANDS:
        raise ValueError(
            f"'{name}' has {file.count:,} bands; give a file of at most {MAX_FILE_BANDS}"
        )
    _check_block_sizes(file, name)
    for level in range(len(file.overviews(1))):
        with rasterio.open(file.name, driver=file.driver, overview_level=level) as overview:
            _check_block_sizes(overview, name)


def _check_block_sizes(file: rasterio.DatasetReader, name: str) -> None:
    value_bytes = max(np.dtype(dtype).itemsize for dtype in file.dtypes)
    # Bands that are interleaved by pixel are decoded together.
    together = 1 if file.profile.get("interleave") == "band" else file.count
    for height, width in file.block_shapes:
        if height * width * together * value_bytes > MAX_BLOCK_BYTES:
            raise ValueError(
                f"'{name}' is stored in blocks of {width} x {height} pixels, of which one "
                f"takes more than {MAX_BLOCK_BYTES // 2**20} MiB of memory; save it with smaller "
                "tiles, such as 256 x 256"
            )
