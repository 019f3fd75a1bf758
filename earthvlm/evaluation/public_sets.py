"""Evaluate a bridge on questions with candidate answers, without generation.

The answer is the candidate with the highest likelihood. As in `evaluation`, the same bridge shown
another image, and none, are the baselines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import PartialState

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.bridge.scoring import score_candidates
from earthvlm.data.public_sets import Item, PublicSet
from earthvlm.evaluation.records import Record, Records
from earthvlm.metrics.results import INPUTS, MetricResult, average_scores
from earthvlm.models.text_encoder import embed_sentences
from earthvlm.scenes.scene import Scene


@dataclass(frozen=True)
class AnsweredImage(Record):
    """A row for each question about an image: what was asked, what is right, what was chosen."""

    rows: list[dict]


def evaluate_public_set(
    bridge: OlmoEarthVLMBridge,
    public_set: PublicSet,
    batch_size: int = 16,
    seed: int = 0,
    limit: int | None = None,
    records_folder: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> tuple[list[MetricResult], list[dict]]:
    """Return the accuracy of each group of questions, overall and as the groups' mean, and answers.

    So too for each of the set's totals. Where the set has classes, also the accuracy of the class
    whose sentence is nearest to the scene's embedding. Several processes divide the images; each
    returns the same results.

    Args:
        bridge: The bridge to evaluate.
        public_set: See `earthvlm.data.public_sets`.
        batch_size: Images at once.
        seed: Of the bootstrap's resamples and of the shuffled images.
        limit: The largest number of images, spread over the set; None takes all.
        records_folder: Keeps intermediate results, so that a stopped evaluation can continue.
        report: Called with a sentence on the progress.

    Raises:
        ValueError: There is no item.
        FileNotFoundError: An image is missing.
    """
    images = _choose_images(public_set, limit)
    others = dict(zip(images, [images[-1], *images[:-1]], strict=True))
    asked = _group_items(public_set, images)
    state = PartialState(cpu=bridge.device.type == "cpu")
    classes = None
    if public_set.classes:
        classes = list(public_set.classes), embed_sentences(list(public_set.classes.values()))
    questions = [[i.image, i.question, *i.candidates] for each in asked.values() for i in each]
    run: dict[str, object] = {"bridge": bridge.revision, "questions": questions}
    run["classes"] = public_set.classes
    records = Records(records_folder, run, state, AnsweredImage)
    for indices in records.batches(len(images), batch_size, "images", report):
        batch = [images[index] for index in indices]
        needed = dict.fromkeys([*batch, *(others[image] for image in batch)])
        opened = {image: public_set.open(image) for image in needed}
        items = [item for image in batch for item in asked[image]]
        answered: dict[str, list[dict]] = {image: [] for image in batch}
        for row in _evaluate_batch(bridge, opened, others, items, classes):
            answered[row["image"]].append(row)
        records.add([AnsweredImage(index, answered[images[index]]) for index in indices])
    collected = records.collect()
    rows = [row for record in collected for row in record.rows]
    rows.sort(key=lambda row: (row["image"], row["question"]))
    results = _score(rows, public_set, seed)
    if state.is_main_process:
        records.remove()
    return results, rows


def _group_items(public_set: PublicSet, images: list[str]) -> dict[str, list[Item]]:
    asked: dict[str, list[Item]] = {image: [] for image in images}
    for item in public_set.items:
        if item.image in asked:
            asked[item.image].append(item)
    return asked


def _choose_images(public_set: PublicSet, limit: int | None) -> list[str]:
    """At most `limit` images, spread over the set. Raises ValueError where it has none."""
    images = list(dict.fromkeys(item.image for item in public_set.items))
    if not images:
        raise ValueError("The set has no question with candidates.")
    count = min(limit or len(images), len(images))
    return [images[int(i)] for i in np.linspace(0, len(images) - 1, count)]


def _evaluate_batch(
    bridge: OlmoEarthVLMBridge,
    opened: dict[str, Scene],
    others: dict[str, str],
    items: Sequence[Item],
    classes: tuple[list[str], np.ndarray] | None,
) -> Iterator[dict]:
    shown: dict[str, list[Scene] | None] = {
        "scene": [opened[item.image] for item in items],
        "shuffled_image": [opened[others[item.image]] for item in items],
        "no_image": None,
    }
    questions = [item.question for item in items]
    candidates = [item.candidates for item in items]
    chosen = {
        kind: [
            item.candidates[int(scores.argmax())]
            for item, scores in zip(
                items, score_candidates(bridge, scenes, questions, candidates), strict=True
            )
        ]
        for kind, scenes in shown.items()
    }
    nearest = _find_nearest(bridge, opened, *classes) if classes else {}
    for index, item in enumerate(items):
        row = {"image": item.image, "question": item.question, "group": item.group}
        row |= {"reference": item.answer} | {kind: chosen[kind][index] for kind in INPUTS}
        if classes:
            row |= {
                "nearest": nearest[item.image],
                "nearest_shuffled": nearest[others[item.image]],
            }
        yield row


def _find_nearest(
    bridge: OlmoEarthVLMBridge,
    opened: dict[str, Scene],
    names: Sequence[str],
    sentences: np.ndarray,
) -> dict[str, str]:
    """Return the class whose sentence is nearest to each scene's embedding."""
    similarities = bridge.embed(list(opened.values())) @ sentences.T
    return {path: names[i] for path, i in zip(opened, similarities.argmax(axis=1), strict=True)}


def _score(rows: Sequence[dict], public_set: PublicSet, seed: int) -> list[MetricResult]:
    hits = {
        kind: np.array([row[kind] == row["reference"] for row in rows], float) for kind in INPUTS
    }
    groups = np.array([row["group"] for row in rows])
    names = sorted(set(groups))
    results = [
        average_scores(name, {k: h[groups == name] for k, h in hits.items()}, seed)
        for name in names
    ]
    if len(names) > 1:
        results += _score_total("", hits, groups, seed)
    for name, wanted in public_set.totals.items():
        chosen = np.isin(groups, wanted)
        if chosen.any():
            own = {kind: each[chosen] for kind, each in hits.items()}
            results += _score_total(f"{name}: ", own, groups[chosen], seed)
    if public_set.classes is not None:
        found = {
            kind: np.array([row[column] == row["reference"] for row in rows], float)
            for kind, column in (("scene", "nearest"), ("shuffled_image", "nearest_shuffled"))
        }
        chance = np.full(len(rows), 1 / len({row["reference"] for row in rows}))
        results.append(
            average_scores("class by text and scene", found | {"no_image": chance}, seed)
        )
    return results


def _score_total(
    prefix: str, hits: dict[str, np.ndarray], groups: np.ndarray, seed: int
) -> list[MetricResult]:
    """Return the accuracy over all these questions, and the mean of their groups' accuracies."""
    names, sizes = np.unique(groups, return_counts=True)
    # Weights that give each group the same sum: their mean is the groups' mean accuracy.
    weights = len(groups) / len(names) / sizes[np.searchsorted(names, groups)]
    weighted = {kind: each * weights for kind, each in hits.items()}
    return [
        average_scores(f"{prefix}overall accuracy", hits, seed),
        average_scores(f"{prefix}average accuracy of the groups", weighted, seed),
    ]
