"""Time and memory of opening a whole Sentinel-2 product, and a window of it from an address.

    python -m benchmarks.products --folder made_product     # makes the product first: 4 minutes

The product is made: twelve lossless JPEG 2000 bands of a whole tile, 10,980 x 10,980 pixels of 10
m, noise at all scales, in ESA's folders with ESA's metadata file, in a zip archive (stored and
deflated), and as one tiled GeoTIFF with overviews, which a local server gives out by ranges.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

from earthvlm.scenes.bands import FILE_ORDER_12
from earthvlm.scenes.scene import Scene
from earthvlm.scenes.tiling import TiledRaster
from tests.support.stac_server import serve_stac

NAME = "S2B_MSIL2A_20230716T105629_N0509_R094_T31TDG_20230716T134210"
SIDE = 10_980
METRES = {
    **dict.fromkeys(("B02", "B03", "B04", "B08"), 10),
    **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 20),
    **dict.fromkeys(("B01", "B09"), 60),
}
METADATA = """<?xml version="1.0"?><n1:Level-2A_User_Product xmlns:n1="https://example.org/S2">
<PRODUCT_START_TIME>2023-07-16T10:56:29.024Z</PRODUCT_START_TIME>
<PRODUCT_URI>{name}.SAFE</PRODUCT_URI><PROCESSING_LEVEL>Level-2A</PROCESSING_LEVEL>
<PROCESSING_BASELINE>05.09</PROCESSING_BASELINE>
<BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
<BOA_ADD_OFFSET_VALUES_LIST>{offsets}</BOA_ADD_OFFSET_VALUES_LIST></n1:Level-2A_User_Product>"""


def make_noise(side: int, seed: int) -> np.ndarray:
    """Noise at all scales above the +1000 offset, uint16 `[side, side]`."""
    random = np.random.default_rng(seed)
    values = np.full((side, side), 1300.0, np.float32)
    for cells in (6, 24, 96, 384, 1536):
        coarse = random.random((cells, cells), np.float32)
        index = np.arange(side) * cells // side
        values += coarse[np.ix_(index, index)] * (900 / np.sqrt(cells))
    return (values + random.random((side, side), np.float32) * 60).astype(np.uint16)


def make_product(folder: Path, side: int = SIDE) -> None:
    """Write the .SAFE folder, its two archives and the GeoTIFF."""
    import rasterio

    safe = folder / f"{NAME}.SAFE"
    images = safe / "GRANULE" / "L2A_T31TDG_A033211_20230716T105902" / "IMG_DATA"
    for seed, (band, metres) in enumerate(METRES.items()):
        path = images / f"R{metres}m" / f"T31TDG_20230716T105629_{band}_{metres}m.jp2"
        if path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = make_noise(side * 10 // metres, seed)
        options = {"QUALITY": "100", "REVERSIBLE": "YES", "RESOLUTIONS": "6"}
        grid = rasterio.Affine(metres, 0, 399_960, 0, -metres, 4_700_040)
        with rasterio.open(
            path, "w", driver="JP2OpenJPEG", count=1, height=len(pixels), width=len(pixels),
            dtype="uint16", crs="EPSG:32631", transform=grid, **options,
        ) as file:  # fmt: skip
            file.write(pixels, 1)
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{i}">-1000</BOA_ADD_OFFSET>' for i in range(13))
    (safe / "MTD_MSIL2A.xml").write_text(METADATA.format(name=NAME, offsets=offsets))
    for name, packing in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        if (folder / f"{name}.zip").is_file():
            continue
        with zipfile.ZipFile(folder / f"{name}.zip", "w", packing, compresslevel=1) as archive:
            for path in sorted(path for path in safe.rglob("*") if path.is_file()):
                archive.write(path, path.relative_to(folder))
    write_cog(folder / "cog.tif", side)


def write_cog(path: Path, side: int) -> None:
    """Write twelve bands as a tiled GeoTIFF with overviews."""
    import rasterio
    from rasterio.enums import Resampling

    if path.is_file():
        return
    grid = rasterio.Affine(10, 0, 399_960, 0, -10, 4_700_040)
    with rasterio.open(
        path, "w", driver="GTiff", count=12, height=side, width=side, dtype="uint16", tiled=True,
        blockxsize=512, blockysize=512, interleave="band", compress="deflate", zlevel=1,
        crs="EPSG:32631", transform=grid, BIGTIFF="YES",
    ) as file:  # fmt: skip
        for number, band in enumerate(FILE_ORDER_12, start=1):
            file.write(make_noise(side, number), number)
            file.set_band_description(number, band)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8, 16, 32], Resampling.average)


def measure(task: str, target: str) -> dict[str, float]:
    """Run one task in this process, and return seconds, and the largest memory in MiB."""
    import rasterio.warp  # noqa: F401 - loaded before the time starts, as in a running program

    usage = resource.getrusage(resource.RUSAGE_SELF)
    before, used = usage.ru_maxrss, usage.ru_utime + usage.ru_stime
    start = time.perf_counter()
    result: dict[str, float] = {}
    if task == "overview":
        Scene.open(target)
    elif task == "window":
        Scene.open(target, window=(5000, 5000, 256, 256))
    else:
        result["tiles"] = sum(1 for _ in TiledRaster(Path(target), "tile").tiles())
    result["seconds"] = round(time.perf_counter() - start, 2)
    after = resource.getrusage(resource.RUSAGE_SELF)
    result["processor_seconds"] = round(after.ru_utime + after.ru_stime - used, 2)
    return result | {"megabytes": after.ru_maxrss // 1024, "megabytes_before": before // 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="of the product, 4 GB")
    parser.add_argument("--one", nargs=2, metavar=("TASK", "TARGET"), help=argparse.SUPPRESS)
    parser.add_argument("--tiles", action="store_true", help="also cut all 1,849 tiles, in minutes")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    make_product(arguments.folder)
    safe = str(arguments.folder / f"{NAME}.SAFE")
    runs = [
        (task, str(target))
        for target in (safe, arguments.folder / "stored.zip", arguments.folder / "deflated.zip")
        for task in ("overview", "window")
    ]
    if arguments.tiles:
        runs += [("tiles", safe), ("tiles", str(arguments.folder / "cog.tif"))]
    for task, target in runs:
        print(task, Path(target).name[-24:], json.dumps(run_alone(arguments.folder, task, target)))
    with serve_stac(arguments.folder) as server:
        for task in ("window", "overview"):
            before = server.bytes_sent
            found = run_alone(arguments.folder, task, f"{server.address}/cog.tif")
            found["megabytes_sent"] = round((server.bytes_sent - before) / 1e6, 2)
            print(task, "from an address", json.dumps(found))


def run_alone(folder: Path, task: str, target: str) -> dict[str, float]:
    """Measure in a process of its own, whose largest memory is this task's."""
    command = [sys.executable, "-m", "benchmarks.products", "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--one", task, target], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
