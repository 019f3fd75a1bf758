"""The scenes of `benchmarks.truth` with what people see in them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from earthvlm import Scene, SceneIndex
from earthvlm.data.augmentation import IS_VISIBLE
from earthvlm.data.drawn.phenomena import draw_snow
from earthvlm.data.labelled_patches import LabelFile, LabelledPatches, Patch
from earthvlm.data.labels import SceneLabels
from earthvlm.data.pixel_labels import PixelLabels, cover_set
from earthvlm.data.questions.scene_sentences import find_quarters
from earthvlm.scenes.bands import TRUE_COLOUR_WHITE
from earthvlm.scenes.land_cover import COVERS, FIELDS, CoverMap

LABELS = Path("configs/patch_labels.json")
PLACES = Path(__file__).with_name("truth_places.json")
SEEN_BY_EYE = Path(__file__).with_name("truth_scenes.json")
# Scenes of one place at most: a place that was photographed often would decide every figure.
MAX_OF_A_PLACE = 40
# Letters of the tables of ninths; "." where people would disagree.
LETTERS = {
    "W": ("water",),
    "T": ("tree cover",),
    "U": ("built-up land",),
    "F": ("burnt land",),
    "K": ("cloud",),
    "c": ("cropland or grass", "bare soil"),
    "b": ("bare soil", "sparse vegetation"),
    "d": ("cropland or grass", "bare soil", "sparse vegetation"),
    "s": ("tree cover", "sparse vegetation"),
}
# Masks that give a cover of every pixel, with the value and the cover, and the value of no data.
FULL_MASKS = {"gt6": (4, "water", 2), "forest": (1, "tree cover", None)}
# Covers are asked where they are if their share is between these: neither a trace nor all.
LEAST_ASKED, MOST_ASKED = 0.04, 0.9
SNOWY = 20  # scenes that snow is drawn on
SNOW_SHARE = 0.15


@dataclass(frozen=True)
class KnownScene:
    """A scene, the covers that are in view and those that are not, and where they lie.

    dominant: covers that people could call the main one. ninths: the same for fields of the scene.
    shares: of covers that a mask gives for every pixel. quarters: those that hold most of a cover.
    """

    name: str
    scene: Scene
    present: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    dominant: tuple[str, ...] = ()
    ninths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    quarters: dict[str, list[str]] = field(default_factory=dict)

    def in_view(self, cover: str) -> bool | None:
        """Whether a cover is in view; None where nobody said."""
        return True if cover in self.present else False if cover in self.absent else None


def read_patch(folder: Path, name: str) -> Scene:
    """One of the patches of unseen places."""
    patches = LabelledPatches(folder / "s2_world", LabelFile.read(LABELS), held_out=True)
    return patches.read(next(patch for patch in patches.patches if patch.id == name))


def read_unseen(folder: Path) -> list[KnownScene]:
    """The labelled patches of places that training leaves out, some of each place."""
    labels = LabelFile.read(LABELS)
    patches = LabelledPatches(folder / "s2_world", labels, held_out=True)
    places, eye = (json.loads(path.read_text()) for path in (PLACES, SEEN_BY_EYE))
    by_place: dict[str, list[Patch]] = defaultdict(list)
    for patch in patches.patches:
        by_place[patch.group].append(patch)
    found = []
    for group in by_place.values():
        chosen = np.linspace(0, len(group) - 1, min(len(group), MAX_OF_A_PLACE)).astype(int)
        for patch in (group[i] for i in chosen):
            seen = places[patch.id]
            hidden = seen["dominant"] == ["cloud"]
            ninths = "K" * len(FIELDS) if hidden else eye["ninths"].get(patch.id, "." * len(FIELDS))
            shares, quarters = _read_mask(patches, patch)
            found.append(
                KnownScene(
                    patch.id,
                    patches.read(patch),
                    frozenset(seen["present"]),
                    frozenset(seen["absent"]),
                    tuple(seen["dominant"]),
                    {
                        name: LETTERS[letter]
                        for name, letter in zip(FIELDS, ninths, strict=True)
                        if letter != "."
                    },
                    shares,
                    quarters,
                )
            )
    return found


def _read_mask(
    patches: LabelledPatches, patch: Patch
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """The share of the cover that a mask gives, and the quarters in which most of it lies."""
    for name in patch.masks:
        if name not in FULL_MASKS:
            continue
        value, cover, outside = FULL_MASKS[name]
        with np.load(patches.folder / patch.file) as file:
            mask = file[f"{patch.id}_{name}"]
        classes = np.where(mask == value, COVERS.index(cover), COVERS.index("bare soil"))
        classes[mask == outside] = 255
        labels = SceneLabels.from_cover_map(CoverMap(classes.astype(np.uint8)), cells=2)
        share = labels.shares[cover]
        asked = LEAST_ASKED < share < MOST_ASKED
        return {cover: share}, {cover: find_quarters(labels, cover)} if asked else {}
    return {}, {}


def draw_snow_on(scenes: Sequence[KnownScene]) -> list[KnownScene]:
    """Scenes without snow, some of them with snow that is drawn on them."""
    bare = [s for s in scenes if s.in_view("snow or ice") is False and not s.scene.is_rgb_only]
    bare = [s for s in bare if "cloud" not in s.present]
    found = []
    for index in np.linspace(0, len(bare) - 1, min(SNOWY, len(bare))).astype(int):
        known, rng = bare[index], np.random.default_rng(int(index))
        possible = np.full(known.scene.reflectance.shape[:2], cover_set(["bare soil"]))
        labels = PixelLabels.of_sets(possible)
        pixels, labels = draw_snow(known.scene.reflectance, labels, rng)
        share = float((labels.possible == cover_set(["snow or ice"])).mean())
        if share < SNOW_SHARE:
            continue
        scene = replace(known.scene, reflectance=np.maximum(pixels, 0).astype(np.float32))
        name = f"{known.name} with snow"
        found.append(KnownScene(name, scene, present=frozenset({"snow or ice"})))
    return [*scenes, *found]


def read_bundled() -> list[KnownScene]:
    """The bundled scenes with the water, snow and cloud that people see in them."""
    eye = json.loads(SEEN_BY_EYE.read_text())["bundled"]
    found = []
    index = SceneIndex.from_pretrained("bundled")
    for result in index.browse_rows(range(len(index))):
        present = {cover for cover, names in eye["present"].items() if result.image_id in names}
        unclear = {cover for cover, names in eye["unclear"].items() if result.image_id in names}
        found.append(
            KnownScene(
                result.image_id,
                result.open_scene(),
                frozenset(present),
                frozenset(set(eye["present"]) - present - unclear),
            )
        )
    return found


def as_photos(scenes: Iterable[KnownScene]) -> list[KnownScene]:
    """The same scenes as 8-bit pictures of their visible bands, without date and place."""
    found = []
    for known in scenes:
        unit = (known.scene.reflectance / TRUE_COLOUR_WHITE).clip(0, 1)
        levels = np.rint(unit * 255) / 255 * TRUE_COLOUR_WHITE
        pixels = np.where(IS_VISIBLE, levels, np.nan).astype(np.float32)
        name = f"{known.name} as a photo"
        found.append(replace(known, name=name, scene=Scene(pixels, name=name)))
    return found
