"""Compare the land cover of two scenes of one place."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from earthvlm.scenes.scene import Scene
from earthvlm.scenes.spectral_indices import (
    COVER_CLASSES,
    SpectralIndices,
    classify,
    measure,
    percent,
)

SAME_PLACE_DEGREES = 0.02  # about 2 km


@dataclass(frozen=True)
class Change:
    """The share of a land cover in two scenes, 0 to 1."""

    cover: str
    before: float
    after: float

    @property
    def difference(self) -> float:
        """The change in percentage points."""
        return 100 * (self.after - self.before)


def compare(before: SpectralIndices, after: SpectralIndices) -> list[Change]:
    """Return the changes of all covers measured in both scenes, the largest first."""
    both = [cover for cover in COVER_CLASSES if cover in before.shares and cover in after.shares]
    changes = [Change(cover, before.shares[cover], after.shares[cover]) for cover in both]
    return sorted(changes, key=lambda change: -abs(change.difference))


def lie_apart(first: Scene, second: Scene) -> bool:
    """Return whether two scenes are known to show different places."""
    pairs = ((first.longitude, second.longitude), (first.latitude, second.latitude))
    return any(abs(a - b) > SAME_PLACE_DEGREES for a, b in pairs if a is not None and b is not None)


def warn_before_comparing(first: Scene, second: Scene) -> list[str]:
    """Return sentences on why a comparison of two scenes is doubtful."""
    notes = []
    if None in (first.longitude, first.latitude, second.longitude, second.latitude):
        notes.append("A file does not give its place: check that both show one place.")
    elif lie_apart(first, second):
        notes.append("The scenes lie apart, so differences are between places, not dates.")
    if first.reflectance.shape != second.reflectance.shape:
        notes.append("The scenes differ in size, so they cannot be compared pixel by pixel.")
    for scene in (first, second):
        measurements = measure(scene)
        if measurements is not None and measurements.share("cloud") > 0.05:
            cloud = percent(measurements.share("cloud"))
            notes.append(
                f"Thick cloud hides {cloud} of {scene.name}: its other shares are less reliable."
            )
    if first.date and second.date and abs(first.date.month - second.date.month) % 12 > 2:
        notes.append("The seasons differ, so vegetation differs even where nothing else changed.")
    return notes


# The colours differ in lightness too, for readers who do not tell them apart by hue.
WATER_CHANGE_COLOURS = {
    "water in both": (70, 105, 200),
    "water gained": (60, 220, 235),
    "water lost": (240, 130, 40),
}


def draw_water_change(before: Scene, after: Scene) -> Image.Image | None:
    """Draw water gained, lost and kept over the later scene in grey.

    Returns None where the scenes cannot be compared pixel by pixel.
    """
    first, second = classify(before), classify(after)
    if first is None or second is None or first.shape != second.shape or lie_apart(before, after):
        return None
    grey = after.composite().convert("L").point(lambda value: 90 + value * 0.6)
    pixels = np.array(grey.convert("RGB"))
    water = COVER_CLASSES.index("water")
    was, now = first == water, second == water
    for where, colour in zip(
        (was & now, now & ~was, was & ~now), WATER_CHANGE_COLOURS.values(), strict=True
    ):
        pixels[where] = colour
    return Image.fromarray(pixels)


def in_order_of_date(scenes: Sequence[Scene]) -> list[Scene]:
    """Sort scenes by date, unless one has none."""
    if any(scene.date is None for scene in scenes):
        return list(scenes)
    return sorted(scenes, key=lambda scene: scene.date or datetime.date.min)
