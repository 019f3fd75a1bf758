"""Questions about a tile, and scores of their answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from earthvlm.data.labels import SceneLabels
from earthvlm.data.question_answering import IN_VIEW, MENTIONED
from earthvlm.metrics.land_cover import captioned_land_cover, mentioned_land_cover
from earthvlm.metrics.results import _YES_OR_NO

Reference = SceneLabels | Sequence[str]  # a tile's labels, or its captions


Score = Callable[[str, Reference, str], float]  # answer, reference, place asked about -> 0 to 1


@dataclass(frozen=True)
class Task:
    """A question asked of every tile. A {place} in it is filled with a quarter by turns."""

    name: str
    question: str
    score: Score
    max_length: int


def score_dominant(answer: str, labels: SceneLabels, place: str) -> float:
    """1 where the first land cover an answer names is the one with the largest share, else 0."""
    named = mentioned_land_cover(answer)
    return float(bool(named) and named[0] == labels.dominant)


def score_water(answer: str, labels: SceneLabels, place: str) -> float:
    """1 where an answer begins with yes and water is in view, or with no and none is, else 0."""
    says = _YES_OR_NO.match(answer)
    there = labels.shares["water"] > IN_VIEW
    return float(says is not None and (says[1].lower() == "yes") == there)


def score_quarter(answer: str, labels: SceneLabels, place: str) -> float:
    """As `score_dominant`, of the quarter called `place`."""
    return score_dominant(answer, labels.quarter(place), place)


def score_mentions(answer: str, reference: Reference, place: str) -> float:
    """F1 of the land covers named, against those that are there."""
    named, there = _mentions(answer, reference)
    return 2 * len(named & there) / (len(named) + len(there)) if named | there else 1.0


def score_mentions_precision(answer: str, reference: Reference, place: str) -> float:
    """How many of the land covers named are there."""
    named, there = _mentions(answer, reference)
    return len(named & there) / max(len(named), 1) if named | there else 1.0


def score_mentions_recall(answer: str, reference: Reference, place: str) -> float:
    """How many of the land covers that are there are named."""
    named, there = _mentions(answer, reference)
    return len(named & there) / max(len(there), 1) if named | there else 1.0


def _mentions(answer: str, reference: Reference) -> tuple[set[str], set[str]]:
    """Land covers an answer names, and those of more than 8 percent, or that a caption names."""
    if isinstance(reference, SceneLabels):
        there = {cover for cover, share in reference.shares.items() if share > MENTIONED}
        return set(mentioned_land_cover(answer)), there
    return captioned_land_cover(answer), set().union(*map(captioned_land_cover, reference))
