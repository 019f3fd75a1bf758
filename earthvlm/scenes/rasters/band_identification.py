"""Which band of a raster is which of Sentinel-2: by labels, else by known orders and spectra.

Labels win, wherever a tool keeps them. A raster without any is compared with the orders that tools
write, and the spectra decide among these: neighbours in wavelength resemble each other in nature,
so a wrong order shows. Where the spectra do not decide, the raster is refused.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError

import numpy as np

from earthvlm.scenes.bands import (
    BANDS,
    FILE_ORDER_12,
    FILE_ORDER_13,
    WAVELENGTHS,
    normalise_band_name,
)

if TYPE_CHECKING:
    import rasterio

# Keys under which tools keep a band's name in its metadata: openEO, xarray, GDAL's ENVI, netCDF.
LABEL_TAGS = ("DESCRIPTION", "long_name", "name", "NAME", "band_name", "common_name", "wavelength")
DIMAP_TAG = 65000  # of SNAP's GeoTIFFs: a DIMAP header in XML
MAX_HEADER_BYTES = 2**20
# B8A after B12: alphabetical order, as in EuroSAT's thirteen bands and in folders of files.
ALPHABETICAL_13 = tuple(sorted(FILE_ORDER_13))
ALPHABETICAL_12 = tuple(sorted(FILE_ORDER_12))
KNOWN_ORDERS = {
    12: {
        "ESA's order": FILE_ORDER_12,
        "alphabetical order": ALPHABETICAL_12,
        "OlmoEarth's order": BANDS,
    },
    13: {"ESA's order": FILE_ORDER_13, "alphabetical order": ALPHABETICAL_13},
}
# A cirrus band sees no ground: its mean is below this share of the darkest other band's mean
# (EuroSAT: 12 against some hundreds).
CIRRUS_SHARE = 0.25
# Pairs whose means differ little in nature (clouds, water, soil and plants alike), and how much a
# difference counts next to the correlation of neighbours.
SIMILAR_PAIRS = {
    ("B08", "B8A"): 1.0,
    ("B07", "B8A"): 1.0,
    ("B11", "B12"): 0.3,
    ("B01", "B02"): 0.3,
    ("B02", "B03"): 0.3,
}
# The best order has to be better than the next one by this share of its own score, or by this much
# where that is below 1. Of 121 real scenes written in each of the three orders of twelve bands,
# 358 are recognised, 5 (mostly clouds throughout) are refused, and none is mistaken.
CLEARLY_BETTER = 0.1
# Labels, in lower case without separators, of bands that are no reflectance, and how they are used:
# Sentinel Hub's and openEO's masks, ESA's scene classification.
MASK_LABELS = {
    "datamask": "mask",
    "scl": "scl",
    **dict.fromkeys(("sceneclassification", "qualitysceneclassification"), "scl"),
    **dict.fromkeys(("clm", "cloudmask"), "clouds"),
}
# Labels, likewise, of bands that Sentinel-2 does not have, next to which "red" is another sensor's:
# PlanetScope's, Landsat's and WorldView's.
_FOREIGN_LABELS = {
    *("yellow", "greeni", "coastalblue", "pan", "panchromatic", "lwir", "lwir11", "lwir12"),
    *("thermal", "stb10", "srb1", "srb2"),
}
_NUMBERED = re.compile(r"^(?:band|b)?[ _-]?0?\d{1,2}a?\s*[:=(–-]\s*(.+?)\)?$", re.IGNORECASE)
_WAVELENGTH = re.compile(r"^(\d+(?:\.\d+)?)\s*(nm|nanometers?|µm|um|micrometers?)?$", re.IGNORECASE)
_LARGEST_WAVELENGTH_ERROR = 15  # nm
_PREFIXES = ("nbart_", "nbar_", "boa_", "toa_")


@dataclass(frozen=True)
class BandOrder:
    """The number (from 1) of each Sentinel-2 band in a raster.

    mask: the number of a band that is 0 where there is no data, if there is one.
    scl: the number of ESA's scene classification, if there is one.
    clouds: the number of a band that is 1 where there is cloud, if there is one.
    notes: what was assumed, in sentences for the user.
    """

    numbers: dict[str, int]
    mask: int | None = None
    scl: int | None = None
    clouds: int | None = None
    notes: tuple[str, ...] = ()


def read_labels(file: rasterio.DatasetReader, path: Path | None) -> tuple[str | None, ...]:
    """The label of each band, from its description, its metadata or a DIMAP header.

    path: of the file, None where it is not on disk, so that its header is not read.
    """
    labels: list[str | None] = []
    for number, description in zip(file.indexes, file.descriptions, strict=True):
        tags = file.tags(number)
        found = (tags[key] for key in LABEL_TAGS if tags.get(key, "").strip())
        labels.append(description or next(found, None))
    if any(labels) or path is None:
        return tuple(labels)
    named = _read_dimap(path)
    return tuple(named) if len(named) == file.count else tuple(labels)


def _read_dimap(path: Path) -> list[str]:
    """The bands' names in the DIMAP header of a TIFF, in their order; none without a header."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        with path.open("rb") as stream:
            start = stream.read(8)
            is_big = start[2:4] in (b"+\0", b"\0+")
            directory = ImageFileDirectory_v2(start + (stream.read(8) if is_big else b""))
            stream.seek(directory.next)
            directory.load(stream)
            text = directory.get(DIMAP_TAG)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return []
    if not isinstance(text, str) or len(text) > MAX_HEADER_BYTES or "<!ENTITY" in text:
        return []
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(text.encode("latin-1", "replace"))
    except ParseError:
        return []
    named = {
        int(info.findtext("BAND_INDEX", "-1")): info.findtext("BAND_NAME", "")
        for info in root.iter("Spectral_Band_Info")
        if info.findtext("BAND_INDEX", "").isdigit()
    }
    return [named[index] for index in sorted(named)]


