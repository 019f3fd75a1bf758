"""How often a bridge's land-cover maps are right about places that its training never saw.

    python -m benchmarks.land_cover_maps --data_dir DATA --model_path BRIDGE [--pictures FOLDER]

DATA holds labelled patches (see `earthvlm.data.labelled_patches`). `configs/patch_labels.json`
names the places that training leaves out, and `truth_places.json` says what people see in each of
their patches: covers that are in view, covers that are not, and the one that dominates, or several
where people would disagree. Figures of a cover are balanced accuracies of whether the map shows it.
`--bands photo` shows the bridge the visible bands as an 8-bit picture, and nothing else.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from earthvlm import OlmoEarthVLMBridge, Scene
from earthvlm.data.augmentation import IS_VISIBLE
from earthvlm.data.labelled_patches import LabelFile, LabelledPatches
from earthvlm.data.pixel_labels import PixelLabels
from earthvlm.scenes.bands import TRUE_COLOUR_WHITE
from earthvlm.scenes.land_cover import COVER_COLOURS, COVERS, FIELDS, CoverMap

LABELS = Path("configs/patch_labels.json")
TRUTH = Path(__file__).with_name("truth_places.json")
# A field of the map is scored where labels are certain of one cover on this part of it.
CERTAIN_FIELD = 0.6


def as_photo(scene: Scene) -> Scene:
    """The visible bands alone, in 256 levels."""
    unit = (scene.reflectance / TRUE_COLOUR_WHITE).clip(0, 1)
    levels = np.rint(unit * 255) / 255 * TRUE_COLOUR_WHITE
    pixels = np.where(IS_VISIBLE, levels, np.nan).astype(np.float32)
    return Scene(pixels, scene.date, scene.longitude, scene.latitude, scene.name)


def score_fields(found: CoverMap, labels: PixelLabels) -> list[bool]:
    """Whether the dominant cover of each field is right, where the labels are certain."""
    single = labels.possible & (labels.possible - 1) == 0
    known = np.where(single, np.log2(labels.possible.clip(1)).astype(np.uint8), 255)
    right = []
    truth = CoverMap(known).fields
    for name in FIELDS:
        counts = np.bincount(truth[name].classes.ravel(), minlength=256)
        best = int(counts[: len(COVERS)].argmax())
        if counts[best] > CERTAIN_FIELD * counts.sum():
            right.append(next(iter(found.fields[name].shares)) == COVERS[best])
    return right


def draw(scene: Scene, found: CoverMap, size: int = 256) -> Image.Image:
    """The scene in true colour with its map to the right."""
    colours = np.array([COVER_COLOURS[cover] for cover in COVERS], np.uint8)
    parts = [scene.composite(), Image.fromarray(colours[found.classes])]
    picture = Image.new("RGB", (2 * size, size))
    for number, part in enumerate(parts):
        picture.paste(part.resize((size, size), Image.Resampling.NEAREST), (number * size, 0))
    return picture


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of balanced accuracies by cover, then dominant covers and fields."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--model_path", default="bundled", help="a bridge's folder or Hub id")
    parser.add_argument("--bands", choices=("all", "photo"), default="all")
    parser.add_argument("--pictures", type=Path, help="write a picture of each map there")
    options = parser.parse_args(arguments)
    bridge = OlmoEarthVLMBridge.from_pretrained(options.model_path, device="cpu")
    truth = json.loads(TRUTH.read_text())
    patches = LabelledPatches(options.data_dir, LabelFile.read(LABELS), held_out=True)
    shown: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    dominant, fields, wrong = [], [], []
    for patch in patches.patches:
        scene = patches.read(patch)
        seen = as_photo(scene) if options.bands == "photo" else scene
        found, known = bridge.map_land_cover(seen), truth[patch.id]
        for there, covers in ((True, known["present"]), (False, known["absent"])):
            for cover in covers:
                shown[cover].append((there, found.shows(cover)))
                if found.shows(cover) != there:
                    wrong.append(f"{patch.id}: {cover} {'missed' if there else 'invented'}")
        if known["dominant"]:
            dominant.append(next(iter(found.shares)) in known["dominant"])
            if not dominant[-1]:
                wrong.append(f"{patch.id}: dominant {next(iter(found.shares))}")
        fields += score_fields(found, patches.read_labels(patch, scene))
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            draw(seen, found).save(options.pictures / f"{patch.id}.png")
    print("| cover | with | without | recall | false alarms | balanced accuracy |")
    print("|---|---|---|---|---|---|")
    for cover in COVERS:
        pairs = shown[cover]
        yes, no = ([s for there, s in pairs if there == wanted] for wanted in (True, False))
        recall = np.mean(yes) if yes else np.nan
        alarms = np.mean(no) if no else np.nan
        print(
            f"| {cover} | {len(yes)} | {len(no)} | {recall:.2f} | {alarms:.2f} | "
            f"{(recall + 1 - alarms) / 2:.3f} |"
        )
    print(f"dominant cover: {np.mean(dominant):.3f} of {len(dominant)}")
    print(f"fields of three by three: {np.mean(fields):.3f} of {len(fields)}")
    print("\n".join(wrong))


if __name__ == "__main__":
    main()
