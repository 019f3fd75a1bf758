"""A small folder of labelled patches, drawn from spectra."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from earthvlm.data.drawn.spectra import draw_spectrum
from earthvlm.scenes.bands import BANDS

LABELS = {
    "masks": {"forest": {"1": ["tree cover"], "2": ["cropland or grass", "bare soil"]}},
    "covers": {"shore": ["water", "tree cover", "bare soil"]},
    "held_out": ["far"],
}


def draw_halves(left: str, right: str, side: int = 48, seed: int = 0) -> np.ndarray:
    """Reflectance `[H, W, 12]` of one cover on the left half and another on the right."""
    rng = np.random.default_rng(seed)
    pixels = np.empty((side, side, len(BANDS)), np.float32)
    pixels[:, : side // 2] = draw_spectrum(left, rng)
    pixels[:, side // 2 :] = draw_spectrum(right, rng)
    return pixels * rng.normal(1, 0.01, (side, side, 1)).astype(np.float32)


def write_labelled_patches(folder: Path) -> Path:
    """Write patches `shore_a` (water and trees, with a mask), `plain_b` and held-out `far_c`.

    Returns the path of the label file.
    """
    pixels = {
        "shore_a": draw_halves("water", "tree cover", seed=1),
        "plain_b": draw_halves("bare soil", "cropland or grass", seed=2),
        "far_c": draw_halves("water", "bare soil", seed=3),
    }
    arrays = {name: np.moveaxis(values, 2, 0).astype(np.uint16) for name, values in pixels.items()}
    forest = np.full((48, 48), 2, np.uint8)
    forest[:, 24:] = 1
    arrays["shore_a_forest"] = forest
    cover = np.full((48, 48), 255, np.uint8)
    cover[:10] = 3
    arrays["plain_b_cover"] = cover
    np.savez(folder / "drawn.npz", **arrays)
    patches = [
        {"id": "shore_a", "group": "shore", "date": "2020-05-01", "lonlat": [10.0, 50.0]},
        {"id": "plain_b", "group": "plain", "tags": ["fields"]},
        {"id": "far_c", "group": "far"},
    ]
    patches[0]["labels"] = {"forest": {}}
    source = {"file": "drawn.npz", "bands": list(BANDS), "level": "L2A", "patches": patches}
    (folder / "manifest.json").write_text(json.dumps({"sources": [source]}))
    (folder / "labels.json").write_text(json.dumps(LABELS))
    return folder / "labels.json"
