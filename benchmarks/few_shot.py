"""Measure search by words against search by a few examples, on tiles with a kind of scene each.

python -m benchmarks.few_shot --data_dir DATA [--model_path BRIDGE] [--draws 20]

Prints the mean precision@10 over kinds: by the kind's name, and by 1 to 5 wanted and as many
unwanted tiles, which are left out of every search, also of that by words.
"""

from __future__ import annotations

import argparse

import numpy as np

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.labels import SCENE_NAMES
from earthvlm.data.sources.opening import open_scenes
from earthvlm.models.text_encoder import embed_sentences
from earthvlm.search.relevance import apply_rocchio, combine_examples

COUNTS = (1, 2, 3, 5, 8)
K = 10


def precision(scores: np.ndarray, hits: np.ndarray, left_out: np.ndarray) -> float:
    """The share of hits among the K highest scores that are not left out."""
    scores = scores.copy()
    scores[left_out] = -np.inf
    return float(hits[np.argsort(-scores, kind="stable")[:K]].mean())


def measure(
    vectors: np.ndarray, kinds: np.ndarray, count: int, draws: int, seed: int = 0
) -> dict[str, float]:
    """Mean precision@K of each way to search, over kinds and draws of the examples."""
    numbers = np.random.default_rng(seed)
    names = [kind for kind in sorted(set(kinds)) if (kinds == kind).sum() >= count + K]
    words = dict(zip(names, embed_sentences([SCENE_NAMES[name] for name in names]), strict=True))
    found: dict[str, list[float]] = {"words": [], "mean of wanted": [], "examples": [], "both": []}
    for name in names:
        hits = kinds == name
        for _ in range(draws):
            wanted = numbers.choice(np.flatnonzero(hits), count, replace=False)
            unwanted = numbers.choice(np.flatnonzero(~hits), count, replace=False)
            given = np.concatenate([wanted, unwanted])
            vector = combine_examples(vectors[wanted], vectors[unwanted])
            moved = apply_rocchio(words[name], vectors[wanted], vectors[unwanted])
            scores = {
                "words": vectors @ words[name],
                "mean of wanted": vectors @ vectors[wanted].mean(axis=0),
                "examples": vectors @ vector,
                "both": vectors @ moved,
            }
            for way, each in scores.items():
                found[way].append(precision(each, hits, given))
    return {way: float(np.mean(each)) for way, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True, help="tiles whose labels name a kind of scene")
    parser.add_argument("--split", default="val")
    parser.add_argument("--model_path", default="bundled")
    parser.add_argument("--draws", type=int, default=20, help="of the examples, for each kind")
    arguments = parser.parse_args()
    dataset = open_scenes(arguments.data_dir, arguments.split)
    tiles = [tile for tile in dataset.tiles if tile.labels and tile.labels.scene_class]
    bridge = OlmoEarthVLMBridge.from_pretrained(arguments.model_path)
    vectors = bridge.embed([dataset.read(tile) for tile in tiles])
    kinds = np.array([tile.labels.scene_class for tile in tiles if tile.labels])
    print("| examples of each | words | mean of wanted | wanted and unwanted | with words |")
    print("|---|---|---|---|---|")
    for count in COUNTS:
        ways = measure(vectors, kinds, count, arguments.draws)
        print(f"| {count} | {' | '.join(f'{share:.3f}' for share in ways.values())} |")


if __name__ == "__main__":
    main()
