"""Synthetic questions, answers and descriptions agree with the labels."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from earthvlm.data.question_answering import (
    QUESTIONS,
    describe,
    short_phrase,
    write_questions_and_answers,
)
from earthvlm.metrics.land_cover import mentioned_land_cover
from earthvlm.metrics.questions import score_mentions, score_quarter, score_water
from earthvlm.training.query_targets import QueryTargets
from tests.support.made_labels import MIXED, TREES, WATER, make_labels


def test_descriptions_give_land_cover_and_places():
    assert describe(MIXED) == (
        "Tree cover covers about 75 percent of the scene. There is also water (25 percent). "
        "Water dominates the top left; tree cover dominates the top right, bottom left and "
        "bottom right."
    )


def test_descriptions_of_clouds_name_no_land_cover():
    hidden = replace(MIXED, cloud=np.ones((2, 2), np.float32))
    assert "Clouds hide almost all" in describe(hidden)
    assert mentioned_land_cover(describe(hidden)) == []


def test_answers_agree_with_the_labels():
    rng = random.Random(0)
    for _ in range(300):
        for message in range(0, len(conversation := write_questions_and_answers(MIXED, rng)), 2):
            question, answer = (m["content"] for m in conversation[message : message + 2])
            if "water" in question.lower() and answer.startswith(("Yes", "No")):
                assert score_water(answer, MIXED, "")
            if "top left" in question and "half" not in question:
                assert score_quarter(answer, MIXED, "top left")
            if "bare" in question.lower() and "there" in question.lower():
                assert "no bare soil" in answer
    assert len(QUESTIONS) == 12


def test_scores_of_right_and_wrong_answers():
    right, wrong = describe(MIXED), "Built-up land covers nearly all of the scene."
    assert score_mentions(right, MIXED, "") == 1
    assert score_mentions(wrong, MIXED, "") == 0
    assert score_mentions("Tree cover covers the scene. There is no water in view.", MIXED, "") == (
        pytest.approx(2 / 3)
    )
    assert score_quarter("Water (95 percent).", MIXED, "top left") == 1
    assert score_quarter("Tree cover (95 percent).", MIXED, "top left") == 0


def test_short_phrases_name_the_dominant_cover():
    rng = random.Random(0)
    phrases = {short_phrase(make_labels(*[WATER] * 2, *[TREES] * 2), rng) for _ in range(50)}
    assert len(phrases) > 10
    assert any(p.startswith("a lake") for p in phrases)
    assert not any("town" in p or "buildings" in p for p in phrases)


def test_query_targets_agree_with_descriptions():
    words = QueryTargets.write(MIXED)
    assert words[:5] == ["tree cover", 0.75, "water", 0.25, "nothing"]
    assert words[8:13] == ["top left", "water", 1.0, "nothing", 0.0]
    assert len(words) <= 32  # the queries of a default bridge
    assert words[-1] is None  # the kind of scene is not known
