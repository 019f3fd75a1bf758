"""Evaluate a bridge on tiles, with two baselines: a shuffled image and no image.

Each tile is asked every task's question. Given another tile's scene, a bridge would repeat its
answer to that tile, so the shuffled-image baseline scores the same answers against other tiles;
given no scene, it answers alike for all tiles. Only a score above both comes from the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import PartialState

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.captioned_scenes import CaptionedScenes, Tile, are_labelled
from earthvlm.data.labels import QUARTERS
from earthvlm.data.questions.scene_sentences import describe
from earthvlm.evaluation.records import Record, Records
from earthvlm.generation.sampling import DEFAULT_PROMPT
from earthvlm.metrics.captioning import score_captions
from earthvlm.metrics.questions import (
    Score,
    Task,
    score_dominant,
    score_mentions,
    score_mentions_precision,
    score_mentions_recall,
    score_quarter,
    score_water,
)
from earthvlm.metrics.results import INPUTS, MetricResult, average_scores, score_losses
from earthvlm.metrics.retrieval import pair_ranks, score_retrieval
from earthvlm.models.text_encoder import embed_sentences


@dataclass(frozen=True)
class TileRecord(Record):
    """What a bridge computed for one tile.

    answers: by task. losses: of the tile's description, summed over its `tokens`, by what the
    bridge was given. embedding: the scene's embedding, `[384]`.
    """

    answers: dict[str, str]
    losses: dict[str, float]
    tokens: int
    embedding: list[float]


DESCRIPTION = Task("description", DEFAULT_PROMPT, score_mentions, 112)
# Questions whose answers follow from a tile's labels.
QUESTIONS = (
    Task("dominant land cover", "Which land cover dominates?", score_dominant, 24),
    Task("is there water", "Is there water?", score_water, 24),
    Task("what fills a quarter", "What fills the {place}?", score_quarter, 40),
)
MENTIONS = (
    ("description, land-cover precision", score_mentions_precision),
    ("description, land-cover recall", score_mentions_recall),
    ("description, land-cover F1", score_mentions),
)


def evaluate(
    bridge: OlmoEarthVLMBridge,
    dataset: CaptionedScenes,
    batch_size: int = 24,
    seed: int = 0,
    limit: int | None = None,
    records_folder: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> tuple[list[MetricResult], list[dict]]:
    """Ask every question of every tile, describe it, and retrieve the tiles by their captions.

    Several processes divide the tiles; each returns the same results. Tiles without labels are
    described and retrieved, not asked about; the land cover that a description mentions is then
    compared with what the captions mention. Tiles with conversations alone are left out.

    Args:
        bridge: The bridge to evaluate.
        dataset: Tiles with captions, and with labels where there are any.
        batch_size: Tiles at once.
        seed: Of the bootstrap's resamples and of the shuffled images.
        limit: The largest number of tiles, spread over the dataset; None takes all.
        records_folder: Keeps intermediate results, so that a stopped evaluation can continue.
        report: Called with a sentence on the progress.

    Returns:
        The metrics, and each tile's answers with its reference, for people to read.

    Raises:
        ValueError: no tile has captions or labels, or a tile cannot be read.
    """
    described = [tile for tile in dataset.tiles if tile.captions or tile.labels]
    if not described:
        raise ValueError("No tile has a caption or labels to compare with.")
    count = min(limit or len(described), len(described))
    tiles = [described[int(i)] for i in np.linspace(0, len(described) - 1, count)]
    others = shuffle_tiles(count, seed)
    state = PartialState(cpu=bridge.device.type == "cpu")
    references = [list_references(tile) for tile in tiles]
    names = [[tile.name, *texts] for tile, texts in zip(tiles, references, strict=True)]
    run = {"bridge": bridge.revision, "tiles": names, "seed": seed}
    records = Records(records_folder, run, state, TileRecord)
    for batch in records.batches(count, batch_size, "tiles", report):
        records.add(list(_evaluate_batch(bridge, dataset, tiles, batch, others)))
    collected = records.collect()
    results = _score(bridge, tiles, collected, others, seed)
    if state.is_main_process:
        records.remove()
    rows = [
        {"image": tile.name, "reference": texts[0], **record.answers}
        for tile, texts, record in zip(tiles, references, collected, strict=True)
    ]
    return results, rows


def list_references(tile: Tile) -> list[str]:
    """Return what a tile's description is compared with: its labels in words, or its captions."""
    return [describe(tile.labels)] if tile.labels else list(tile.captions)


