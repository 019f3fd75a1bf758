"""Questions that put covers together, names of places, and what no land cover tells."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from earthvlm.data.labels import SceneLabels
from earthvlm.data.questions import land_cover, overview
from earthvlm.data.questions.asked_questions import Ask, Known
from earthvlm.data.questions.scenes import ask_feature
from earthvlm.data.questions.unanswerable import NOT_MAPPED
from earthvlm.scenes.land_cover import COVERS, CoverMap
from tests.data.questions.test_question_answering import make_mapped_labels
from tests.support.made_labels import TREES, WATER, make_labels

TOWN = "built-up land covers about 3 percent of the scene."
LAKE = "water covers about 6 percent of the scene."


def answers_to(ask: Ask, labels: SceneLabels, count: int = 400) -> dict[str, set[str]]:
    """The answers to a kind of question, by its wordings."""
    rng, answers = random.Random(0), {}
    for _ in range(count):
        if (asked := ask(Known(labels, has_map=True), rng)) is not None:
            answers.setdefault(asked.question, set()).add(asked.answer)
    return answers


@pytest.mark.parametrize(
    ("ask", "question", "answer"),
    [
        (overview.ask_urban, "Is it urban?", f"No, {TOWN}"),
        (overview.ask_urban, "Is this the countryside?", f"Yes, {TOWN}"),
        (overview.ask_urban, "Is it town or country?", f"Rural, {TOWN}"),
        (overview.ask_present_otherwise, "Do people live here?", f"Yes, {TOWN}"),
        (
            overview.ask_present_otherwise,
            "Was there a fire?",
            "No, there is no burnt land in view.",
        ),
        (overview.ask_land, "Is there more water or land?", f"Mostly land: {LAKE}"),
        (overview.ask_land, "How much land is there?", f"All but the water: {LAKE}"),
        (overview.ask_vegetation, "Is it green?", "Yes, tree cover (90 percent)."),
        (overview.ask_vegetation, "What grows here?", "Tree cover (90 percent)."),
        (overview.ask_sides, "Compare the two halves.", "Both are mostly tree cover."),
        (
            overview.ask_three_things,
            "Name three things you see.",
            "Tree cover, water and built-up land.",
        ),
        (
            overview.ask_whole,
            "Is it all forest?",
            "No, tree cover covers about 90 percent of the scene.",
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_covers_are_put_together(ask, question, answer):
    assert answers_to(ask, make_mapped_labels())[question] == {answer}


def test_a_lake_has_no_plants_and_is_all_water():
    lake, forest = make_labels(*[WATER] * 4), make_labels(*[TREES] * 4)
    assert answers_to(overview.ask_vegetation, lake)["Is it green?"] == {
        "No, there are no plants in view."
    }
    assert answers_to(overview.ask_land, lake)["Is it mostly land or water?"] == {
        "Mostly water: water covers nearly all of the scene."
    }
    assert answers_to(overview.ask_whole, forest)["Is everything forest?"] == {
        "Yes, tree cover covers nearly all of the scene."
    }


def test_a_hidden_scene_is_put_together_by_nobody():
    forest = make_labels(*[TREES] * 4)
    hidden = replace(forest, cloud=np.ones_like(forest.cloud))
    for ask in (overview.ask_urban, overview.ask_sides, overview.ask_vegetation):
        (answers,) = {frozenset(given) for given in answers_to(ask, hidden).values()}
        assert answers == {"Clouds hide the scene, so that cannot be told."}


def test_halves_are_compared_by_their_main_covers():
    classes = np.full((60, 60), COVERS.index("tree cover"), np.uint8)
    classes[:, 30:] = COVERS.index("water")
    labels = SceneLabels.from_cover_map(CoverMap(classes))
    assert answers_to(overview.ask_sides, labels)["Compare the left and the right."] == {
        "The left is mostly tree cover, the right is mostly water."
    }


def test_places_have_several_names_and_one_answer():
    labels = make_mapped_labels()
    asked = answers_to(land_cover.ask_present_in, labels, count=6000)
    for place in ("bottom right", "lower right", "south-east", "southeast"):
        assert asked[f"Is there water in the {place}?"] == {
            "Yes, water covers about 10 percent of the bottom right."
        }
    asked = answers_to(land_cover.ask_place, labels, count=3000)
    assert asked["What's to the south?"] == asked["What is in the bottom half?"]
    assert asked["What is on the left side?"] == asked["What is in the left half?"]
    assert len(asked["What is in the north-west?"]) == 1


def test_what_no_land_cover_tells_is_declined():
    asked = answers_to(ask_feature, make_labels(*[TREES] * 4), count=2000)
    assert {"Is there an island?", "Any mountains?", "Where is the beach?"} <= set(asked)
    assert set.union(*asked.values()) == {NOT_MAPPED}
