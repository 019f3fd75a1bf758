"""How often the bundled bridge is right about places unlike its training tiles.

    python -m benchmarks.unseen_places --data_dir DATA [--model_path BRIDGE]

DATA holds a `manifest.json` that lists sources and their patches, and one `.npz` file a source with
an array `[C, H, W]` a patch, reflectance x 10000 (0 is no data). A patch is asked about water only
where its mask or the tags that people gave it say whether there is water, and about clouds
likewise. Every figure is a balanced accuracy (the mean of the shares of right answers among
the patches with and without), so that always giving one answer scores 0.5.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

from earthvlm import OlmoEarthVLMBridge, Scene
from earthvlm.scenes.spectral_indices import measure

WATER_TAGS = {"river", "lagoon", "coast", "shallow_water", "lake", "dark_lake", "turbid_river"}
DRY_TAGS = {"desert", "semi_desert", "steppe", "mountains"}
# Shares of a labelled mask: water from the first on, none below the second.
MASK_WATER, MASK_DRY = 0.05, 0.002
MEASURED_PRESENT = 0.02  # share from which spectral indices say that a cover is there
RESAMPLES = 2000


def has_water(patch: dict) -> bool | None:
    """Whether a patch shows water; None where its labels do not say."""
    tags, mask = set(patch.get("tags", ())), patch.get("labels", {}).get("gt6")
    if mask is not None:
        share = mask.get("water", 0.0) + mask.get("wet_fields_or_ponds", 0.0)
        return True if mask.get("water", 0.0) > MASK_WATER else False if share < MASK_DRY else None
    if tags & WATER_TAGS:
        return True
    return False if tags & DRY_TAGS and not tags & {"salt_flat", "mangrove"} else None


def has_cloud(patch: dict) -> bool | None:
    """Whether clouds hide a part of a patch; None where its tags do not say."""
    tags = set(patch.get("tags", ()))
    if tags & {"cloudy", "partly_cloudy"}:
        return True
    return False if "clear" in tags else None


# The question, what the labels say, and what spectral indices call it.
QUESTIONS: dict[str, tuple[str, Callable[[dict], bool | None], str]] = {
    "water": ("Is there water?", has_water, "water"),
    "cloud": ("Are there clouds?", has_cloud, "cloud"),
}


def read_scenes(folder: Path) -> list[tuple[dict, Scene]]:
    """Every patch that a question can be asked about, with its scene."""
    found = []
    for source in json.loads((folder / "manifest.json").read_text())["sources"]:
        if source["level"] == "RGB8":
            continue
        with np.load(folder / source["file"]) as arrays:
            for patch in source["patches"]:
                if all(label(patch) is None for _, label, _ in QUESTIONS.values()):
                    continue
                date = patch.get("date")
                longitude, latitude = patch.get("lonlat", (None, None))
                scene = Scene.from_array(
                    np.moveaxis(arrays[patch["id"]], 0, -1),
                    source["bands"],
                    date=datetime.date.fromisoformat(date) if date else None,
                    longitude=longitude,
                    latitude=latitude,
                    name=patch["id"],
                    boa_offset=False,
                )
                found.append((patch, scene))
    return found


def says_yes(answer: str) -> bool:
    """Whether an answer to a yes/no question affirms: "Yes, ..." or "Clouds hide ..."."""
    return answer.startswith(("Yes", "Clouds hide"))


def balanced_accuracy(right: np.ndarray, truth: np.ndarray) -> float:
    """The mean of the shares that are right among those with and those without."""
    return float(np.mean([right[truth].mean(), right[~truth].mean()]))


def interval(right: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The bootstrap's 95 % interval of a balanced accuracy."""

    def statistic(right: np.ndarray, truth: np.ndarray, axis: int = -1) -> np.ndarray:
        shares = [
            (right * chosen).sum(axis) / np.maximum(chosen.sum(axis), 1)
            for chosen in (truth, ~truth)
        ]
        return np.mean(shares, axis=0)

    between = bootstrap(
        (right.astype(float), truth),
        statistic,
        paired=True,
        n_resamples=RESAMPLES,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(between.low), float(between.high)


def main() -> None:
    """Print one row a question."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--model_path", default="bundled", help="a bridge's folder or Hub id")
    parser.add_argument("--output", type=Path, help="write every answer to this JSON file")
    arguments = parser.parse_args()
    bridge = OlmoEarthVLMBridge.from_pretrained(arguments.model_path, device="cpu")
    scenes = read_scenes(arguments.data_dir)
    print(
        "| question | bridge | 95 % interval | shuffled image | no image | spectral indices "
        "| scenes |"
    )
    print("|---|---|---|---|---|---|---|")
    answers = []
    for name, (question, label, cover) in QUESTIONS.items():
        asked = [(patch, scene) for patch, scene in scenes if label(patch) is not None]
        truth = np.array([label(patch) for patch, _ in asked], dtype=np.bool_)
        texts = bridge.generate([scene for _, scene in asked], question, 32)
        yes = np.array([says_yes(text) for text in texts])
        others = np.random.default_rng(0).permutation(len(yes))
        measured = [measure(scene) for _, scene in asked]
        indices = np.array([m is not None and m.share(cover) > MEASURED_PRESENT for m in measured])
        without = bridge.generate(None, [question], 32)[0]
        low, high = interval(yes == truth, truth)
        values = [
            balanced_accuracy(given == truth, truth)
            for given in (yes, yes[others], np.full(len(yes), says_yes(without)), indices)
        ]
        print(
            f"| {name} | {values[0]:.2f} | {low:.2f} to {high:.2f} | {values[1]:.2f} | "
            f"{values[2]:.2f} | {values[3]:.2f} | {len(yes)} |",
            flush=True,
        )
        answers += [
            {"scene": scene.name, "question": question, "answer": text, "right": bool(y == t)}
            for (_, scene), text, y, t in zip(asked, texts, yes, truth, strict=True)
        ]
    if arguments.output:
        arguments.output.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