def _list_tasks(tiles: Sequence[Tile]) -> tuple[Task, ...]:
    return (*(QUESTIONS if are_labelled(tiles) else ()), DESCRIPTION)


def _choose_quarter(index: int) -> str:
    return QUARTERS[index % len(QUARTERS)]


def _evaluate_batch(
    bridge: OlmoEarthVLMBridge,
    dataset: CaptionedScenes,
    tiles: Sequence[Tile],
    batch: Sequence[int],
    others: np.ndarray,
) -> Iterator[TileRecord]:
    scenes = [dataset.read(tiles[i]) for i in batch]
    answers = {}
    for task in _list_tasks(tiles):
        questions = [task.question.format(place=_choose_quarter(i)) for i in batch]
        answers[task.name] = bridge.generate(scenes, questions, task.max_length)
    conversations = [
        [
            {"role": "user", "content": DESCRIPTION.question},
            {"role": "assistant", "content": list_references(tiles[i])[0]},
        ]
        for i in batch
    ]
    inputs = dict(
        zip(INPUTS, (scenes, [dataset.read(tiles[others[i]]) for i in batch], None), strict=True)
    )
    losses = {kind: bridge.answer_losses(given, conversations) for kind, given in inputs.items()}
    embeddings = bridge.embed(scenes)
    for row, index in enumerate(batch):
        yield TileRecord(
            index,
            {task: texts[row] for task, texts in answers.items()},
            {kind: sums[row] for kind, (sums, _) in losses.items()},
            losses["scene"][1][row],
            [round(float(x), 7) for x in embeddings[row]],
        )


def _score(
    bridge: OlmoEarthVLMBridge,
    tiles: Sequence[Tile],
    records: Sequence[TileRecord],
    others: np.ndarray,
    seed: int,
) -> list[MetricResult]:
    results = []
    references = [list_references(tile) for tile in tiles]
    for task in _list_tasks(tiles):
        answers = _answers_by_input(bridge, task, records, others)
        if task is not DESCRIPTION:
            results.append(_average(task.name, task.score, answers, tiles, seed))
            continue
        results += [_average(name, score, answers, tiles, seed) for name, score in MENTIONS]
        results += _score_captions(answers, references, seed)
    losses = {kind: np.array([record.losses[kind] for record in records]) for kind in INPUTS}
    results += score_losses(losses, np.array([record.tokens for record in records]), seed)
    sentences = embed_sentences([texts[0] for texts in references])
    scenes = np.array([record.embedding for record in records], np.float32)
    return results + score_retrieval(pair_ranks(sentences, scenes), seed)


def _answers_by_input(
    bridge: OlmoEarthVLMBridge, task: Task, records: Sequence[TileRecord], others: np.ndarray
) -> dict[str, list[str]]:
    """Return a task's answers for all tiles by what the bridge was given."""
    own = [record.answers[task.name] for record in records]
    questions = [task.question.format(place=_choose_quarter(i)) for i in range(len(records))]
    distinct = list(dict.fromkeys(questions))
    no_image = dict(zip(distinct, bridge.generate(None, distinct, task.max_length), strict=True))
    return {
        "scene": own,
        "shuffled_image": [own[other] for other in others],
        "no_image": [no_image[question] for question in questions],
    }


def _average(
    name: str, score: Score, answers: dict[str, list[str]], tiles: Sequence[Tile], seed: int
) -> MetricResult:
    scores = {
        kind: np.array(
            [
                score(answer, tile.labels or tile.captions, _choose_quarter(i))
                for i, (answer, tile) in enumerate(zip(texts, tiles, strict=True))
            ]
        )
        for kind, texts in answers.items()
    }
    return average_scores(name, scores, seed)


def _score_captions(
    captions: dict[str, list[str]], references: list[list[str]], seed: int
) -> list[MetricResult]:
    try:
        return score_captions(captions, references, seed)
    except ModuleNotFoundError:  # the extra `evaluation` is not installed; the command says so
        return []


def shuffle_tiles(count: int, seed: int) -> np.ndarray:
    """Return another tile for each, `[N]`, one asked about the same quarter where there is one."""
    rng = np.random.default_rng(seed)
    others = np.arange(count)
    for turn in range(len(QUARTERS)):
        group = rng.permutation(np.arange(turn, count, len(QUARTERS)))
        others[group] = np.roll(group, 1) if len(group) > 1 else (group + 1) % count
    return others
