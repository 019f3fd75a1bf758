"""The validation tiles of the practice data: places of the same kind as the training tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.report import RESULTS
from benchmarks.search_quality import rank_first
from benchmarks.truth_answers import ALL, Asker, mean_interval, read_layout
from benchmarks.truth_scenes import LEAST_ASKED, MOST_ASKED, KnownScene, as_photos
from benchmarks.truth_scores import Row, score_answers, score_dominant, score_shares, score_where
from earthvlm import OlmoEarthVLMBridge
from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.data.labels import LAND_COVER, QUARTERS, SCENE_NAMES
from earthvlm.data.questions.scene_sentences import find_quarters
from earthvlm.evaluation.evaluation import evaluate
from earthvlm.metrics.results import MetricResult
from earthvlm.models.text_encoder import embed_sentences

FOUND_FIRST = 10


def read_practice(folder: Path) -> list[KnownScene]:
    """The validation tiles with their labels."""
    tiles = ChatEarthNet(folder, "val")
    found = []
    for tile in tiles.tiles:
        labels = tile.labels
        if labels is None:
            raise ValueError(f"{tile.name} has no labels: the practice data has a facts.json.")
        asked = [c for c, share in labels.shares.items() if LEAST_ASKED < share < MOST_ASKED]
        found.append(
            KnownScene(
                tile.name,
                tiles.read(tile),
                dominant=(labels.dominant,),
                shares={cover: labels.shares[cover] for cover in LAND_COVER[:6]},
                quarters={cover: find_quarters(labels, cover) for cover in asked[:2]},
            )
        )
    return found


def score_practice(folder: Path, asker: Asker, limit: int | None) -> list[Row | None]:
    """The evaluation's figures, exact places, whole descriptions, shares, and colour alone."""
    tiles = ChatEarthNet(folder, "val")
    results, _ = evaluate(
        asker.bridge, tiles, limit=limit, records_folder=RESULTS / "truth_records", report=print
    )
    rows: list[Row | None] = [_as_row(result) for result in results]
    known = read_practice(folder)[:limit]
    rows.append(score_dominant("practice tiles as photos", as_photos(known), asker, (ALL,)))
    rows.append(score_where("practice tiles", known, asker, (ALL,)))
    mixed, layouts = [], []
    for scene, tile in zip(known, tiles.tiles[:limit], strict=True):
        assert tile.labels is not None
        layout = {name: tile.labels.quarter(name).dominant for name in QUARTERS}
        if len(set(layout.values())) > 1:
            mixed.append((scene, "Describe this scene."))
            layouts.append(layout)
    rows.append(
        score_answers(
            "practice tiles of several covers: all quarters of a description",
            mixed,
            lambda answer, index: float(read_layout(answer) == layouts[index]),
            asker,
            (ALL,),
            max_length=112,
        )
    )
    # One cover a tile in turn, and water on all.
    others = [cover for cover in LAND_COVER[:6] if cover != "water"]
    for number, cover in enumerate(others):
        some = known[number :: len(others)]
        rows.append(score_shares(f"practice tiles, {cover}", [cover], some, asker, (ALL,)))
    rows.append(score_shares("practice tiles, water", ["water"], known, asker, (ALL,)))
    return rows


def _as_row(result: MetricResult) -> Row:
    return Row(
        f"practice tiles: {result.name}",
        result.value,
        result.low,
        result.high,
        result.tiles,
        another_scene=result.shuffled_image,
        no_scene=result.no_image,
    )


def score_search(folder: Path, bridge: OlmoEarthVLMBridge) -> list[Row | None]:
    """Text to scene: recall at 10 by captions, precision at 10 by the names of classes."""
    tiles = ChatEarthNet(folder, "val")
    embedded = bridge.embed([tiles.read(tile) for tile in tiles.tiles])
    captions = np.array([tile.captions[0] for tile in tiles.tiles])
    similarity = embed_sentences(list(captions)) @ embedded.T
    ranks = rank_first(similarity, captions[:, None] == captions[None])
    found = (ranks <= FOUND_FIRST).astype(float)
    rows: list[Row | None] = [
        Row("search: recall@10 by captions", found.mean(), *mean_interval(found), len(found))
    ]
    classes = np.array([(tile.labels and tile.labels.scene_class) or "" for tile in tiles.tiles])
    names = [name for name in SCENE_NAMES if (classes == name).any()]
    similarity = embed_sentences([SCENE_NAMES[name] for name in names]) @ embedded.T
    precision = np.array(
        [
            (classes[np.argsort(-row)[:FOUND_FIRST]] == name).sum()
            / min(FOUND_FIRST, (classes == name).sum())
            for name, row in zip(names, similarity, strict=True)
        ]
    )
    low, high = mean_interval(precision)
    rows.append(
        Row("search: precision@10 by class words", float(precision.mean()), low, high, len(names))
    )
    return rows
