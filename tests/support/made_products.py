"""Products with known pixels: .SAFE folders, their archives, and folders of band files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import rasterio

from earthvlm.scenes.bands import FILE_ORDER_12, FILE_ORDER_13

NAME = "S2B_MSIL2A_20230716T105629_N0509_R094_T31TDG_20230716T134210"
OLD_NAME = "S2B_MSIL2A_20210716T105031_N0301_R051_T31TDG_20210716T134210"
L1C_NAME = "S2A_MSIL1C_20210716T105031_N0301_R051_T31TDG_20210716T125000"
SIDE = 96  # pixels at 10 m: 48 at 20 m, 16 at 60 m
CORNER = (480_000, 4_690_020)  # of the tile, in UTM 31N
STEPS = {
    **dict.fromkeys(("B02", "B03", "B04", "B08"), 1),
    **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12", "SCL"), 2),
    **dict.fromkeys(("B01", "B09", "B10"), 6),
}


def make_tile(side: int = SIDE) -> np.ndarray:
    """Reflectance x 10000 `[12, H, W]` in ESA's order: a ramp to the east, other in each band."""
    ramp = np.arange(side)[None, :].repeat(side, 0) * 6 + np.arange(side)[:, None] * 2
    return np.stack([200 + 60 * n + ramp for n in range(12)]).astype(np.uint16)


def write_band(path: Path, pixels: np.ndarray, metres: float, **profile) -> Path:
    """Write one band `[H, W]` as JPEG 2000 or GeoTIFF, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = rasterio.Affine(metres, 0, CORNER[0], 0, -metres, CORNER[1])
    settings = {"driver": "GTiff"}
    if path.suffix == ".jp2":
        settings = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    shape = {"count": 1, "height": pixels.shape[0], "width": pixels.shape[1]}
    settings |= {"crs": "EPSG:32631", "transform": grid, "dtype": pixels.dtype, **shape}
    with rasterio.open(path, "w", **{**settings, **profile}) as file:
        file.write(pixels, 1)
    return path


def shrink(band: np.ndarray, step: int) -> np.ndarray:
    """Mean of squares of `step` pixels, as a coarser band sees them."""
    if step == 1:
        return band
    side = band.shape[0] // step
    return band.reshape(side, step, side, step).mean(axis=(1, 3)).round().astype(band.dtype)


def describe_product(name: str, offset: int = 0, quantification: int = 10_000) -> str:
    """ESA's metadata of a product, as far as it is read."""
    level = "1C" if "MSIL1C" in name else "2A"
    kind = "RADIO" if level == "1C" else "BOA"
    scale = "QUANTIFICATION_VALUE" if level == "1C" else "BOA_QUANTIFICATION_VALUE"
    baseline = name.split("_N")[1][:4]
    offsets = "".join(
        f'<{kind}_ADD_OFFSET band_id="{i}">{-offset}</{kind}_ADD_OFFSET>' for i in range(13)
    )
    day = f"{name[11:15]}-{name[15:17]}-{name[17:19]}T{name[20:22]}:{name[22:24]}:{name[24:26]}"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<n1:Level-{level}_User_Product xmlns:n1="https://psd-14.example/PSD">'
        f"<PRODUCT_START_TIME>{day}.024Z</PRODUCT_START_TIME><PRODUCT_URI>{name}.SAFE</PRODUCT_URI>"
        f"<PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL>"
        f"<PROCESSING_BASELINE>{baseline[:2]}.{baseline[2:]}</PROCESSING_BASELINE>"
        f'<{scale} unit="none">{quantification}</{scale}>{offsets if offset else ""}'
        f"</n1:Level-{level}_User_Product>"
    )


def write_safe(
    folder: Path,
    pixels: np.ndarray,
    name: str = NAME,
    offset: int = 1000,
    scl: np.ndarray | None = None,
    metadata: str | None = "",
) -> Path:
    """Write a .SAFE folder of a tile `[12, H, W]`; the offset is added to what is stored.

    metadata: in place of the product's own; None leaves the file out.
    """
    safe = folder / f"{name}.SAFE"
    images = safe / "GRANULE" / f"L2A_T31TDG_A033211_{name[11:26]}" / "IMG_DATA"
    level1 = "MSIL1C" in name
    stored = {band: pixels[n] + np.uint16(offset) for n, band in enumerate(FILE_ORDER_12)}
    if level1:
        stored["B10"] = np.full_like(pixels[0], 12 + offset)
    if scl is not None:
        stored["SCL"] = scl
    stem = f"T31TDG_{name[11:26]}"
    for band in (*FILE_ORDER_13, "SCL"):
        if band not in stored:
            continue
        step = STEPS[band]
        data = shrink(stored[band], step) if band != "SCL" else stored[band]
        metres = 10 * step
        path = images / f"{stem}_{band}.jp2"
        if not level1:
            path = images / f"R{metres}m" / f"{stem}_{band}_{metres}m.jp2"
        write_band(path, data, metres)
        if not level1 and metres == 10:  # also in the coarser folders, as in ESA's products
            twice = shrink(stored[band], 2)
            write_band(images / "R20m" / f"{stem}_{band}_20m.jp2", twice, 20)
    true_colour = np.stack([shrink(stored["B04"], 1) // 20] * 3).astype(np.uint8)
    write_band(safe / "preview.jp2", true_colour[0], 10)
    write_band(safe / "GRANULE" / images.parent.name / "QI_DATA" / "MSK_CLASSI_B00.jp2",
               true_colour[0], 60)  # fmt: skip
    if metadata is not None:
        text = metadata or describe_product(name, offset)
        (safe / f"MTD_MSIL{'1C' if level1 else '2A'}.xml").write_text(text)
    return safe


def pack(folder: Path, archive: Path, packing: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a folder and what is below it into a zip archive."""
    with zipfile.ZipFile(archive, "w", packing) as file:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            file.write(path, path.relative_to(folder.parent))
    return archive