def name_labels(labels: Sequence[str | None]) -> list[str | None]:
    """The Sentinel-2 band that each label names, as in "B02"; None for those that name none.

    What some labels mean depends on the others: Digital Earth Australia counts swir_2 and swir_3,
    FORCE calls B08 BROADNIR and B8A NIR.
    """
    cleaned = [_clean(label) for label in labels]
    present = {_squeeze(label) for label in cleaned if label}
    special: dict[str, str] = {}
    if "swir3" in present and "swir1" not in present:
        special |= {"swir2": "B11", "swir3": "B12"}
    if "broadnir" in present:
        special |= {"broadnir": "B08", "nir": "B8A"}
    named = []
    for label in cleaned:
        key = _squeeze(label)
        found = special.get(key) or normalise_band_name(label) or normalise_band_name(key)
        named.append(found or _by_wavelength(label))
    return named


def _clean(label: str | None) -> str | None:
    """A label without a layer's number ("Band 1: Blue", "Band 1 (B02)") and without a prefix."""
    text = (label or "").strip()
    match = _NUMBERED.match(text)
    if match and (normalise_band_name(match[1]) or _by_wavelength(match[1])):
        text = match[1]
    for prefix in _PREFIXES:
        text = text[len(prefix) :] if text.lower().startswith(prefix) else text
    return text or None


def _by_wavelength(label: str | None) -> str | None:
    match = _WAVELENGTH.match((label or "").strip())
    if not match:
        return None
    value, unit = float(match[1]), (match[2] or "").lower()
    nanometres = value * 1000 if unit.startswith(("µ", "u", "mi")) or value < 10 else value
    band = min(WAVELENGTHS, key=lambda name: abs(WAVELENGTHS[name] - nanometres))
    near = abs(WAVELENGTHS[band] - nanometres) <= _LARGEST_WAVELENGTH_ERROR
    return band if near else None


def only_count(labels: Sequence[str | None]) -> bool:
    """Whether labels merely count layers ("Band 1", "Band 2"), or there are none."""
    return all(
        not text or re.fullmatch(rf"(b(and)?)?[ _-]?{number}", text.strip().lower())
        for number, text in enumerate(labels, start=1)
    )


