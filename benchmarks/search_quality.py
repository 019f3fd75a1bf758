"""Measure how well words and scenes find scenes without captions, next to simpler ways to search.

python -m benchmarks.search_quality --data_dir DATA [--model_path BRIDGE] [--describe 240]

The tiles of the validation split are searched among themselves, and together with the bundled
scenes. A query of words is a tile's caption; the tiles that share the caption are relevant. A query
by scene should find scenes of its hand-labelled class; a query of both, a caption and another scene
of the class, should find the tile. Baselines are trained on the training split: band statistics
with a ridge regression to the captions' embeddings, and with one classifier of them and one of the
text. --describe N lets the bridge caption N tiles, for search in captions alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.report import RESULTS
from earthvlm import OlmoEarthVLMBridge, Scene, SceneIndex
from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.generation.sampling import DEFAULT_PROMPT
from earthvlm.metrics.results import MetricResult, confidence_interval
from earthvlm.metrics.retrieval import RECALL_AT
from earthvlm.models.text_encoder import embed_sentences
from earthvlm.scenes.bands import BANDS
from earthvlm.search.rank_fusion import fuse_ranks

PERCENTILES = (5, 25, 50, 75, 95)
# ChatEarthNet's bands, which every collection here has.
SHARED = [BANDS.index(band) for band in BANDS if band not in ("B8A", "B01", "B09")]
RIDGE = 10.0


@dataclass(frozen=True)
class Collection:
    """Tiles that are searched for, and the scenes among which they are; the tiles come first."""

    name: str
    captions: list[str]
    classes: np.ndarray
    scenes: list[Scene]

    @property
    def tiles(self) -> int:
        return len(self.captions)


def describe_bands(scenes: list[Scene]) -> np.ndarray:
    """Return mean, deviation and percentiles of each band and of its step to the next, `[N, F]`."""
    rows = []
    for scene in scenes:
        pixels = np.log1p(np.maximum(scene.reflectance[:, :, SHARED], 0)).reshape(-1, len(SHARED))
        ratios = np.diff(pixels, axis=1)
        both = np.concatenate([pixels, ratios], axis=1)
        values = [both.mean(0), both.std(0), *np.percentile(both, PERCENTILES, axis=0)]
        rows.append(np.concatenate(values))
    return np.array(rows)


def rank_first(
    similarity: np.ndarray, relevant: np.ndarray, left_out: np.ndarray | None = None
) -> np.ndarray:
    """Return the rank of the best relevant scene for each query `[Q, N]`; ties count against it."""
    similarity = np.where(left_out, -np.inf, similarity) if left_out is not None else similarity
    best = np.where(relevant, similarity, -np.inf).max(axis=1)
    ahead = ((similarity >= best[:, None]) & ~relevant).sum(axis=1)
    return ahead + 1


def score_ranks(
    name: str, ranks: np.ndarray, relevant: np.ndarray, pool: np.ndarray
) -> list[MetricResult]:
    """Return recall at 1, 5 and 10 and the mean reciprocal rank, with those of a random order.

    relevant, pool: the number of relevant scenes and of all scenes for each query, `[Q]`.
    """
    chance = [_chance(int(n), int(r)) for n, r in zip(pool, relevant, strict=True)]
    found = []
    for k in RECALL_AT:
        low, high = confidence_interval((ranks <= k).astype(float), 0)
        shuffled = float(np.mean([each[:k].sum() for each in chance]))
        value = float((ranks <= k).mean())
        found.append(
            MetricResult(f"{name}, recall@{k}", value, low, high, shuffled, None, len(ranks))
        )
    reciprocal = 1 / ranks
    low, high = confidence_interval(reciprocal, 0)
    shuffled = float(np.mean([(each / np.arange(1, len(each) + 1)).sum() for each in chance]))
    mean = float(reciprocal.mean())
    return [*found, MetricResult(f"{name}, MRR", mean, low, high, shuffled, None, len(ranks))]


def _chance(pool: int, relevant: int) -> np.ndarray:
    """Return the probability of each rank of the first relevant scene in a random order."""
    probability, later = np.zeros(pool), 1.0
    for rank in range(pool - relevant + 1):
        here = relevant / (pool - rank)
        probability[rank] = later * here
        later *= 1 - here
    return probability


def measure(
    collection: Collection, words: np.ndarray, scenes: np.ndarray, name: str, seed: int = 0
) -> list[MetricResult]:
    """Score queries by words, by a scene, and by both.

    words: similarity of each tile's caption with each scene `[T, N]`; scenes: of each tile with
    each scene `[T, N]`.
    """
    tiles, count = collection.tiles, len(collection.scenes)
    captions = np.array(collection.captions + [""] * (count - tiles))
    same_caption = captions[:tiles, None] == captions[None]
    pool = np.full(tiles, count)
    found = score_ranks(
        f"words to scene, {name}",
        rank_first(words, same_caption),
        same_caption.sum(1),
        pool,
    )
    itself = np.eye(tiles, count, dtype=bool)
    classes = np.concatenate([collection.classes, [""] * (count - tiles)])
    same_class = (classes[:tiles, None] == classes[None]) & ~itself
    found += score_ranks(
        f"scene to scene, {name}",
        rank_first(scenes, same_class, itself),
        same_class.sum(1),
        pool - 1,
    )
    rng = np.random.default_rng(seed)
    examples = np.array([rng.choice(np.flatnonzero(row)) for row in same_class])
    given = np.zeros((tiles, count), bool)
    given[np.arange(tiles), examples] = True
    joined = np.stack(
        [
            fuse_ranks([np.where(out, np.nan, w), np.where(out, np.nan, scenes[example])])
            for w, example, out in zip(words, examples, given, strict=True)
        ]
    )
    found += score_ranks(
        f"words and a scene, {name}",
        rank_first(joined, itself, given),
        itself.sum(1),
        pool - 1,
    )
    return found


def fit_baselines(
    train: Collection,
) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """Two ways from band statistics to words, both fitted to training tiles.

    The first maps statistics to sentence embeddings; the second compares the classes that two
    classifiers see in text embeddings and in statistics.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    bands, text = describe_bands(train.scenes), embed_sentences(train.captions)
    # A band that a scene lacks counts as that of the mean tile.
    ridge = make_pipeline(SimpleImputer(), StandardScaler(), Ridge(RIDGE)).fit(bands, text)
    known = train.classes != ""
    of_bands, of_text = (
        make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=500)).fit(
            values[known], train.classes[known]
        )
        for values in (bands, text)
    )

    def compare(words: np.ndarray, statistics: np.ndarray) -> np.ndarray:
        return of_text.predict_proba(words) @ of_bands.predict_proba(statistics).T

    return ridge.predict, compare


