"""Land cover of a scene, pixel by pixel: shares, where each cover lies, and its connected parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

# What the ground can be, then what hides it. The order is part of saved bridges and of maps.
GROUND_COVERS = (
    "water",
    "tree cover",
    "cropland or grass",
    "bare soil",
    "built-up land",
    "sparse vegetation",
    "snow or ice",
    "burnt land",
)
COVERS = (*GROUND_COVERS, "cloud")
NO_DATA = 255
# One colour a cover, red, green and blue, for overlays and the colour table of GeoTIFFs.
COVER_COLOURS = {
    "water": (30, 100, 220),
    "tree cover": (0, 100, 30),
    "cropland or grass": (170, 210, 80),
    "bare soil": (200, 160, 110),
    "built-up land": (210, 40, 40),
    "sparse vegetation": (190, 185, 110),
    "snow or ice": (225, 240, 255),
    "burnt land": (70, 40, 50),
    "cloud": (255, 255, 255),
}
FIELDS = (
    *("top left", "top", "top right"),
    *("left", "centre", "right"),
    *("bottom left", "bottom", "bottom right"),
)
# A part is elongated from this ratio on: its longer principal axis to its shorter one.
ELONGATED = 4.0


@dataclass(frozen=True)
class CoverPart:
    """A connected part of one cover.

    share: of the scene's pixels with data. row, column: its centre, 0 (top, left) to 1.
    elongated: long and narrow, as a river or a road is, and not compact.
    """

    share: float
    row: float
    column: float
    elongated: bool


@dataclass(frozen=True)
class CoverMap:
    """The land cover of each pixel.

    classes: uint8 `[H, W]`, an index in COVERS, or NO_DATA.
    """

    classes: np.ndarray

    @cached_property
    def shares(self) -> dict[str, float]:
        """The share of each cover among the pixels with data, 0 to 1, largest first."""
        return _shares(self.classes)

    def window(self, rows: slice, columns: slice) -> CoverMap:
        """Return the map of a part of the scene."""
        return CoverMap(self.classes[rows, columns])

    def split(self, rows: int, columns: int) -> list[list[CoverMap]]:
        """Cut into rows and columns of nearly equal size, top row first."""
        return [
            [CoverMap(part) for part in np.array_split(band, columns, axis=1)]
            for band in np.array_split(self.classes, rows, axis=0)
        ]

    @cached_property
    def fields(self) -> dict[str, CoverMap]:
        """The nine fields of a grid of 3 by 3, by their names in FIELDS."""
        parts = [part for row in self.split(3, 3) for part in row]
        return dict(zip(FIELDS, parts, strict=True))

    def parts(self, cover: str, smallest: int = 6) -> list[CoverPart]:
        """Return the connected parts of a cover with at least `smallest` pixels, largest first.

        Pixels that touch at a corner are connected.
        """
        mask = self.classes == COVERS.index(cover)
        labelled, count = ndimage.label(mask, structure=np.ones((3, 3)))
        known = max(int((self.classes != NO_DATA).sum()), 1)
        found = []
        for index, where in enumerate(ndimage.find_objects(labelled, count), start=1):
            rows, columns = np.nonzero(labelled[where] == index)
            if len(rows) < smallest:
                continue
            found.append(
                CoverPart(
                    share=len(rows) / known,
                    row=(rows.mean() + where[0].start + 0.5) / mask.shape[0],
                    column=(columns.mean() + where[1].start + 0.5) / mask.shape[1],
                    elongated=_axis_ratio(rows, columns) >= ELONGATED,
                )
            )
        return sorted(found, key=lambda part: -part.share)


def _shares(classes: np.ndarray) -> dict[str, float]:
    counts = np.bincount(classes.ravel(), minlength=NO_DATA + 1)[: len(COVERS)]
    order = np.argsort(-counts, kind="stable")
    return {COVERS[i]: float(counts[i] / max(counts.sum(), 1)) for i in order}


def _axis_ratio(rows: np.ndarray, columns: np.ndarray) -> float:
    """The ratio of a part's longer principal axis to its shorter one, at least 1."""
    spread = np.cov(np.stack([rows, columns])) + np.eye(2) / 12  # a pixel has an extent too
    short, long = np.linalg.eigvalsh(spread)
    return float(np.sqrt(long / short))