def find_mask_band(samples: np.ndarray, is_alpha: bool) -> bool:
    """Whether the last band of `[C, N]` samples is a mask: an alpha band, or 0 and one value."""
    values = np.unique(samples[-1])
    values = values[np.isfinite(values)]
    marks = values[values != 0]
    if len(marks) > 1:
        return False
    return is_alpha or (len(marks) == 1 and float(marks[0]) in (1.0, 255.0, 65535.0))


def score_order(order: Sequence[str], samples: np.ndarray) -> float:
    """How unlike nature samples `[C, N]` are in an order of bands; 0 is the smallest.

    The correlation that neighbours in wavelength lack, plus how far the means of similar bands
    differ (as logarithms). Cirrus is left out.
    """
    by_band = {band: values for band, values in zip(order, samples, strict=True) if band in BANDS}
    along = [by_band[band] for band in sorted(by_band, key=WAVELENGTHS.__getitem__)]
    lacking = sum(1 - _correlation(one, two) for one, two in pairwise(along))
    means = {band: max(float(values.mean()), 1e-4) for band, values in by_band.items()}
    apart = sum(
        weight * abs(np.log(means[one] / means[two]))
        for (one, two), weight in SIMILAR_PAIRS.items()
        if one in means and two in means
    )
    return float(lacking + apart)


def _correlation(one: np.ndarray, two: np.ndarray) -> float:
    one, two = one - one.mean(), two - two.mean()
    length = np.sqrt((one**2).sum() * (two**2).sum())
    return float((one * two).sum() / length) if length > 0 else 0.0


class BandOrderError(ValueError):
    """The bands of a raster may be in several orders.

    orders: by what each is called, the names of the bands as `name_bands` takes them, the likeliest
    first.
    """

    def __init__(self, message: str, orders: Mapping[str, Sequence[str]]) -> None:
        super().__init__(message)
        self.orders = {name: tuple(order) for name, order in orders.items()}


def find_order(
    samples: np.ndarray, source: str, masks: Sequence[str] = ()
) -> tuple[str, tuple[str, ...]]:
    """The known order that samples `[C, N]` of unnamed bands are in, with what it is called.

    masks: the names of masks that follow these bands in the raster. Raises ValueError where no
    order is possible, BandOrderError where several are.
    """
    usable = samples[:, np.all(np.isfinite(samples) & (samples > 0), axis=0)]
    orders = {
        name: order
        for name, order in KNOWN_ORDERS[len(samples)].items()
        if "B10" not in order or _is_cirrus(order.index("B10"), samples)
    }
    how = "name its bands (B02, B03, ...) in their descriptions"
    if not orders:
        raise ValueError(
            f"{source} has {len(samples)} bands without names, and none is as dark as cirrus, so "
            f"they are in no order of Sentinel-2's that is known here; {how}"
        )
    # Without pixels that differ no order shows, and the scene is refused for that.
    if len(orders) == 1 or usable.shape[1] < 2 or not usable.std(axis=1).any():
        return next(iter(orders.items()))
    ranked = sorted((score_order(order, usable), name) for name, order in orders.items())
    least = CLEARLY_BETTER * max(1.0, ranked[0][0])
    plausible = [name for score, name in ranked if score - ranked[0][0] < least]
    if len(plausible) > 1:
        raise BandOrderError(
            f"{source} has bands without names, which may be in {' or in '.join(plausible)}; {how}",
            {name: (*orders[name], *masks) for name in plausible},
        )
    best = ranked[0][1]
    return best, orders[best]


def _is_cirrus(index: int, samples: np.ndarray) -> bool:
    means = np.nanmean(np.where(np.isfinite(samples), samples, np.nan), axis=1)
    others = np.delete(means, index)
    return bool(means[index] < CIRRUS_SHARE * others.min())