def read_collection(data_dir: Path, split: str, limit: int | None = None) -> Collection:
    """The tiles of a split, or some of them spread over it."""
    dataset = ChatEarthNet(data_dir, split)
    chosen = np.linspace(0, len(dataset) - 1, min(limit or len(dataset), len(dataset))).astype(int)
    tiles = [dataset.tiles[i] for i in chosen]
    classes = [tile.labels.scene_class or "" if tile.labels else "" for tile in tiles]
    scenes = [dataset.read(tile) for tile in tiles]
    return Collection(split, [tile.captions[0] for tile in tiles], np.array(classes), scenes)


def add_bundled(collection: Collection) -> Collection:
    """The same tiles among the bundled scenes, too."""
    results = SceneIndex.from_pretrained("bundled").browse()
    others = [Scene.open(result.scene_file) for result in results if result.scene_file]
    return Collection(
        f"{collection.name} and {len(others)} bundled scenes",
        collection.captions,
        collection.classes,
        collection.scenes + others,
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True, help="in ChatEarthNet's layout")
    parser.add_argument("--model_path", default="bundled", help="the bridge (%(default)s)")
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, help="the largest number of tiles, for a quick look")
    parser.add_argument(
        "--describe", type=int, default=0, help="the number of tiles that the bridge captions"
    )
    arguments = parser.parse_args()

    bridge = OlmoEarthVLMBridge.from_pretrained(arguments.model_path)
    plain = read_collection(arguments.data_dir, arguments.split, arguments.limit)
    to_words, compare_classes = fit_baselines(read_collection(arguments.data_dir, "train"))
    results = {}
    for collection in (plain, add_bundled(plain)):
        tiles = collection.tiles
        text = embed_sentences(collection.captions)
        embedded = bridge.embed(collection.scenes)
        found = measure(
            collection, text @ embedded.T, embedded[:tiles] @ embedded.T, "by embedding"
        )
        bands = describe_bands(collection.scenes)
        standard = (bands - np.nanmean(bands, 0)) / np.nanstd(bands, 0)
        standard = unit(np.nan_to_num(standard))
        for name, words in (
            ("by band statistics, regression", text @ unit(to_words(bands)).T),
            ("by band statistics, classifiers", compare_classes(text, bands)),
        ):
            found += measure(collection, words, standard[:tiles] @ standard.T, name)
        if arguments.describe and collection is plain:
            found += measure_captions(bridge, collection, text, arguments.describe)
        results[collection.name] = [asdict(result) for result in found]
        print(f"\n{bridge.revision}: {collection.tiles} tiles among {len(collection.scenes)}\n")
        print(as_table(found))
    RESULTS.mkdir(exist_ok=True)
    about = {"bridge": arguments.model_path, "revision": bridge.revision, "metrics": results}
    (RESULTS / "search_quality.json").write_text(json.dumps(about, indent=1) + "\n")


def measure_captions(
    bridge: OlmoEarthVLMBridge, collection: Collection, text: np.ndarray, count: int
) -> list[MetricResult]:
    """Words compared with what the bridge says of each scene, of the first tiles alone."""
    scenes = collection.scenes[:count]
    said = [
        caption
        for first in range(0, len(scenes), 16)
        for caption in bridge.generate(scenes[first : first + 16], DEFAULT_PROMPT)
    ]
    words = text[: len(scenes)] @ embed_sentences(said).T
    captions = np.array(collection.captions[: len(scenes)])
    same = captions[:, None] == captions[None]
    return score_ranks(
        f"words to caption, first {len(scenes)} tiles",
        rank_first(words, same),
        same.sum(1),
        np.full(len(scenes), len(scenes)),
    )


def as_table(found: list[MetricResult]) -> str:
    lines = ["| search | value | 95 % interval | chance | queries |", "|---|---|---|---|---|"]
    lines += [
        f"| {f.name} | {f.value:.3f} | {f.low:.3f} to {f.high:.3f} | {f.shuffled_image:.3f} "
        f"| {f.tiles} |"
        for f in found
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
