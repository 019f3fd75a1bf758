"""Time and memory of opening a whole Sentinel-2 product, and a window of it from an address.

    python -m benchmarks.products --folder made_product                 # makes it first: 4 minutes
    python -m benchmarks.products --folder made_product --part addresses

The product is made: twelve lossless JPEG 2000 bands of a whole tile, 10,980 x 10,980 pixels of 10
m, and their coarser copies, noise at all scales, in ESA's folders with ESA's metadata file, in a
zip archive (stored and deflated), as one tiled GeoTIFF with overviews, and as a STAC item with a
GeoTIFF for each band, which a local server gives out and counts requests and bytes of.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from earthvlm.scenes.bands import FILE_ORDER_12
from earthvlm.scenes.scene import Scene
from earthvlm.scenes.tiling import TiledRaster
from tests.support.stac_server import serve_stac

NAME = "S2B_MSIL2A_20230716T105629_N0509_R094_T31TDG_20230716T134210"
SIDE = 10_980
BLOCK = 512  # pixels a side, of a GeoTIFF's blocks
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
    """Noise at all scales above the +1000 offset, uint16 `[side, side]`; moved on for each seed."""
    return np.roll(_make_noise(side), 97 * seed, axis=1)


@lru_cache(maxsize=1)
def _make_noise(side: int) -> np.ndarray:
    random = np.random.default_rng(0)
    values = np.full((side, side), 1300.0, np.float32)
    for cells in (6, 24, 96, 384, 1536):
        coarse = random.random((cells, cells), np.float32)
        index = np.arange(side) * cells // side
        values += coarse[np.ix_(index, index)] * (900 / np.sqrt(cells))
    return (values + random.random((side, side), np.float32) * 60).astype(np.uint16)


def make_product(folder: Path, side: int = SIDE, with_copies: bool = True) -> None:
    """Write the .SAFE folder, its two archives and the GeoTIFF."""
    import rasterio

    safe = folder / f"{NAME}.SAFE"
    images = safe / "GRANULE" / "L2A_T31TDG_A033211_20230716T105902" / "IMG_DATA"
    sizes = [
        (seed, band, metres)
        for metres in (10, 20, 60)
        for seed, (band, finest) in enumerate(METRES.items())
        # Copies as level 2A has them: of all bands but B08.
        if metres == finest or (with_copies and metres > finest and band != "B08")
    ]
    for seed, band, metres in sizes:
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


def write_item(folder: Path, side: int = SIDE) -> None:
    """Write a STAC item as Earth Search has it, with a tiled GeoTIFF with overviews for each band.

    All bands of a size are links to one file of noise, as requests and bytes depend on the sizes.
    """
    assets = {}
    for band, metres in METRES.items():
        pixels = folder / f"{metres}m.tif"
        if not pixels.is_file():
            write_cog(pixels, ["noise"], side * 10 // metres, metres)
        link = folder / f"{band}_{metres}m.tif"
        if not link.is_file():
            link.hardlink_to(pixels)
        assets[band] = {
            "href": f"./{link.name}",
            "type": "image/tiff",
            "eo:bands": [{"name": band}],
            "raster:bands": [{"scale": 0.0001, "offset": -0.1}],
        }
    properties = {
        "datetime": "2023-07-16T10:56:29Z",
        "platform": "sentinel-2b",
        "s2:processing_baseline": "05.09",
        "earthsearch:boa_offset_applied": True,  # so that no samples are needed
    }
    item = {"type": "Feature", "stac_version": "1.0.0", "id": NAME, "collection": "sentinel-2-l2a"}
    (folder / "item.json").write_text(
        json.dumps({**item, "properties": properties, "assets": assets, "links": []})
    )


def write_cog(path: Path, bands: list[str], side: int, metres: int = 10) -> None:
    """Write bands as a tiled GeoTIFF with overviews; its blocks repeat one of noise."""
    import rasterio
    from rasterio.enums import Resampling

    if path.is_file():
        return
    grid = rasterio.Affine(metres, 0, 399_960, 0, -metres, 4_700_040)
    times = -(-side // BLOCK)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=side, width=side, dtype="uint16",
        tiled=True, blockxsize=BLOCK, blockysize=BLOCK, interleave="band", compress="zstd",
        zstd_level=1, predictor=2, crs="EPSG:32631", transform=grid, BIGTIFF="YES",
    ) as file:  # fmt: skip
        for number, band in enumerate(bands, start=1):
            file.write(np.tile(make_noise(BLOCK, number), (times, times))[:side, :side], number)
            file.set_band_description(number, band)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8, 16, 32], Resampling.average)


def measure(task: str, target: str) -> dict[str, float]:
    """Run one task in this process, and return seconds, and the largest memory in MiB."""
    import rasterio.warp  # noqa: F401 - loaded before the time starts, as in a running program

    usage = resource.getrusage(resource.RUSAGE_SELF)
    before, used = read_peak(), usage.ru_utime + usage.ru_stime
    start = time.perf_counter()
    result: dict[str, float] = {}
    if task == "overview":
        Scene.open(target)
    elif task == "window":
        Scene.open(target, window=(5000, 5000, 256, 256))
    elif task == "window in a block":
        Scene.open(target, window=(5200, 5200, 256, 256))
    else:
        result["tiles"] = sum(1 for _ in TiledRaster(Path(target), "tile").tiles())
    result["seconds"] = round(time.perf_counter() - start, 2)
    after = resource.getrusage(resource.RUSAGE_SELF)
    result["processor_seconds"] = round(after.ru_utime + after.ru_stime - used, 2)
    return result | {"megabytes": read_peak(), "megabytes_before": before}


def read_peak() -> int:
    """The largest memory of this program, in MiB; getrusage would count its parent's, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="of the product, 4 GB")
    parser.add_argument("--one", nargs=2, metavar=("TASK", "TARGET"), help=argparse.SUPPRESS)
    parser.add_argument("--tiles", action="store_true", help="also cut all 1,849 tiles, in minutes")
    parser.add_argument(
        "--no_copies", action="store_true", help="make no coarser copies of bands, as level 1C has"
    )
    parser.add_argument(
        "--part", nargs="+", choices=("files", "addresses"), default=("files", "addresses")
    )
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if "files" in arguments.part:
        make_product(arguments.folder, with_copies=not arguments.no_copies)
        measure_files(arguments.folder, arguments.tiles)
    if "addresses" in arguments.part:
        measure_addresses(arguments.folder)


def measure_files(folder: Path, with_tiles: bool) -> None:
    """Print what opening the product's folder and archives takes."""
    safe = str(folder / f"{NAME}.SAFE")
    runs = [
        (task, str(target))
        for target in (safe, folder / "stored.zip", folder / "deflated.zip")
        for task in ("overview", "window")
    ]
    if with_tiles:
        write_cog(folder / "cog.tif", list(FILE_ORDER_12), SIDE)
        runs += [("tiles", safe), ("tiles", str(folder / "cog.tif"))]
    for task, target in runs:
        print(task, Path(target).name[-24:], json.dumps(run_alone(folder, task, target)))


def measure_addresses(folder: Path) -> None:
    """Print the requests and bytes, too, that parts of an item's files behind addresses take."""
    write_item(folder)
    for task in ("window in a block", "window", "overview"):
        with serve_stac(folder) as server:
            found = run_alone(folder, task, f"{server.address}/item.json")
            found["megabytes_sent"] = round(server.bytes_sent / 1e6, 2)
            found["requests"] = len(server.requests)
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
