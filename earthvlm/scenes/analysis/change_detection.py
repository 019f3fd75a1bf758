"""Compare the land cover of two scenes of one place."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from earthvlm.scenes.analysis.spectral_indices import (
    COVER_CLASSES,
    NO_DATA,
    Classification,
    SpectralIndices,
    classify_pixels,
    percent,
)
from earthvlm.scenes.places.gazetteer import describe_nearest, distance_km
from earthvlm.scenes.scene import Scene

SAME_PLACE_DEGREES = 0.02  # about 2 km
# Cloud and shadow of less than this are not mentioned.
MENTIONED = 0.05
# Scenes that both show less of the ground than this are not compared: between many clouds lie thin
# ones and shadows. Pixels so near to a cloud are left out.
LEAST_SEEN, CLOUD_MARGIN = 0.2, 3
# Two months apart, vegetation is compared without a sentence on seasons.
SAME_SEASON_MONTHS = 2


@dataclass(frozen=True)
class Change:
    """The share of a land cover in two scenes, 0 to 1, and the error of their difference."""

    cover: str
    before: float
    after: float
    error: float = 0.0

    @property
    def difference(self) -> float:
        """The change in percentage points."""
        return 100 * (self.after - self.before)

    @property
    def is_certain(self) -> bool:
        """Whether the difference is larger than its error."""
        return abs(self.after - self.before) > self.error

    @property
    def points(self) -> str:
        """The change with its error in percentage points: "+3.1 ± 0.4"."""
        difference = round(self.difference, 1)
        sign = "+" if difference > 0 else "−" if difference < 0 else ""
        return f"{sign}{abs(difference):.1f} ± {100 * self.error:.1f}"


@dataclass(frozen=True)
class Comparison:
    """What changed between two scenes of one place.

    Attributes:
        changes: of all covers measured in both scenes, the largest first.
        compared: the share of pixels that were seen in both scenes and were compared; None where
            the scenes cannot be laid over each other, and each was measured whole.
        doubts: sentences on why the comparison is doubtful.
        covers: the class of each pixel in the earlier and in the later scene, places in
            COVER_CLASSES, uint8 `[2, H, W]`; None where pixels were not compared.
        seen: the pixels that both scenes show, bool `[H, W]`; None likewise.
    """

    changes: tuple[Change, ...]
    compared: float | None
    doubts: tuple[str, ...]
    covers: np.ndarray | None = None
    seen: np.ndarray | None = None

    @property
    def left_out(self) -> str:
        """A sentence on the ground that was not compared; "" where all was."""
        if self.compared is None or self.compared >= 0.995:
            return ""
        return (
            f"Only the {percent(self.compared)} of the ground that both scenes show was compared."
        )

    @property
    def drawable(self) -> tuple[str, ...]:
        """The covers whose change `draw_change` can draw: those that either scene shows."""
        if self.covers is None or self.seen is None:
            return ()
        present = set(np.unique(self.covers[:, self.seen]).tolist())
        covers = (change.cover for change in self.changes)
        return tuple(cover for cover in covers if COVER_CLASSES.index(cover) in present)


def compare(before: Scene, after: Scene) -> Comparison:
    """Compare two scenes, by the pixels that both show where they lie over each other.

    Haze is subtracted from each. There are no changes where a scene lacks the near infrared, and
    none between two places.
    """
    first, second = classify_pixels(before), classify_pixels(after)
    doubts = _doubt_places(before, after)
    if first is None or second is None:
        doubts.append("The change cannot be measured, because a scene has no near-infrared band.")
        return Comparison((), None, tuple(doubts))
    doubts += _doubt_sight(before, first) + _doubt_sight(after, second)
    doubts += _doubt_season(before, after)
    if lie_apart(before, after):
        return Comparison((), None, tuple(doubts))
    if first.covers.shape != second.covers.shape:
        changes = compare_shares(first.measure(), second.measure())
        return Comparison(tuple(changes), None, tuple(doubts))
    seen, share = _find_seen(first, second)
    if share < LEAST_SEEN:
        doubts.append(
            f"Both scenes show only {percent(share)} of the ground: too little to compare."
        )
        return Comparison((), share, tuple(doubts))
    changes = compare_shares(first.measure(seen), second.measure(seen))
    changes = [change for change in changes if change.cover != "cloud"]
    covers = np.stack([first.covers, second.covers])
    return Comparison(tuple(changes), share, tuple(doubts), covers, seen)


def _find_seen(first: Classification, second: Classification) -> tuple[np.ndarray, float]:
    """Return the pixels whose ground both scenes show, and their share of those with data.

    Next to a cloud lie its thin edge and its shadow.
    """
    cloud = COVER_CLASSES.index("cloud")
    clouds = (first.covers == cloud) | (second.covers == cloud)
    near = ndimage.maximum_filter(clouds.view(np.uint8), 2 * CLOUD_MARGIN + 1, mode="nearest")
    seen = first.seen & second.seen & ~near.view(bool)
    both = (first.covers != NO_DATA) & (second.covers != NO_DATA)
    return seen, float(seen.sum() / max(both.sum(), 1))


def compare_shares(before: SpectralIndices, after: SpectralIndices) -> list[Change]:
    """Return the changes of all covers measured both times, the largest first."""
    both = [cover for cover in COVER_CLASSES if cover in before.shares and cover in after.shares]
    changes = [
        Change(
            cover,
            before.shares[cover],
            after.shares[cover],
            math.hypot(before.error(cover), after.error(cover)),
        )
        for cover in both
    ]
    return sorted(changes, key=lambda change: -abs(change.difference))


def lie_apart(first: Scene, second: Scene) -> bool:
    """Return whether two scenes are known to show different places."""
    pairs = ((first.longitude, second.longitude), (first.latitude, second.latitude))
    return any(abs(a - b) > SAME_PLACE_DEGREES for a, b in pairs if a is not None and b is not None)


def _doubt_places(first: Scene, second: Scene) -> list[str]:
    doubts = []
    if None in (first.longitude, first.latitude, second.longitude, second.latitude):
        doubts.append("A file does not give its place: check that both show one place.")
    elif lie_apart(first, second):
        doubts.append(_tell_places(first, second))
    if first.reflectance.shape != second.reflectance.shape:
        doubts.append("The scenes differ in size, so they cannot be compared pixel by pixel.")
    return doubts


def _tell_places(first: Scene, second: Scene) -> str:
    """Say that two scenes, whose places are known, show different ones."""
    positions = [(scene.longitude or 0.0, scene.latitude or 0.0) for scene in (first, second)]
    (west, south), (east, north) = positions
    apart = distance_km(west, south, east, north)
    names = " and ".join(describe_nearest(*position) for position in positions)
    return (
        f"These are two places, {apart:,.0f} km apart ({names}): a change over time can only be "
        "measured between two dates of one place."
    )


def _doubt_sight(scene: Scene, classified: Classification) -> list[str]:
    """Say what hides the ground of a scene, or veils it."""
    doubts, measured = [], classified.measure()
    if measured.share("cloud") > MENTIONED:
        doubts.append(
            f"Cloud hides {percent(measured.share('cloud'))} of {scene.name}: only what both "
            "scenes show can be compared."
        )
    if measured.is_hazy:
        doubts.append(
            f"Haze lies over {scene.name}. It was subtracted, but small changes may be the haze's."
        )
    if measured.dark > MENTIONED:
        doubts.append(
            f"{percent(measured.dark)} of {scene.name} is too dark to be measured, probably in "
            "shadow, and was left out."
        )
    return doubts


def _doubt_season(first: Scene, second: Scene) -> list[str]:
    if first.date is None or second.date is None:
        return []
    apart = abs(first.date.month - second.date.month)
    if min(apart, 12 - apart) <= SAME_SEASON_MONTHS:
        return []
    return ["The seasons differ, so vegetation differs even where nothing else changed."]


# The colours differ in lightness too, for readers who do not tell them apart by hue.
CHANGE_COLOURS = {
    "both times": (70, 105, 200),
    "gained": (60, 220, 235),
    "lost": (240, 130, 40),
    "not seen in both": (245, 235, 245),
}
UNCHANGED = len(CHANGE_COLOURS)  # the place in the palette of a pixel without the cover


def draw_change(comparison: Comparison, cover: str) -> Image.Image:
    """Draw where a cover was gained, lost and kept, and what is not seen in both scenes.

    Returns a picture with a palette, in CHANGE_COLOURS' order, that is transparent where neither
    scene has the cover, to be laid over one of them. Raises ValueError for a cover that is not in
    `comparison.drawable`.
    """
    if cover not in comparison.drawable:
        raise ValueError(f"the change of {cover!r} cannot be drawn of these scenes")
    assert comparison.covers is not None and comparison.seen is not None
    was, now = comparison.covers == COVER_CLASSES.index(cover)
    drawn = np.full(was.shape, UNCHANGED, np.uint8)
    for number, where in enumerate((was & now, now & ~was, was & ~now, ~comparison.seen)):
        drawn[where] = number
    picture = Image.fromarray(drawn, "P")
    picture.putpalette([*(part for colour in CHANGE_COLOURS.values() for part in colour), 0, 0, 0])
    picture.info["transparency"] = UNCHANGED
    return picture


def in_order_of_date(scenes: Sequence[Scene]) -> list[Scene]:
    """Sort scenes by date, unless one has none."""
    if any(scene.date is None for scene in scenes):
        return list(scenes)
    return sorted(scenes, key=lambda scene: scene.date or datetime.date.min)


def name_by_date(scenes: Sequence[Scene], write: Callable[[datetime.date], str]) -> list[str]:
    """Name scenes by their dates, as `write` writes them, where these differ; else by names."""
    dates = [write(scene.date) if scene.date else scene.name for scene in scenes]
    return dates if len(set(dates)) == len(dates) else [scene.name for scene in scenes]
