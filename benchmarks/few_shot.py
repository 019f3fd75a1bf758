"""Measure search by words against search by a few examples, on tiles with a kind of scene each.

python -m benchmarks.few_shot --data_dir DATA [--model_path BRIDGE] [--draws 20]

Prints the mean precision@10 over kinds: by the kind's name, and by wanted and as many unwanted
tiles, which are left out of every search, also of that by words. They are drawn from all tiles, and
then from the first right and wrong results of the search by words, which visitors mark.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.labels import SCENE_NAMES
from earthvlm.data.sources.opening import open_scenes
from earthvlm.models.text_encoder import embed_sentences
from earthvlm.search.rank_fusion import fuse_ranks
from earthvlm.search.relevance import combine_examples

COUNTS = (1, 2, 3, 5, 8)
K = 10
MARKED_AMONG = 2  # as many times as examples are marked, right and wrong results are looked at


def precision(scores: np.ndarray, hits: np.ndarray, left_out: np.ndarray) -> float:
    """The share of hits among the K highest scores that are not left out."""
    scores = scores.copy()
    scores[left_out] = -np.inf
    return float(hits[np.argsort(-scores, kind="stable")[:K]].mean())


def draw_examples(
    similarities: np.ndarray,
    hits: np.ndarray,
    count: int,
    numbers: np.random.Generator,
    marked: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw wanted and unwanted tiles: from all, or from the first results that words find."""
    order = np.argsort(-similarities, kind="stable")
    depth = MARKED_AMONG * count if marked else len(order)
    wanted, unwanted = (
        numbers.choice(kind[:depth], count, replace=False)
        for kind in (order[hits[order]], order[~hits[order]])
    )
    return wanted, unwanted


def measure(
    vectors: np.ndarray,
    kinds: np.ndarray,
    words: dict[str, np.ndarray],
    count: int,
    draws: int,
    marked: bool,
) -> dict[str, float]:
    """Mean precision@K of each way to search, over kinds and draws of the examples."""
    numbers = np.random.default_rng(0)
    found: dict[str, list[float]] = {"words": [], "examples": [], "both": []}
    for name, word in words.items():
        hits = kinds == name
        if hits.sum() < count + K:
            continue
        by_words = vectors @ word
        for _ in range(draws):
            wanted, unwanted = draw_examples(by_words, hits, count, numbers, marked)
            vector = combine_examples(vectors[wanted], vectors[unwanted], lambda: vectors)
            by_examples = vectors @ vector
            scores = {
                "words": by_words,
                "examples": by_examples,
                "both": fuse_ranks([by_words, by_examples]),
            }
            given = np.concatenate([wanted, unwanted])
            for way, each in scores.items():
                found[way].append(precision(each, hits, given))
    return {way: float(np.mean(each)) for way, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True, help="tiles whose labels name a kind of scene")
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, help="the largest number of tiles of a kind")
    parser.add_argument("--model_path", default="bundled")
    parser.add_argument("--draws", type=int, default=20, help="of the examples, for each kind")
    arguments = parser.parse_args()
    dataset = open_scenes(arguments.data_dir, arguments.split)
    by_kind: dict[str, list[Any]] = {}
    for tile in dataset.tiles:
        if tile.labels and tile.labels.scene_class:
            by_kind.setdefault(tile.labels.scene_class, []).append(tile)
    chosen = [(name, tile) for name in by_kind for tile in by_kind[name][: arguments.limit]]
    bridge = OlmoEarthVLMBridge.from_pretrained(arguments.model_path)
    vectors = bridge.embed([dataset.read(tile) for _, tile in chosen])
    kinds = np.array([name for name, _ in chosen])
    sentences = embed_sentences([SCENE_NAMES[name] for name in by_kind])
    words = dict(zip(by_kind, sentences, strict=True))
    print("| examples of each | drawn from | words | examples | both |")
    print("|---|---|---|---|---|")
    for marked, origin in ((False, "all tiles"), (True, "first results")):
        for count in COUNTS:
            ways = measure(vectors, kinds, words, count, arguments.draws, marked)
            shares = " | ".join(f"{share:.3f}" for share in ways.values())
            print(f"| {count} | {origin} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
