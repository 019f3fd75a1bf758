"""How good a bridge is on tiles whose land cover is known, beside the same bridge made blind.

Blind means that the answers are kept and the scenes exchanged: each answer is scored against
another scene that was asked the same question. What is left is what guessing brings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from earthvlm.bridge import OlmoEarthVLMBridge
from earthvlm.chatearthnet import ChatEarthNet
from earthvlm.conversations import IN_VIEW, MENTIONED, describe
from earthvlm.facts import LAND_COVER, QUARTERS, SceneFacts
from earthvlm.sentences import embed_sentences

CONFIDENCE = 0.95
BOOTSTRAP_SAMPLES = 2000
RECALL_AT = (1, 5, 10)

Score = Callable[[str, SceneFacts, str], float]  # answer, facts, place asked about -> 0 to 1


@dataclass(frozen=True)
class Figure:
    """A mean score over tiles with its 95 % interval, and the same made blind."""

    name: str
    value: float
    low: float
    high: float
    blind: float
    tiles: int


@dataclass(frozen=True)
class Task:
    """A question asked of every tile. A {place} in it is filled with a quarter by turns."""

    name: str
    question: str
    score: Score
    max_length: int


def mentioned_land_cover(answer: str) -> list[str]:
    """The land covers an answer names as being there, in the order it names them."""
    text = answer.lower()
    for denied in LAND_COVER:
        text = text.replace(f"no {denied}", "")
    found = {cover: text.find(cover) for cover in LAND_COVER if cover in text}
    return sorted(found, key=found.__getitem__)


def score_dominant(answer: str, facts: SceneFacts, place: str) -> float:
    named = mentioned_land_cover(answer)
    return float(bool(named) and named[0] == facts.dominant)


def score_water(answer: str, facts: SceneFacts, place: str) -> float:
    says = answer.strip().lower().startswith("yes")
    denies = answer.strip().lower().startswith("no")
    return float(says if facts.shares["water"] > IN_VIEW else denies)


def score_quarter(answer: str, facts: SceneFacts, place: str) -> float:
    return score_dominant(answer, facts.quarter(place), place)


def score_mentions(answer: str, facts: SceneFacts, place: str) -> float:
    """F1 of the land covers named, against those that cover more than 8 percent."""
    named = set(mentioned_land_cover(answer))
    there = {cover for cover, share in facts.shares.items() if share > MENTIONED}
    return 2 * len(named & there) / (len(named) + len(there))


TASKS = (
    Task("dominant land cover", "Which land cover dominates?", score_dominant, 24),
    Task("is there water", "Is there water?", score_water, 24),
    Task("what fills a quarter", "What fills the {place}?", score_quarter, 40),
    Task("description, land-cover F1", "Describe this scene.", score_mentions, 112),
)


def evaluate(
    bridge: OlmoEarthVLMBridge,
    tiles: ChatEarthNet,
    batch_size: int = 24,
    seed: int = 0,
    limit: int | None = None,
    report: Callable[[str], None] | None = None,
) -> tuple[list[Figure], list[dict]]:
    """Ask every task of every tile, and search the tiles by sentences.

    limit: so many tiles at most, spread over the split.

    Returns the figures, and each tile's answers beside its facts for people to read.
    Raises ValueError where the tiles have no facts.
    """
    if not tiles.has_facts:
        raise ValueError("Evaluation needs a facts.json with every tile's land cover.")
    scenes, known = _read(tiles, limit)
    facts = [tile.facts for tile in known]
    places = [QUARTERS[index % len(QUARTERS)] for index in range(len(scenes))]
    figures, rows = [], [{"image": tile.name, "truth": describe(tile.facts)} for tile in known]
    for task in TASKS:
        questions = [task.question.format(place=place) for place in places]
        answers: list[str] = []
        for start in range(0, len(scenes), batch_size):
            part = slice(start, start + batch_size)
            answers += bridge.generate(scenes[part], questions[part], task.max_length)
        for row, answer in zip(rows, answers, strict=True):
            row[task.name] = answer
        figures.append(_score(task, answers, facts, places, seed))
        if report:
            report(as_markdown(figures[-1:]).splitlines()[-1])
    figures += evaluate_search(bridge, scenes, facts, seed)
    return figures, rows


def evaluate_search(
    bridge: OlmoEarthVLMBridge, scenes: Sequence, facts: Sequence[SceneFacts], seed: int = 0
) -> list[Figure]:
    """Find each scene among all by a sentence of its facts; no caption is searched."""
    similarity = embed_sentences([describe(f) for f in facts]) @ bridge.embed(scenes).T
    own = np.diag(similarity)[:, None]
    # A tie counts against the scene: ranks are of the worst place it may have.
    ranks = (similarity >= own).sum(1)
    figures = []
    for k in RECALL_AT:
        low, high = _interval(ranks <= k, seed)
        figures.append(
            Figure(
                f"sentence to scene, recall@{k}",
                float((ranks <= k).mean()),
                low,
                high,
                k / len(scenes),
                len(scenes),
            )
        )
    return figures


def as_markdown(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| measure | value | 95 % interval | blind | tiles |", "|---|---|---|---|---|"]
    for f in figures:
        interval = f"{f.low:.3f} to {f.high:.3f}"
        lines.append(f"| {f.name} | {f.value:.3f} | {interval} | {f.blind:.3f} | {f.tiles} |")
    return "\n".join(lines)


def _read(tiles: ChatEarthNet, limit: int | None) -> tuple[list, list]:
    count = min(limit or len(tiles), len(tiles))
    pairs = [tiles[int(index)] for index in np.linspace(0, len(tiles) - 1, count)]
    return [scene for scene, _ in pairs], [tile for _, tile in pairs]


def _score(
    task: Task, answers: list[str], facts: list[SceneFacts], places: list[str], seed: int
) -> Figure:
    scores = np.array(
        [task.score(*triple) for triple in zip(answers, facts, places, strict=True)], float
    )
    others = _exchange(len(answers), seed)
    blind = [task.score(answers[o], facts[i], places[i]) for i, o in enumerate(others)]
    low, high = _interval(scores, seed)
    return Figure(task.name, float(scores.mean()), low, high, float(np.mean(blind)), len(scores))


def _exchange(count: int, seed: int) -> np.ndarray:
    """For each tile another one that was asked about the same quarter."""
    rng = np.random.default_rng(seed)
    others = np.arange(count)
    for turn in range(len(QUARTERS)):
        group = rng.permutation(np.arange(turn, count, len(QUARTERS)))
        others[group] = np.roll(group, 1)
    return others


def _interval(scores: np.ndarray, seed: int) -> tuple[float, float]:
    """Wilson's interval for scores of 0 and 1, the bootstrap's for others."""
    from scipy.stats import binomtest, bootstrap

    if np.isin(scores, (0, 1)).all():
        test = binomtest(int(scores.sum()), len(scores))
        interval = test.proportion_ci(CONFIDENCE, method="wilson")
    else:
        interval = bootstrap(
            (scores,),
            np.mean,
            confidence_level=CONFIDENCE,
            n_resamples=BOOTSTRAP_SAMPLES,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(interval.low), float(interval.high)
