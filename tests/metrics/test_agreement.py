"""Where answers depart from what was measured."""

from __future__ import annotations

import random

import numpy as np
import pytest

from earthvlm.data.labels import SceneLabels
from earthvlm.data.questions.question_answering import write_questions_and_answers
from earthvlm.metrics.agreement import drop_denials, drop_false_denials, find_disagreements
from earthvlm.scenes.analysis.spectral_indices import SpectralIndices
from earthvlm.scenes.land_cover import COVERS, CoverMap

LAKE = SpectralIndices(
    {"cloud": 0.0, "snow": 0.0, "water": 0.23, "dense vegetation": 0.5, "sparse vegetation": 0.1},
    "MNDWI",
    {"water": 0.01},
)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("No, there is no water in view.", "The model says no water; measured: 23 % ± 2."),
        ("Water covers about 35 percent of the scene.", "says 35 % water; measured: 23 % ± 2."),
        ("Water, on about 10 percent of the scene.", "says 10 % water; measured: 23 % ± 2."),
        ("Water covers nearly all of the scene.", "says nearly all water; measured: 23 % ± 2."),
        ("Bare soil (70 percent) and water (5 percent).", "says 5 % water; measured: 23 % ± 2."),
        ("Clouds hide about 30 percent of the scene.", "says 30 % cloud; measured: none."),
        (
            "Yes, snow or ice covers less than 1 percent of the scene.",
            "snow or ice; measured: none",
        ),
        ("A little water is in view.", "says a little water; measured: 23 %"),
        ("Tree cover covers about 85 percent of the scene.", "85 % tree cover; measured: 60 % ± 2"),
    ],
)
def test_claims_beyond_the_error_are_reported(answer, sentence):
    (found,) = find_disagreements("What is in this scene?", answer, LAKE)
    assert sentence in found.replace("\u00a0", " ")


@pytest.mark.parametrize(
    "answer",
    [
        "Yes, water covers about 25 percent of the scene.",
        "Tree cover covers about 40 percent of the scene.",  # of 60 percent plants
        "There are no clouds in view.",
        "Water dominates the bottom left; tree cover dominates the top right.",
        "Water (60 percent) fills the top left.",
        "Built-up land covers about 30 percent of the scene.",  # indices do not measure it
        "That cannot be told from this scene.",
    ],
)
def test_claims_within_the_error_are_not_reported(answer):
    assert find_disagreements("What is in this scene?", answer, LAKE) == []


def test_places_of_what_is_absent_are_reported():
    where = "Where is the {}?"
    snow = find_disagreements(where.format("snow"), "Mostly in the top left.", LAKE)
    assert snow == ["The model says snow or ice; measured: none."]
    assert find_disagreements(where.format("water"), "Mostly in the top left.", LAKE) == []


def test_places_that_the_map_does_not_show_are_reported():
    classes = np.full((40, 40), COVERS.index("tree cover"), np.uint8)
    classes[:20, :20] = classes[20:24, 20:] = COVERS.index("water")
    places = {
        "Mostly in the bottom right.": "The model says mostly in the bottom right; "
        "on the map: 83 % of the water in the top left.",
        "Mostly in the top right and bottom left.": "The model says mostly in the top right and "
        "bottom left; on the map: 83 % of the water in the top left.",
        "Mostly in the top left.": None,
        "Mostly in the bottom right and top left.": None,
        "Mostly in the centre.": None,
        "Water is spread over all of the scene.": None,
    }
    for answer, sentence in places.items():
        found = find_disagreements("Where is the water?", answer, LAKE, CoverMap(classes))
        assert [each.replace("\u00a0", " ") for each in found] == ([sentence] if sentence else [])
    assert find_disagreements("Where is the water?", "Mostly in the bottom right.", LAKE) == []


def test_questions_about_parts_are_not_compared():
    answer = "No, there is no water in the top left."
    assert find_disagreements("Is there water in the top left?", answer, LAKE) == []
    assert find_disagreements("What fills the top left quarter?", "Water (90 percent).", LAKE) == []


