"""How the land cover of two scenes of one place differs."""

from __future__ import annotations

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
    """How a cover's share went from one scene to another; difference in percentage points."""

    cover: str
    before: float
    after: float

    @property
    def difference(self) -> float:
        """In percentage points."""
        return 100 * (self.after - self.before)


def compare(before: SpectralIndices, after: SpectralIndices) -> list[Change]:
    """How each cover that was measured in both scenes changed, the largest change first."""
    both = [cover for cover in COVER_CLASSES if cover in before.shares and cover in after.shares]
    changes = [Change(cover, before.shares[cover], after.shares[cover]) for cover in both]
    return sorted(changes, key=lambda change: -abs(change.difference))


def lie_apart(first: Scene, second: Scene) -> bool:
    """Whether two scenes are known to show two places."""
    pairs = ((first.longitude, second.longitude), (first.latitude, second.latitude))
    return any(abs(a - b) > SAME_PLACE_DEGREES for a, b in pairs if None not in (a, b))


def warn_before_comparing(first: Scene, second: Scene) -> list[str]:
    """Sentences on what makes a comparison of two scenes doubtful."""
    notes = []
    if None in (first.longitude, first.latitude, second.longitude, second.latitude):
        notes.append("A file does not say where it lies: check that both show one place.")
    elif lie_apart(first, second):
        notes.append("The two scenes lie apart, so differences are between places, not dates.")
    if first.reflectance.shape != second.reflectance.shape:
        notes.append("The two differ in size, so they cannot be laid over each other.")
    for scene in (first, second):
        measured = measure(scene)
        if measured is not None and measured.share("cloud") > 0.05:
            cloud = percent(measured.share("cloud"))
            notes.append(f"Thick cloud hides {cloud} of {scene.name}: its other shares mean less.")
    if first.date and second.date and abs(first.date.month - second.date.month) % 12 > 2:
        notes.append("The seasons differ, so plants differ even where nothing was changed.")
    return notes


# Water that came, went and stayed; the colours differ in lightness too.
WATER_CHANGE_COLOURS = {
    "water in both": (70, 105, 200),
    "water gained": (60, 220, 235),
    "water lost": (240, 130, 40),
}


def draw_water_change(before: Scene, after: Scene) -> Image.Image | None:
    """Water gained, lost and kept, over the later scene in grey; None where they do not align."""
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
    """The scenes by date; as they are where one has none."""
    if any(scene.date is None for scene in scenes):
        return list(scenes)
    return sorted(scenes, key=lambda scene: scene.date)