def identify_bands(
    labels: Sequence[str | None], samples: np.ndarray, source: str, *, has_alpha: bool = False
) -> BandOrder:
    """Find which band is which, by labels, else by the order that the spectra fit.

    labels: of all C bands. samples: pixels of the whole raster, `[C, N]`, fill values included.
    has_alpha: whether the last band is declared to be an alpha band.

    Raises ValueError, in one sentence, where it cannot be told.
    """
    count = len(labels)
    if not only_count(labels):
        return _by_labels(labels, source)
    has_mask = count in (13, 14) and find_mask_band(samples, has_alpha)
    mask = count if has_mask else None
    if has_mask:
        samples = samples[:-1, samples[-1] != 0]
    if len(samples) not in KNOWN_ORDERS:
        raise ValueError(
            f"{source} has {count} band{'s' * (count != 1)} without Sentinel-2 names; give 12 or "
            "13 in Sentinel-2's order, or name its bands (B02, B03, ...) in their descriptions"
        )
    name, order = find_order(samples, source, ["mask"] if has_mask else [])
    notes = [f"Its bands have no names; their spectra fit {name}: {', '.join(order)}."]
    if mask:
        notes.append("Its last band is a mask and was used as one.")
    numbers = {band: n for n, band in enumerate(order, start=1)}
    return BandOrder(numbers, mask, notes=tuple(notes))


def name_bands(names: Sequence[str], count: int, source: str) -> BandOrder:
    """Take the order of bands that a user names, in place of what a file says.

    names: one for each of the file's bands; "mask", "SCL" and "CLM" are masks, and "-" skips one.
    Raises ValueError where they are not as many as the bands, or name no band of Sentinel-2.
    """
    if len(names) != count:
        raise ValueError(
            f"{source} has {count} band{'s' * (count != 1)}, but {len(names)} were named; "
            "name each in its order, and write - for one to be left out"
        )
    numbers: dict[str, int] = {}
    masks: dict[str, int] = {}
    for number, (name, band) in enumerate(zip(names, name_labels(names), strict=True), start=1):
        kind = "mask" if name.lower() == "mask" else find_mask_kind(name)
        if kind:
            masks[kind] = number
        elif name != "-" and band is None:
            raise ValueError(f"'{name}' is no band of Sentinel-2; known are {', '.join(BANDS)}")
        elif band in numbers:
            raise ValueError(f"Band {band} was named twice; name each band once")
        elif band is not None:
            numbers[band] = number
    return BandOrder(numbers, masks.get("mask"), masks.get("scl"), masks.get("clouds"))


def find_mask_kind(label: str | None) -> str | None:
    """Return whether a band is a "mask", "scl" or "clouds" by its label; None for other bands."""
    return MASK_LABELS.get(_squeeze(label))


def _squeeze(label: str | None) -> str:
    """A label in lower case without separators."""
    return re.sub(r"[ _-]", "", (label or "").lower())


def refuse_foreign_bands(labels: Sequence[str | None], source: str) -> None:
    """Raise ValueError where a label names a band that Sentinel-2 does not have."""
    foreign = next((label for label in labels if _squeeze(label) in _FOREIGN_LABELS), None)
    if foreign:
        raise ValueError(
            f"{source} has a band '{foreign}', which Sentinel-2 does not have; images of other "
            "sensors cannot be read, as their bands differ"
        )


def _by_labels(labels: Sequence[str | None], source: str) -> BandOrder:
    refuse_foreign_bands(labels, source)
    numbers: dict[str, int] = {}
    masks: dict[str, int] = {}
    unknown = []
    for number, (label, band) in enumerate(zip(labels, name_labels(labels), strict=True), start=1):
        kind = find_mask_kind(label)
        if kind and kind not in masks:
            masks[kind] = number
        elif band is None:
            unknown.append((label or f"band {number}")[:20])
        elif band in numbers:
            raise ValueError(f"{source} has band {band} twice; give each band once")
        else:
            numbers[band] = number
    listed = ", ".join(unknown[:4]) + ", ..." * (len(unknown) > 4)
    notes = (f"Not used, as they are no bands of Sentinel-2: {listed}.",) if unknown else ()
    return BandOrder(numbers, masks.get("mask"), masks.get("scl"), masks.get("clouds"), notes)
