"""Labels of a scene: land cover, clouds and haze in a grid of cells, and the kind of scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

LAND_COVER = (
    "water",
    "tree cover",
    "cropland or grass",
    "bare soil",
    "built-up land",
    "sparse vegetation",
)
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
QUARTERS = ("top left", "top right", "bottom left", "bottom right")


@dataclass(frozen=True)
class SceneLabels:
    """Labels in a grid of cells, top row first.

    land_cover: `[R, C, 6]`, shares of the ground in the order of `LAND_COVER`, summing to 1.
    cloud: `[R, C]`, the share that thick cloud hides.
    haze: `[R, C]`, the share under haze that lets the ground show through.
    scene_class: a key of `SCENE_NAMES`, or None where it is unknown.
    """

    land_cover: np.ndarray
    cloud: np.ndarray
    haze: np.ndarray
    scene_class: str | None = None

    @classmethod
    def from_entry(cls, entry: dict[str, Any]) -> SceneLabels:
        """Read one image's entry of a `labels.json`: two by two cells, clear sky."""
        cells = [[entry["quadrants"][name][c] for c in LAND_COVER] for name in QUARTERS]
        land_cover = np.array(cells, np.float32).reshape(2, 2, len(LAND_COVER))
        sky = np.zeros((2, 2), np.float32)
        return cls(land_cover, sky, sky, entry["scene"])

    def flipped(self, axis: int) -> SceneLabels:
        """Return mirrored labels: top and bottom swapped for axis 0, left and right for 1."""
        return self._mapped(lambda grid: np.flip(grid, axis))

    def rotated(self, turns: int) -> SceneLabels:
        """Return labels rotated counter-clockwise by quarter turns."""
        return self._mapped(lambda grid: np.rot90(grid, turns))

    def _mapped(self, change: Callable[[np.ndarray], np.ndarray]) -> SceneLabels:
        return replace(
            self,
            land_cover=change(self.land_cover),
            cloud=change(self.cloud),
            haze=change(self.haze),
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
        """The share of the scene under haze, 0 to 1."""
        return float(self.haze.mean())

    @staticmethod
    def mosaic(rows: list[list[SceneLabels]]) -> SceneLabels:
        """Return the labels of scenes joined row by row."""
        flat = [labels for row in rows for labels in row]

        def join(name: str) -> np.ndarray:
            return np.concatenate(
                [np.concatenate([getattr(f, name) for f in row], axis=1) for row in rows], axis=0
            )

        classes = {labels.scene_class for labels in flat}
        return SceneLabels(
            join("land_cover"),
            join("cloud"),
            join("haze"),
            classes.pop() if len(classes) == 1 else None,
        )
