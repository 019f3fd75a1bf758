"""Writes generated scenes in ChatEarthNet's layout, to see that code runs without real data.

    python -m tests.support.generated_chatearthnet FOLDER

Each quarter of a scene is one land cover of a typical spectrum with noise, so captions and labels
are true of the pixels.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from earthvlm.scenes.bands import CHATEARTHNET_FOLDERS, EIGHT_BIT_SCALE

SIDE = 64
QUARTERS = ("top left", "top right", "bottom left", "bottom right")
# Typical reflectance x 10000, in the order of the bands of CHATEARTHNET_FOLDERS.
SPECTRA = {
    "water": (300, 500, 600, 250, 200, 200, 150, 80, 50),
    "tree cover": (250, 400, 250, 700, 1900, 2300, 2500, 1300, 600),
    "cropland or grass": (500, 700, 400, 1100, 2800, 3400, 3600, 2000, 1100),
    "bare soil": (1700, 1300, 1000, 2000, 2200, 2400, 2600, 3300, 2800),
    "built-up land": (1500, 1400, 1300, 1600, 1800, 1900, 2000, 2100, 1900),
    "sparse vegetation": (1100, 900, 700, 1400, 1700, 1900, 2100, 2600, 2000),
}
NOISE = 60  # reflectance x 10000, standard deviation


def write_generated_chatearthnet(
    folder: Path, train: int = 12, val: int = 4, seed: int = 0, side: int = SIDE
) -> list[str]:
    """Write scenes with captions and `labels.json`; returns the images' names, train first.

    side: of a scene, in pixels.
    """
    rng = np.random.default_rng(seed)
    names, labels = [], {}
    (folder / "json_files").mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("val", val)):
        captions = []
        for _ in range(count):
            name = f"generated_{len(names):04d}.png"
            covers = rng.choice(list(SPECTRA), size=len(QUARTERS))
            _write_triplet(folder, name, covers, side, rng)
            labels[name] = _describe_facts(split, covers)
            listed = ", ".join(f"{c} in the {q}" for q, c in zip(QUARTERS, covers, strict=True))
            captions.append({"image": name, "caption": f"The scene shows {listed}."})
            names.append(name)
        path = folder / "json_files" / f"ChatEarthNet_caps_35_{split}.json"
        path.write_text(json.dumps(captions, indent=1))
    (folder / "labels.json").write_text(json.dumps(labels, indent=1))
    return names


def _write_triplet(
    folder: Path, name: str, covers: np.ndarray, side: int, rng: np.random.Generator
) -> None:
    quarters = np.array([SPECTRA[cover] for cover in covers], dtype=float).reshape(2, 2, -1)
    reflectance = quarters.repeat(side // 2, axis=0).repeat(side // 2, axis=1)
    reflectance += rng.normal(0, NOISE, reflectance.shape)
    first = 0
    for subfolder, bands in CHATEARTHNET_FOLDERS.items():
        target = folder / subfolder
        if subfolder == "s2_rgb_images":
            target /= "s2_images"
        target.mkdir(parents=True, exist_ok=True)
        scale = np.array([EIGHT_BIT_SCALE[band] for band in bands])
        steps = reflectance[:, :, first : first + len(bands)] / scale
        Image.fromarray(steps.round().clip(1, 255).astype(np.uint8)).save(target / name)
        first += len(bands)


def _describe_facts(split: str, covers: np.ndarray) -> dict[str, object]:
    return {
        "split": split,
        "scene": None,
        "scene_source": None,
        "land_cover": {cover: float(np.mean(covers == cover)) for cover in SPECTRA},
        "quadrants": {
            quarter: {name: float(name == cover) for name in SPECTRA}
            for quarter, cover in zip(QUARTERS, covers, strict=True)
        },
    }


if __name__ == "__main__":
    write_generated_chatearthnet(Path(sys.argv[1]))
