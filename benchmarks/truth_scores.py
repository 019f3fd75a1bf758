"""Figures of `benchmarks.truth`: scores of answers, by what the bridge was given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.truth_answers import (
    ALL,
    CONDITIONS,
    EVIDENCE,
    IMAGE,
    Asker,
    balanced_accuracy,
    balanced_interval,
    mean_interval,
    read_cover,
    read_quarters,
    read_share,
    read_yes_or_no,
)
from benchmarks.truth_scenes import KnownScene, read_bundled
from earthvlm.data.questions.templates import FIELD_NAMES
from earthvlm.scenes.analysis.spectral_indices import measure

# Yes/no questions by cover, with what spectral indices call it.
PRESENCE = {
    "water": ("Is there water?", "water"),
    "cloud": ("Are there clouds?", "cloud"),
    "snow or ice": ("Is there snow?", "snow"),
    "built-up land": ("Is there a settlement?", None),
    "burnt land": ("Is there burnt land?", None),
}
MEASURED_PRESENT = 0.02  # share from which spectral indices say that a cover is there


@dataclass(frozen=True)
class Row:
    """A figure with its interval, and the same figure of other ways to answer."""

    name: str
    value: float
    low: float
    high: float
    scenes: int
    evidence: float | None = None
    image: float | None = None
    another_scene: float | None = None
    no_scene: float | None = None
    indices: float | None = None


def score_presence(
    name: str, cover: str, scenes: Sequence[KnownScene], asker: Asker, conditions: Sequence[str]
) -> Row | None:
    """The balanced accuracy of whether a cover is in view."""
    question, measured_as = PRESENCE[cover]
    known = [scene for scene in scenes if scene.in_view(cover) is not None]
    truth = np.array([scene.in_view(cover) for scene in known], dtype=np.bool_)
    if truth.all() or not truth.any():
        return None
    right = {}
    for condition in conditions:
        given = [read_yes_or_no(text) for text in asker.ask(known, question, condition)]
        right[condition] = np.array([g == t for g, t in zip(given, truth, strict=True)])
        if condition == ALL:
            own = given
    others = np.random.default_rng(0).permutation(len(known))
    shuffled = np.array([own[o] == t for o, t in zip(others, truth, strict=True)])
    without = read_yes_or_no(asker.ask_without_scene(question))
    indices = None
    if measured_as is not None:
        measured = [measure(scene.scene) for scene in known]
        found = [m is not None and m.share(measured_as) > MEASURED_PRESENT for m in measured]
        indices = balanced_accuracy(np.array(found) == truth, truth)
    low, high = balanced_interval(right[ALL], truth)
    return Row(
        f"{name}: {cover}",
        balanced_accuracy(right[ALL], truth),
        low,
        high,
        len(known),
        evidence=balanced_accuracy(right[EVIDENCE], truth) if EVIDENCE in right else None,
        image=balanced_accuracy(right[IMAGE], truth) if IMAGE in right else None,
        another_scene=balanced_accuracy(shuffled, truth),
        no_scene=balanced_accuracy(np.full(len(truth), without) == truth, truth),
        indices=indices,
    )


def score_answers(
    name: str,
    asked: Sequence[tuple[KnownScene, str]],
    score: Callable[[str, int], float],
    asker: Asker,
    conditions: Sequence[str],
    max_length: int = 48,
) -> Row | None:
    """The mean score of answers to a question about each scene; `score` gets answer and index."""
    if not asked:
        return None
    scenes, questions = [s for s, _ in asked], [q for _, q in asked]
    scores: dict[str, np.ndarray] = {}
    own: list[str] = []
    for condition in conditions:
        texts = asker.ask(scenes, questions, condition, max_length)
        scores[condition] = np.array([score(text, i) for i, text in enumerate(texts)], float)
        own = texts if condition == ALL else own
    others = np.random.default_rng(0).permutation(len(asked))
    without = [asker.ask_without_scene(question, max_length) for question in questions]
    low, high = mean_interval(scores[ALL])
    return Row(
        name,
        float(scores[ALL].mean()),
        low,
        high,
        len(asked),
        evidence=float(scores[EVIDENCE].mean()) if EVIDENCE in scores else None,
        image=float(scores[IMAGE].mean()) if IMAGE in scores else None,
        another_scene=float(np.mean([score(own[o], i) for i, o in enumerate(others)])),
        no_scene=float(np.mean([score(text, i) for i, text in enumerate(without)])),
    )


def score_dominant(
    name: str, scenes: Sequence[KnownScene], asker: Asker, conditions: Sequence[str]
) -> Row | None:
    """How often the main cover is right, where people agree on it."""
    known = [scene for scene in scenes if scene.dominant]

    def score(answer: str, index: int) -> float:
        wanted = known[index].dominant
        hidden = wanted == ("cloud",) and "clouds hide" in answer.lower()
        return float(hidden or read_cover(answer) in wanted)

    asked = [(scene, "Which land cover dominates?") for scene in known]
    return score_answers(f"{name}: dominant cover", asked, score, asker, conditions)


def score_ninths(
    name: str, scenes: Sequence[KnownScene], asker: Asker, conditions: Sequence[str], most: int = 3
) -> Row | None:
    """How often a named ninth of the scene is right; at most a few ninths of each scene."""
    asked, wanted = [], []
    for number, scene in enumerate(scenes):
        names = sorted(scene.ninths)
        chosen = np.random.default_rng(number).permutation(len(names))[:most]
        for field in (names[i] for i in chosen):
            asked.append((scene, f"What is in the {FIELD_NAMES[field][0]}?"))
            wanted.append(scene.ninths[field])

    def score(answer: str, index: int) -> float:
        hidden = wanted[index] == ("cloud",) and "clouds hide" in answer.lower()
        return float(hidden or read_cover(answer) in wanted[index])

    return score_answers(f"{name}: a named ninth", asked, score, asker, conditions)


def score_where(
    name: str, scenes: Sequence[KnownScene], asker: Asker, conditions: Sequence[str]
) -> Row | None:
    """How often an answer names exactly the quarters in which most of a cover lies."""
    asked = [(s, f"Where is the {cover}?") for s in scenes for cover in s.quarters]
    wanted = [names for scene in scenes for names in scene.quarters.values()]

    def score(answer: str, index: int) -> float:
        return float(read_quarters(answer) == wanted[index])

    return score_answers(f"{name}: where, exact quarters", asked, score, asker, conditions)


def score_shares(
    name: str,
    covers: Sequence[str],
    scenes: Sequence[KnownScene],
    asker: Asker,
    conditions: Sequence[str],
) -> Row | None:
    """The mean absolute error of shares; an answer without a share errs by all of it."""
    asked, wanted = [], []
    for scene in scenes:
        for cover in covers:
            if cover in scene.shares:
                asked.append((scene, f"How much of the scene is {cover}?"))
                wanted.append(scene.shares[cover])

    def score(answer: str, index: int) -> float:
        share, true = read_share(answer), wanted[index]
        return abs(share - true) if share is not None else max(true, 1 - true)

    return score_answers(f"{name}: mean error of a share", asked, score, asker, conditions)


def score_unseen(
    name: str, scenes: Sequence[KnownScene], asker: Asker, conditions: Sequence[str]
) -> list[Row | None]:
    """All figures about scenes of unseen places."""
    rows = [score_presence(name, cover, scenes, asker, conditions) for cover in PRESENCE]
    rows += [
        score(name, scenes, asker, conditions)
        for score in (score_dominant, score_ninths, score_where)
    ]
    for cover in ("water", "tree cover"):
        rows.append(score_shares(f"{name}, {cover}", [cover], scenes, asker, conditions))
    return rows


def score_bundled(asker: Asker, limit: int | None) -> list[Row | None]:
    """Presence on the bundled scenes, and how many of their descriptions name a highway."""
    scenes = read_bundled()[:limit]
    covers = ("water", "cloud", "snow or ice")
    rows = [
        score_presence("bundled scenes", cover, scenes, asker, CONDITIONS[:1]) for cover in covers
    ]
    asked = [(scene, "Describe this scene.") for scene in scenes]
    invented = score_answers(
        "bundled scenes: descriptions without a highway",
        asked,
        lambda answer, _: float("highway" not in answer.lower()),
        asker,
        CONDITIONS[:1],
        max_length=112,
    )
    return [*rows, invented]
