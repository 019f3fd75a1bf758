"""Questions about a tile, and the scores of their answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from earthvlm.data.labels import SceneLabels
from earthvlm.data.questions.scene_sentences import MENTIONED
from earthvlm.metrics.land_cover import captioned_land_cover, mentioned_land_cover
from earthvlm.scenes.land_cover import SHARE_IN_VIEW

Reference = SceneLabels | Sequence[str]  # a tile's labels, or its captions
Score = Callable[[str, Any, str], float]  # answer, Reference, place asked about -> 0 to 1

_YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)  # whole words: "north" is no denial


@dataclass(frozen=True)
class Task:
    """A question asked of every tile; {place} in it becomes one of the four quarters in turn."""

    name: str
    question: str
    score: Score
    max_length: int


def score_dominant(answer: str, labels: SceneLabels, place: str) -> float:
    """Return 1 where the first land cover that an answer mentions is the largest, else 0."""
    mentioned = mentioned_land_cover(answer)
    return float(bool(mentioned) and mentioned[0] == labels.dominant)


def score_water(answer: str, labels: SceneLabels, place: str) -> float:
    """Return 1 where an answer begins with yes and water is in view, or no and none is, else 0."""
    match = _YES_OR_NO.match(answer)
    present = labels.shares["water"] > SHARE_IN_VIEW
    return float(match is not None and (match[1].lower() == "yes") == present)


def score_quarter(answer: str, labels: SceneLabels, place: str) -> float:
    """Return `score_dominant` for the quarter called `place`."""
    return score_dominant(answer, labels.quarter(place), place)


def score_mentions(answer: str, reference: Reference, place: str) -> float:
    """Return the F1 score of the land covers mentioned, against those present."""
    mentioned, present = _compare_covers(answer, reference)
    if not mentioned | present:
        return 1.0
    return 2 * len(mentioned & present) / (len(mentioned) + len(present))


def score_mentions_precision(answer: str, reference: Reference, place: str) -> float:
    """Return the share of the land covers mentioned that are present."""
    mentioned, present = _compare_covers(answer, reference)
    return len(mentioned & present) / max(len(mentioned), 1) if mentioned | present else 1.0


def score_mentions_recall(answer: str, reference: Reference, place: str) -> float:
    """Return the share of the land covers present that are mentioned."""
    mentioned, present = _compare_covers(answer, reference)
    return len(mentioned & present) / max(len(present), 1) if mentioned | present else 1.0


def _compare_covers(answer: str, reference: Reference) -> tuple[set[str], set[str]]:
    """Return the covers an answer mentions, and those over 8 percent, or in the captions."""
    if isinstance(reference, SceneLabels):
        present = {cover for cover, share in reference.shares.items() if share > MENTIONED}
        return set(mentioned_land_cover(answer)), present
    return captioned_land_cover(answer), set().union(*map(captioned_land_cover, reference))
