"""What an answer can be based on, and a question with its answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from earthvlm.data.labels import SceneLabels
from earthvlm.data.questions.scene_sentences import HIDDEN
from earthvlm.scenes.scene import Scene


@dataclass(frozen=True)
class Known:
    """The facts about a scene that answers to questions about it may use.

    scene: whose date, place, size and bands the prompt states; None where it states none of them.
    has_map: whether the prompt also states the parts of the predicted map of `labels`.
    """

    labels: SceneLabels
    scene: Scene | None = None
    has_map: bool = False


@dataclass(frozen=True)
class Asked:
    """A question with its answer.

    cover: what both are about, for questions that follow. statement: the answer as a statement.
    place: that of the cover by its share, 0 for the largest, where this was asked.
    """

    question: str
    answer: str
    cover: str | None = None
    statement: str = ""
    place: int | None = None


Ask = Callable[[Known, random.Random], Asked | None]


def unless_hidden(labels: SceneLabels, answer: Callable[[], str], part: str = "the scene") -> str:
    """Return an answer, or say that clouds hide the part of the scene that it is about."""
    if labels.cloud_share > HIDDEN:
        return f"Clouds hide {part}, so that cannot be told."
    return answer()


def asked_of_scene(
    labels: SceneLabels,
    question: str,
    answer: str,
    cover: str | None = None,
    statement: str = "",
) -> Asked:
    """Return a question about the whole scene, which clouds may hide."""
    if labels.cloud_share > HIDDEN:
        return Asked(question, unless_hidden(labels, str))
    return Asked(question, answer, cover, statement)
