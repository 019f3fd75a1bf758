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
# A cover is in view from this share on, or where one connected part has a hectare (of 10 m pixels):
# a lake of two hectares is 0.3 percent of a scene of 256 pixels a side, and is there all the same.
SHARE_IN_VIEW, PIXELS_IN_VIEW = 0.02, 100
# Parts are counted from this many pixels on, and from this share of the scene.
NOTABLE_PIXELS, NOTABLE_SHARE = 12, 0.001
RING_PIXELS = 3  # how far around a cover its surroundings are looked at
# Below this, shares are rounded to whole percents; above, to the nearest five.
WHOLE_PERCENTS_BELOW = 7.5
# The two ends of a part by the angle of its longer axis, in steps of 45 degrees from the row.
_DIRECTIONS = (
    ("left", "right"),
    ("top left", "bottom right"),
    ("top", "bottom"),
    ("bottom left", "top right"),
)


def rounded_percent(share: float) -> int:
    """Return a share, 0 to 1, in percent: whole where it is small, else to the nearest five."""
    percent = 100 * share
    return round(percent) if percent < WHOLE_PERCENTS_BELOW else 5 * round(percent / 5)


@dataclass(frozen=True)
class CoverPart:
    """A connected part of one cover.

    share: of the scene's pixels with data. row, column: its centre, 0 (top, left) to 1.
    elongated: long and narrow, as a river or a road is, and not compact. ends: the two sides or
    corners of the scene between which its longer axis runs, such as ("left", "right").
    """

    share: float
    row: float
    column: float
    elongated: bool
    ends: tuple[str, str]


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

    @cached_property
    def ground_shares(self) -> dict[str, float]:
        """The share of each ground cover among the pixels that no cloud hides, largest first."""
        visible = 1 - self.shares["cloud"]
        return {
            cover: share / visible if visible else 0.0
            for cover, share in self.shares.items()
            if cover != "cloud"
        }

    def shows(self, cover: str) -> bool:
        """Whether a cover is in view: a notable share, or a connected part of a hectare."""
        share = self.shares if cover == "cloud" else self.ground_shares
        if share[cover] > SHARE_IN_VIEW:
            return True
        if not share[cover]:
            return False
        labelled, _ = self._label(cover)
        return bool((np.bincount(labelled.ravel())[1:] >= PIXELS_IN_VIEW).any())

    def surroundings(self, cover: str) -> dict[str, float]:
        """The shares of the other covers within RING_PIXELS around a cover, largest first."""
        mask = self.classes == COVERS.index(cover)
        ring = ndimage.binary_dilation(mask, np.ones((3, 3)), iterations=RING_PIXELS) & ~mask
        return _shares(self.classes[ring])

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
        labelled, count = self._label(cover)
        known = max(int((self.classes != NO_DATA).sum()), 1)
        found = []
        for index, where in enumerate(ndimage.find_objects(labelled, count), start=1):
            rows, columns = np.nonzero(labelled[where] == index)
            if len(rows) < smallest:
                continue
            ratio, ends = _longer_axis(rows, columns)
            found.append(
                CoverPart(
                    share=len(rows) / known,
                    row=(rows.mean() + where[0].start + 0.5) / labelled.shape[0],
                    column=(columns.mean() + where[1].start + 0.5) / labelled.shape[1],
                    elongated=ratio >= ELONGATED,
                    ends=ends,
                )
            )
        return sorted(found, key=lambda part: -part.share)

    def _label(self, cover: str) -> tuple[np.ndarray, int]:
        """Number the connected parts of a cover from 1, `[H, W]`; also return their count."""
        mask = self.classes == COVERS.index(cover)
        return ndimage.label(mask, structure=np.ones((3, 3)))

    def notable_parts(self, cover: str) -> list[CoverPart]:
        """The connected parts of a cover that are large enough to count, largest first."""
        if cover not in self._notable_parts:
            least = max(NOTABLE_PIXELS, round(NOTABLE_SHARE * self.classes.size))
            self._notable_parts[cover] = self.parts(cover, smallest=least)
        return self._notable_parts[cover]

    @cached_property
    def _notable_parts(self) -> dict[str, list[CoverPart]]:
        """Those found before: a context and its answers ask for them several times."""
        return {}


def _shares(classes: np.ndarray) -> dict[str, float]:
    counts = np.bincount(classes.ravel(), minlength=NO_DATA + 1)[: len(COVERS)]
    order = np.argsort(-counts, kind="stable")
    return {COVERS[i]: float(counts[i] / max(counts.sum(), 1)) for i in order}


def _longer_axis(rows: np.ndarray, columns: np.ndarray) -> tuple[float, tuple[str, str]]:
    """The ratio of a part's longer principal axis to its shorter one, at least 1, and its ends."""
    spread = np.cov(np.stack([rows, columns])) + np.eye(2) / 12  # a pixel has an extent too
    (short, long), axes = np.linalg.eigh(spread)
    step = round(np.degrees(np.arctan2(*axes[:, 1])) / 45) % len(_DIRECTIONS)
    return float(np.sqrt(long / short)), _DIRECTIONS[step]