def test_larger_error_allows_larger_differences():
    answer = "Water covers about 35 percent of the scene."
    hazy = SpectralIndices(LAKE.shares, "MNDWI", {"water": 0.1})
    assert find_disagreements("?", answer, LAKE) and not find_disagreements("?", answer, hazy)


def test_share_of_the_ground_between_clouds_agrees():
    cloudy = SpectralIndices({"cloud": 0.5, "water": 0.2, "dense vegetation": 0.3}, "MNDWI")
    for percent in (20, 40):
        answer = f"Water covers about {percent} percent of what can be seen."
        assert find_disagreements("?", answer, cloudy) == []
    assert find_disagreements("?", "Water covers about 60 percent of the scene.", cloudy)


def test_without_measurements_nothing_is_compared():
    assert find_disagreements("Is there water?", "There is no water in view.", None) == []


def test_map_is_compared_where_indices_measure_nothing():
    classes = np.full((40, 40), COVERS.index("tree cover"), np.uint8)
    classes[:20] = COVERS.index("built-up land")
    answer = "Built-up land covers about 20 percent of the scene."
    (found,) = find_disagreements("?", answer, LAKE, CoverMap(classes))
    assert found.replace("\u00a0", " ") == (
        "The model says 20 % built-up land; on the map: 50 % ± 10."
    )
    assert find_disagreements("?", answer.replace("20", "45"), None, CoverMap(classes)) == []


@pytest.mark.parametrize(
    "question",
    [
        "What is in the northwest?",
        "Whats in the upper left",
        "What's on the riight sied?",
        "What covers the botom left?",
        "what is in the centr?",
    ],
)
def test_answers_about_a_part_are_not_compared(question):
    assert find_disagreements(question, "Water (80 percent), with tree cover.", LAKE) == []
    assert find_disagreements("What is here?", "Water (80 percent), with tree cover.", LAKE) != []


@pytest.mark.parametrize(
    "question", ["What is there least of?", "Is it bright?", "What covers the rest?", "At night?"]
)
def test_words_like_those_of_parts_are_none(question):
    assert find_disagreements(question, "Water (80 percent), with tree cover.", LAKE) != []


def test_right_answers_never_disagree():
    """Answers that training writes from labels agree with measurements of the same shares."""
    rng, compared = random.Random(3), 0
    for seed in range(60):
        classes = np.full((48, 48), COVERS.index("tree cover"), np.uint8)
        rows, columns = np.random.default_rng(seed).integers(0, 48, 2)
        classes[:rows, :columns] = COVERS.index(rng.choice(("water", "snow or ice", "bare soil")))
        cover_map = CoverMap(classes)
        share = cover_map.shares
        measured = SpectralIndices(
            {
                "cloud": 0.0,
                "snow": share["snow or ice"],
                "water": share["water"],
                "dense vegetation": share["tree cover"],
                "sparse vegetation": 0.0,
            },
            "MNDWI",
        )
        messages = write_questions_and_answers(SceneLabels.from_cover_map(cover_map), rng)
        for asked, answered in zip(messages[::2], messages[1::2], strict=True):
            found = find_disagreements(asked["content"], answered["content"], measured, cover_map)
            assert found == [], (asked, answered, found)
            compared += 1
    assert compared > 150


def test_false_denials_are_dropped():
    text = "Water covers about 60 percent of the scene. There is no water in view."
    assert drop_false_denials(text, LAKE) == "Water covers about 60 percent of the scene."
    assert drop_false_denials(text, None) == text
    assert drop_false_denials("There is no water in view.", LAKE) == "There is no water in view."


def test_denials_are_left_out_of_what_is_embedded():
    text = (
        "Trees cover about 60 percent of the scene. There is no water in view. No houses are seen."
    )
    assert drop_denials(text) == "Trees cover about 60 percent of the scene."
    assert drop_denials("Northern forest.") == "Northern forest."
    assert drop_denials("There is no water in view.") == "There is no water in view."
