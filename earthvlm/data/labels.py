"""Labels of a scene: land cover, clouds and haze in a grid of cells, and the kind of scene."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from earthvlm.scenes.land_cover import (
    COVERS,
    FIELDS,
    GROUND_COVERS,
    NO_DATA,
    SHARE_IN_VIEW,
    CoverMap,
)

LABELS_FILE = "labels.json"
FACTS_FILE = "facts.json"  # the name of the same file in the practice data
LAND_COVER = GROUND_COVERS
# The ten classes of EuroSAT (Helber et al., 2019), as people would say them.
SCENE_NAMES = {
    "AnnualCrop": "annual cropland",
    "Forest": "forest",
    "HerbaceousVegetation": "herbaceous vegetation",
    "Highway": "a highway through the land",
    "Industrial": "an industrial area",
    "Pasture": "pasture",
    "PermanentCrop": "permanent crops such as orchards or vineyards",
    "Residential": "a residential area",
    "River": "a river landscape",
    "SeaLake": "open water",
}
# Who gave a scene's kind in `labels.json`, where it is noted: classifiers err too often to ask.
BY_HAND = "hand label"
QUARTERS = ("top left", "top right", "bottom left", "bottom right")
# Labels agree if their shares differ by less than the first, whatever they say of covers below the
# second, but for those that people ask about most.
SIMILAR_SHARES, MINOR_SHARE = 0.1, 0.05
DECISIVE = ("water", "snow or ice", "burnt land", "cloud")
CELLS = 6  # rows and columns of the labels of a map: halves, quarters and ninths are whole cells


@dataclass(frozen=True)
class SceneLabels:
    """Labels in a grid of cells, top row first.

    land_cover: `[R, C, 8]`, shares of the ground in the order of `LAND_COVER`, summing to 1.
    cloud: `[R, C]`, the share that thick cloud hides.
    haze: `[R, C]`, the share under haze that lets the ground show through; NaN where unknown.
    scene_class: a key of `SCENE_NAMES`, or None where it is unknown.
    cover_map: the land cover of each pixel, where it is known.
    predicted_map: what the bridge's own map says, right or wrong, for the prompt's context.
    """

    land_cover: np.ndarray
    cloud: np.ndarray
    haze: np.ndarray
    scene_class: str | None = None
    cover_map: CoverMap | None = None
    predicted_map: CoverMap | None = None

    @classmethod
    def from_entry(cls, entry: dict[str, Any]) -> SceneLabels:
        """Read one image's entry of a `labels.json`: two by two cells, clear sky.

        The kind of scene is kept only where a hand gave it.
        Raises ValueError for another form, as in "cannot be read: they lack 'scene'".
        """
        try:
            quadrants = [entry["quadrants"][name] for name in QUARTERS]
            cells = np.array([[q.get(c, 0.0) for c in LAND_COVER] for q in quadrants], np.float32)
            by_hand = entry.get("scene_source", BY_HAND) == BY_HAND
            scene_class = entry["scene"] if by_hand else None
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            lacks = f"they lack {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"cannot be read: {lacks}") from error
        sky = np.zeros((2, 2), np.float32)
        return cls(cells.reshape(2, 2, len(LAND_COVER)), sky, sky, scene_class)

    @classmethod
    def from_cover_map(cls, cover_map: CoverMap, cells: int = CELLS) -> SceneLabels:
        """Return the labels of a map, in at most `cells` rows and columns.

        Cells that clouds hide, or that have no data, take the ground of the others. The map says
        nothing of haze.
        """
        height, width = cover_map.classes.shape
        parts = cover_map.split(min(cells, height), min(cells, width))
        shares = np.array([[[p.shares[c] for c in COVERS] for p in row] for row in parts])
        known = np.array([[(p.classes != NO_DATA).any() for p in row] for row in parts])
        cloud = np.where(known, shares[..., -1], cover_map.shares["cloud"])
        ground, seen = shares[..., :-1], shares[..., :-1].sum(-1, keepdims=True)
        overall = np.array([cover_map.ground_shares[c] for c in LAND_COVER])
        if not overall.sum():  # nothing of the ground is in view
            overall = np.full(len(LAND_COVER), 1 / len(LAND_COVER))
        ground = np.where(seen > 0, ground / np.maximum(seen, 1e-6), overall)
        sky = cloud.astype(np.float32)
        unknown = np.full_like(sky, np.nan)
        return cls(ground.astype(np.float32), sky, unknown, cover_map=cover_map)

    def flipped(self, axis: int) -> SceneLabels:
        """Return mirrored labels: top and bottom swapped for axis 0, left and right for 1."""
        return self._mapped(lambda grid: np.flip(grid, axis), whole=True)

    def rotated(self, turns: int) -> SceneLabels:
        """Return labels rotated counter-clockwise by quarter turns."""
        return self._mapped(lambda grid: np.rot90(grid, turns), whole=True)

    def _mapped(
        self, change: Callable[[np.ndarray], np.ndarray], whole: bool = False
    ) -> SceneLabels:
        """Change every grid, and the maps too where the change keeps the whole scene."""

        def turn(found: CoverMap | None) -> CoverMap | None:
            if found is None or not whole:
                return None
            return CoverMap(np.ascontiguousarray(change(found.classes)))

        return replace(
            self,
            land_cover=change(self.land_cover),
            cloud=change(self.cloud),
            haze=change(self.haze),
            cover_map=turn(self.cover_map),
            predicted_map=turn(self.predicted_map),
        )

    def refined(self, rows: int, columns: int) -> SceneLabels:
        """Return the same labels in more rows and columns, multiples of the present ones."""
        height, width = self.cloud.shape

        def repeat(grid: np.ndarray) -> np.ndarray:
            return grid.repeat(rows // height, 0).repeat(columns // width, 1)

        return replace(
            self,
            land_cover=repeat(self.land_cover),
            cloud=repeat(self.cloud),
            haze=repeat(self.haze),
        )

    def window(self, rows: slice = slice(None), columns: slice = slice(None)) -> SceneLabels:
        """Return the labels of some of the cells."""
        return self._mapped(lambda grid: grid[rows, columns])

    def quarter(self, name: str) -> SceneLabels:
        """Return the labels of a quarter ("top left") or a half ("top", "left") of the scene."""
        rows, columns = self.cloud.shape
        row = slice(None, rows // 2) if "top" in name else slice(rows // 2, None)
        column = slice(None, columns // 2) if "left" in name else slice(columns // 2, None)
        return self.window(
            row if "top" in name or "bottom" in name else slice(None),
            column if "left" in name or "right" in name else slice(None),
        )

    def field(self, name: str) -> SceneLabels:
        """Return the labels of one of the ninths of `FIELDS`; see `has_fields`."""
        row, column = divmod(FIELDS.index(name), 3)
        rows, columns = (side // 3 for side in self.cloud.shape)
        return self.window(
            slice(row * rows, (row + 1) * rows), slice(column * columns, (column + 1) * columns)
        )

    @property
    def has_fields(self) -> bool:
        """Whether the cells can be grouped into ninths of the scene."""
        return not any(side % 3 for side in self.cloud.shape)

    def shows(self, cover: str) -> bool:
        """Whether a cover of the ground, or "cloud", is in view; see `CoverMap.shows`."""
        if self.cover_map is not None:
            return self.cover_map.shows(cover)
        return (self.cloud_share if cover == "cloud" else self.shares[cover]) > SHARE_IN_VIEW

    def agrees_with(self, other: SceneLabels) -> bool:
        """Whether both name the same covers, in all and by quarter, with similar shares."""
        mine, others = self.shares, other.shares
        alike = (
            abs(self.cloud_share - other.cloud_share) < SIMILAR_SHARES
            and all(abs(mine[c] - others[c]) < SIMILAR_SHARES for c in LAND_COVER)
            and all(self.quarter(q).dominant == other.quarter(q).dominant for q in QUARTERS)
        )
        decided = [c for c in LAND_COVER if max(mine[c], others[c]) > MINOR_SHARE]
        named = {*decided, *DECISIVE}
        return alike and all(self.shows(cover) == other.shows(cover) for cover in named)

    @property
    def shares(self) -> dict[str, float]:
        """Each land cover's share of the visible ground, largest first."""
        clear = 1 - self.cloud
        visible = (self.land_cover * clear[..., None]).sum((0, 1)) / max(clear.sum(), 1e-6)
        order = np.argsort(-visible, kind="stable")
        return {LAND_COVER[i]: float(visible[i]) for i in order}

    @property
    def dominant(self) -> str:
        """The land cover with the largest share of the visible ground."""
        return next(iter(self.shares))

    @property
    def cloud_share(self) -> float:
        """The share of the scene that clouds hide, 0 to 1."""
        return float(self.cloud.mean())

    @property
    def haze_share(self) -> float:
        """The share of the scene under haze, 0 to 1; NaN where it is not known."""
        return float(self.haze.mean())

    @staticmethod
    def mosaic(rows: list[list[SceneLabels]]) -> SceneLabels:
        """Return the labels of scenes of one size joined row by row."""
        sides = [math.lcm(*(k.cloud.shape[axis] for row in rows for k in row)) for axis in (0, 1)]
        rows = [[labels.refined(*sides) for labels in row] for row in rows]
        flat = [labels for row in rows for labels in row]

        def join(name: str) -> np.ndarray:
            return np.concatenate(
                [np.concatenate([getattr(f, name) for f in row], axis=1) for row in rows], axis=0
            )

        classes = {labels.scene_class for labels in flat}

        def join_maps(name: str) -> CoverMap | None:
            maps = [[getattr(labels, name) for labels in row] for row in rows]
            if any(found is None for row in maps for found in row):
                return None
            return CoverMap(np.block([[found.classes for found in row] for row in maps]))

        return SceneLabels(
            join("land_cover"),
            join("cloud"),
            join("haze"),
            classes.pop() if len(classes) == 1 else None,
            join_maps("cover_map"),
            join_maps("predicted_map"),
        )


def read_entries(path: Path) -> dict[str, Any]:
    """Read a JSON object with an entry for each image; {} where there is no such file.

    Raises ValueError, naming the file, for another form.
    """
    try:
        values = json.loads(path.read_bytes()) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no object with an entry for each image.")
    return values
