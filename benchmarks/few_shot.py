"""Measure search by words against search by a few examples, on tiles with a kind of scene each.

python -m benchmarks.few_shot --data_dir DATA [--model_path BRIDGE] [--draws 20]

Prints the mean precision@10 over kinds: by the kind's name, and by wanted and as many unwanted
tiles, which are left out of every search, also of that by words. They are drawn from all tiles, and
then from the first right and wrong results of the search by words, which visitors mark. The last
column is no search by examples: a regression of all labelled training tiles ranks by the
probability of the kind, and shows how much of the kinds the embedding tells at all.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.captioned_scenes import Tile
from earthvlm.data.labels import SCENE_NAMES
from earthvlm.data.sources.opening import open_scenes
from earthvlm.data.tile_dataset import TileDataset
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
    likely: dict[str, np.ndarray],
    count: int,
    draws: int,
    marked: bool,
) -> dict[str, float]:
    """Mean precision@K of each way to search, over kinds and draws of the examples.

    likely: what `rank_by_labels` returned.
    """
    numbers = np.random.default_rng(0)
    found: dict[str, list[float]] = {"words": [], "examples": [], "both": [], "labels": []}
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
                "labels": likely[name],
            }
            given = np.concatenate([wanted, unwanted])
            for way, each in scores.items():
                found[way].append(precision(each, hits, given))
    return {way: float(np.mean(each)) for way, each in found.items()}


def find_kinds(dataset: TileDataset, limit: int | None) -> list[tuple[str, Tile]]:
    """The tiles whose kind is known, at most `limit` of each kind, each with its kind."""
    by_kind: dict[str, list[Tile]] = {}
    for tile in dataset.tiles:
        if tile.labels and tile.labels.scene_class:
            by_kind.setdefault(tile.labels.scene_class, []).append(tile)
    return [(name, tile) for name in by_kind for tile in by_kind[name][:limit]]


def rank_by_labels(
    bridge: OlmoEarthVLMBridge, training: TileDataset, vectors: np.ndarray
) -> dict[str, np.ndarray]:
    """The probability of each kind at each vector, by a regression of all labelled tiles."""
    labelled = find_kinds(training, None)
    known = bridge.embed([training.read(tile) for _, tile in labelled])
    probe = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
    ).fit(known, [name for name, _ in labelled])
    return dict(zip(probe.classes_, probe.predict_proba(vectors).T, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True, help="tiles whose labels name a kind of scene")
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, help="the largest number of tiles of a kind")
    parser.add_argument("--model_path", default="bundled")
    parser.add_argument("--draws", type=int, default=20, help="of the examples, for each kind")
    arguments = parser.parse_args()
    dataset = open_scenes(arguments.data_dir, arguments.split)
    chosen = find_kinds(dataset, arguments.limit)
    bridge = OlmoEarthVLMBridge.from_pretrained(arguments.model_path)
    vectors = bridge.embed([dataset.read(tile) for _, tile in chosen])
    kinds = np.array([name for name, _ in chosen])
    names = list(dict.fromkeys(name for name, _ in chosen))
    sentences = embed_sentences([SCENE_NAMES[name] for name in names])
    words = dict(zip(names, sentences, strict=True))
    likely = rank_by_labels(bridge, open_scenes(arguments.data_dir, "train"), vectors)
    print("| examples of each | drawn from | words | examples | both | all training labels |")
    print("|---|---|---|---|---|---|")
    for marked, origin in ((False, "all tiles"), (True, "first results")):
        for count in COUNTS:
            ways = measure(vectors, kinds, words, likely, count, arguments.draws, marked)
            shares = " | ".join(f"{share:.3f}" for share in ways.values())
            print(f"| {count} | {origin} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
