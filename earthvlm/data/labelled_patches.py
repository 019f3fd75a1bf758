"""Labelled patches on disk: scenes of any size and bands with labels for their pixels.

A folder holds `manifest.json` and one `.npz` a source. The manifest lists sources, each with its
`file`, its `bands` in the order of the arrays, and its `patches`, each with an `id` and a `group`
(a place: keep it on one side of a split), and, where known, `date` and `lonlat`. The `.npz`
has an array ID for each patch, `[C, H, W]`, reflectance x 10000 and 0 where there is no data, and
masks of the same size: `ID_cover` with an index in COVERS for each pixel, or 255 where it is
unknown, and any others, whose values a label file explains.

A label file adds knowledge in JSON:

    {"masks": {"forest": {"1": ["tree cover"], "2": ["bare soil", "cropland or grass"]}},
     "covers": {"some group or id": ["water", "tree cover", "bare soil"]},
     "held_out": ["some group"]}

`masks` gives the covers that a value of a mask stands for, `covers` those that occur in a patch or
a group, and `held_out` the groups that training must not see.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from earthvlm.data.pixel_labels import ANY, PixelLabels, cover_set
from earthvlm.data.spectral_consensus import BURNT, looks_burnt, possible_by_spectrum
from earthvlm.scenes.bands import TRUE_COLOUR_WHITE, VISIBLE_BANDS
from earthvlm.scenes.land_cover import COVERS
from earthvlm.scenes.scene import Scene

MANIFEST = "manifest.json"
COVER_MASK = "cover"
BURN_MASK = "burn"
PHOTO_LEVEL = "RGB8"  # 8-bit red, green and blue in place of reflectance


@dataclass(frozen=True)
class LabelFile:
    """What a label file says; see the module. Raises ValueError for an unknown cover."""

    masks: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    covers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    held_out: Sequence[str] = ()

    def __post_init__(self) -> None:
        for covers in (
            *self.covers.values(),
            *(c for m in self.masks.values() for c in m.values()),
        ):
            cover_set(covers)

    @classmethod
    def read(cls, path: str | Path) -> LabelFile:
        """Read a file. Raises ValueError, naming it, for another form."""
        try:
            return cls(**json.loads(Path(path).read_text("utf-8")))
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is no label file: {error}.") from error


@dataclass(frozen=True)
class Patch:
    """One patch of a manifest. covers: those that occur in it, or empty where nobody said."""

    id: str
    group: str
    file: str
    bands: tuple[str, ...]
    level: str
    date: datetime.date | None
    longitude: float | None
    latitude: float | None
    masks: tuple[str, ...]
    covers: tuple[str, ...]


class LabelledPatches:
    """The patches of a folder, without those that a label file holds out.

    Args:
        folder: holds `manifest.json` and the arrays; see the module.
        labels: knowledge that is not in the folder.
        held_out: take the held-out patches, and only those.

    Raises:
        FileNotFoundError: where the manifest or a source's file is missing.
        ValueError: where the manifest has another form or no patch is left.
    """

    def __init__(self, folder: str | Path, labels: LabelFile, held_out: bool = False) -> None:
        self.folder, self.labels = Path(folder), labels
        path = self.folder / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(f"{self.folder} holds no {MANIFEST} of labelled patches.")
        try:
            sources = json.loads(path.read_text("utf-8"))["sources"]
            patches = [self._make_patch(s, p) for s in sources for p in s["patches"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no manifest of labelled patches: {error!r}.") from error
        self.patches = [p for p in patches if (p.group in labels.held_out) == held_out]
        if not self.patches:
            raise ValueError(f"{path} has no patch that is {'' if held_out else 'not '}held out.")
        self._arrays: dict[str, dict[str, np.ndarray]] = {}

    def _make_patch(self, source: dict[str, Any], entry: dict[str, Any]) -> Patch:
        longitude, latitude = entry.get("lonlat") or (None, None)
        covers = self.labels.covers
        return Patch(
            id=entry["id"],
            group=entry["group"],
            file=source["file"],
            bands=tuple(source["bands"]),
            level=source.get("level", ""),
            date=datetime.date.fromisoformat(entry["date"]) if entry.get("date") else None,
            longitude=longitude,
            latitude=latitude,
            masks=tuple(entry.get("labels", ())),
            covers=tuple(covers.get(entry["id"], covers.get(entry["group"], ()))),
        )

    def _array(self, patch: Patch, mask: str = "") -> np.ndarray | None:
        if patch.file not in self._arrays:
            path = self.folder / patch.file
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing, which {MANIFEST} names.")
            with np.load(path) as file:
                self._arrays[patch.file] = {name: file[name] for name in file.files}
        return self._arrays[patch.file].get(f"{patch.id}_{mask}" if mask else patch.id)

    def read(self, patch: Patch) -> Scene:
        """Return a patch's scene. Raises ValueError for an array that is no Sentinel-2 image."""
        values = self._array(patch)
        if values is None or values.ndim != 3 or len(values) != len(patch.bands):
            raise ValueError(f"{patch.file} has no array {patch.id} of {len(patch.bands)} bands.")
        bands, pixels = patch.bands, np.moveaxis(values, 0, -1).astype(np.float32)
        if patch.level == PHOTO_LEVEL:
            bands, pixels = VISIBLE_BANDS, pixels * np.float32(TRUE_COLOUR_WHITE / 255)
        return Scene.from_array(
            pixels,
            bands,
            date=patch.date,
            longitude=patch.longitude,
            latitude=patch.latitude,
            name=patch.id,
            boa_offset=False,
        )

    def read_labels(self, patch: Patch, scene: Scene) -> PixelLabels:
        """Return what masks, the label file and the patch's spectra say of its pixels.

        Where they contradict each other, masks and the label file outweigh spectra.
        """
        known = self._array(patch, COVER_MASK)
        by_mask = np.full((scene.height, scene.width), ANY, np.uint16)
        if known is not None:
            for index in range(len(COVERS)):
                by_mask[known == index] = 1 << index
        for mask in patch.masks:
            by_mask &= self._possible_by_mask(patch, mask)
        if patch.covers:
            by_mask &= np.uint16(cover_set(patch.covers))
        possible = by_mask & possible_by_spectrum(scene)
        possible = np.where(possible == 0, by_mask, possible)
        if BURN_MASK in patch.masks and by_mask.max() & BURNT:
            possible = self._decide_burnt(patch, scene, possible)
        values = self._array(patch)
        if values is not None:
            possible = np.where((values == 0).all(axis=0) | (possible == 0), ANY, possible)
        return PixelLabels.of_sets(possible)

    def _possible_by_mask(self, patch: Patch, mask: str) -> np.ndarray:
        values = self._array(patch, mask)
        if values is None:
            raise ValueError(f"{patch.file} has no array {patch.id}_{mask}.")
        possible = np.full(values.shape, ANY, np.uint16)
        for value, covers in self.labels.masks.get(mask, {}).items():
            possible[values == int(value)] = cover_set(covers)
        return possible

    def _decide_burnt(self, patch: Patch, scene: Scene, possible: np.ndarray) -> np.ndarray:
        """Ground in a fire's perimeter that looks burnt is, and what is neither is not."""
        inside, dark = self._array(patch, BURN_MASK) == 1, looks_burnt(scene)
        if dark is None:
            return possible
        possible = np.where(inside & dark, BURNT, possible)
        return np.where(inside | dark, possible, possible & ~np.uint16(BURNT))
