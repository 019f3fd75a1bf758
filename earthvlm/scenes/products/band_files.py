"""Which file of a product holds which band, by its name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from earthvlm.scenes.bands import VISIBLE_BANDS, WAVELENGTHS, find_date
from earthvlm.scenes.rasters.band_identification import MASK_LABELS, name_labels
from earthvlm.scenes.rasters.raster_file import RASTER_SUFFIXES

# Folders of a product that hold masks and reports by band, and files that are no bands.
_OTHER_FOLDERS = {"QI_DATA", "MASKS", "AUX_DATA", "HTML", "REP_INFO", "DATASTRIP"}
_OTHER_FILES = re.compile(r"^(msk_|\.)|(^|[_.-])(cldprb|snwprb)", re.IGNORECASE)
_RESOLUTION = re.compile(r"^r?(10|20|60)m$", re.IGNORECASE)
_BAND_TOKEN = re.compile(r"^b(0?[1-9]|1[0-2]|8a|08a)$", re.IGNORECASE)
_LONGEST_NAME = 3  # words, as in "red_edge_1"
# MAJA writes reflectance with and without correction of slopes; ESA's has none, but what is flat
# on the ground differs little, and slopes are less dark.
_PREFERRED, _OTHER_VERSION = "_FRE_", "_SRE_"


@dataclass(frozen=True)
class NamedFile:
    """A file and the band that its name gives.

    Attributes:
        path: in the product.
        band: as in "B02", or "mask", "scl" or "clouds".
        metres: the pixel size in its name, if there is one.
    """

    path: str
    band: str
    metres: int | None = None


def name_files(paths: Sequence[str]) -> list[NamedFile]:
    """Find the files that hold a band or a mask, by their names.

    A number is a wavelength only where no other number is one of the same band: a folder of
    numbered scenes has tile_0490 and tile_0491.
    """
    candidates = [path for path in paths if _may_hold_a_band(path)]
    split = [_split_name(path) for path in candidates]
    bands = name_labels([label for label, _ in split])
    numbers: dict[str | None, set[str | None]] = defaultdict(set)
    for (label, _), band in zip(split, bands, strict=True):
        if (label or "").isdigit():
            numbers[band].add(label)
    found = []
    for path, (label, metres), band in zip(candidates, split, bands, strict=True):
        kind = MASK_LABELS.get((label or "").lower()) or band
        if kind and not (label in numbers[band] and len(numbers[band]) > 1):
            found.append(NamedFile(path, kind, metres))
    return found


def choose_files(
    files: Sequence[NamedFile], source: str, *, coarsest: bool = False
) -> dict[str, str]:
    """Choose one file a band, the finest or the coarsest.

    Raises ValueError where a band has two of one pixel size.
    """
    chosen: dict[str, NamedFile] = {}
    for file in files:
        other = chosen.get(file.band)
        if other is None or _is_better(file, other, coarsest):
            chosen[file.band] = file
        elif not _is_better(other, file, coarsest):
            names = " and ".join(f"'{PurePosixPath(each.path).name}'" for each in (other, file))
            raise ValueError(
                f"{source} holds {file.band} twice, in {names}; give the folder of one scene"
            )
    _refuse_several_days(list(chosen.values()), source)
    return {band: file.path for band, file in chosen.items()}


def _refuse_several_days(files: Sequence[NamedFile], source: str) -> None:
    days = {find_date(PurePosixPath(file.path).name): file.path for file in files}
    days.pop(None, None)
    if len(days) > 1:
        names = " and ".join(f"'{PurePosixPath(path).name}'" for path in list(days.values())[:2])
        raise ValueError(
            f"{source} holds bands of {len(days)} days, as {names}; give the folder of one scene"
        )


def is_band_folder(names: Sequence[str]) -> bool:
    """Return whether files of one folder are the bands of a scene, each a file of its own."""
    direct = [name for name in names if "/" not in name]
    return set(VISIBLE_BANDS) <= {file.band for file in name_files(direct)}


def _is_better(one: NamedFile, two: NamedFile, coarsest: bool) -> bool:
    """Whether a file is to be preferred to another of its band."""
    if one.metres and two.metres and one.metres != two.metres:
        return (one.metres < two.metres) != coarsest
    return _PREFERRED in one.path and _OTHER_VERSION in two.path


def _may_hold_a_band(path: str) -> bool:
    parts = PurePosixPath(path)
    return (
        parts.suffix.lower() in RASTER_SUFFIXES
        and not _OTHER_FOLDERS.intersection(part.upper() for part in parts.parts[:-1])
        and not _OTHER_FILES.search(parts.name)
    )


def _split_name(path: str) -> tuple[str | None, int | None]:
    """Return the part of a file's name that may name its band, and its pixel size in metres."""
    parts = PurePosixPath(path)
    words = [word for word in re.split(r"[_.\-\s]+", parts.stem) if word]
    metres = None
    sizes = [match[1] for word in (*parts.parts[:-1], *words) if (match := _RESOLUTION.match(word))]
    if sizes:
        metres = int(sizes[-1])
    words = [word for word in words if not _RESOLUTION.match(word)]
    tokens = [word for word in words if _BAND_TOKEN.match(word)]
    if len(tokens) == 1:
        return tokens[0].upper().replace("B08A", "B8A"), metres
    for count in range(_LONGEST_NAME, 0, -1):
        label = "_".join(words[-count:])
        if len(words) >= count and (name_labels([label])[0] or label.lower() in MASK_LABELS):
            return label, metres
    return None, metres


def band_by_index(index: int) -> str | None:
    """Return the band that ESA's metadata counts so: 0 is B01, 8 is B8A, 12 is B12."""
    names = tuple(WAVELENGTHS)
    return names[index] if 0 <= index < len(names) else None
