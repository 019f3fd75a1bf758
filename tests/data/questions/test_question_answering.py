"""Synthetic questions, answers and descriptions agree with the labels."""

from __future__ import annotations

import datetime
import random
import re
from dataclasses import replace

import numpy as np
import pytest

from earthvlm.data.labels import QUARTERS, SceneLabels
from earthvlm.data.questions import templates
from earthvlm.data.questions.asked_questions import Known
from earthvlm.data.questions.question_answering import (
    QUESTIONS,
    mistype,
    vary_wording,
    write_questions_and_answers,
)
from earthvlm.data.questions.scene_sentences import describe, describe_in_one_sentence, short_phrase
from earthvlm.data.questions.scenes import NO_DATE, NO_PLACE
from earthvlm.data.questions.unanswerable import ASK_IN_ENGLISH, OTHER_LANGUAGES
from earthvlm.metrics.land_cover import mentioned_land_cover
from earthvlm.metrics.questions import score_mentions, score_quarter, score_water
from earthvlm.scenes.land_cover import COVERS, CoverMap
from earthvlm.training.losses.query_targets import QueryTargets
from tests.conftest import random_scene
from tests.support.made_labels import MIXED, TREES, WATER, make_labels

FOLLOW_UPS = (
    *(*templates.WHERE_IT_IS, *templates.HOW_MUCH, *templates.SURE, *templates.WHY),
    *(*templates.AND_SECOND, *templates.NEXT),
)


def make_mapped_labels() -> SceneLabels:
    """A river from left to right through forest, a lake at the bottom right, a cloud, a town."""
    classes = np.full((120, 120), COVERS.index("tree cover"), np.uint8)
    classes[30:33] = COVERS.index("water")
    classes[90:110, 90:110] = COVERS.index("water")
    classes[:20, :40] = COVERS.index("cloud")
    classes[100:115, 10:40] = COVERS.index("built-up land")
    cover_map = CoverMap(classes)
    return replace(SceneLabels.from_cover_map(cover_map), predicted_map=cover_map)


def ask_all(labels: SceneLabels, count: int = 1500, **known) -> dict[str, set[str]]:
    """The answers of many conversations, by question in lower case without a question mark."""
    rng, answers = random.Random(0), {}
    for _ in range(count):
        messages = write_questions_and_answers(labels, rng, **known)
        for asked, answer in zip(messages[::2], messages[1::2], strict=True):
            question = asked["content"].lower().rstrip("?.")
            answers.setdefault(question, set()).add(answer["content"])
    return answers


@pytest.fixture(scope="module")
def of_map() -> dict[str, set[str]]:
    """Answers about a scene with a map, to questions without typing errors and courtesies."""
    with pytest.MonkeyPatch.context() as patch:
        for share in ("MISTYPED", "POLITE"):
            patch.setattr(f"earthvlm.data.questions.question_answering.{share}", 0)
        return ask_all(make_mapped_labels(), 5000, scene=random_scene(), has_map=True)


@pytest.fixture(scope="module")
def of_labels() -> dict[str, set[str]]:
    """Answers about a scene of which nothing but labels is known."""
    return ask_all(MIXED)


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


def test_answers_agree_with_the_labels(monkeypatch):
    monkeypatch.setattr("earthvlm.data.questions.question_answering.MISTYPED", 0)
    rng = random.Random(0)
    for _ in range(300):
        for message in range(0, len(conversation := write_questions_and_answers(MIXED, rng)), 2):
            question, answer = (m["content"] for m in conversation[message : message + 2])
            if question.lower().startswith("is there water") and "in the" not in question:
                assert score_water(answer, MIXED, "")
            if question.lower().startswith("what fills the top left") and "half" not in question:
                assert score_quarter(answer, MIXED, "top left")
            if "bare" in question.lower() and "is there any" in question.lower():
                assert "no bare soil" in answer


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


def test_every_kind_of_question_can_be_asked():
    scene = replace(random_scene(), pixel_metres=10.0)
    known, rng = Known(make_mapped_labels(), scene, has_map=True), random.Random(0)
    for ask in QUESTIONS:
        assert sum(ask(known, rng) is not None for _ in range(40)) > 5, ask


@pytest.mark.slow
def test_wordings_of_one_question_have_one_answer(of_map):
    answers = of_map
    for question in ("is there water", "are there any lakes", "do you see a lake"):
        assert answers[question] == {"Yes, water covers about 6 percent of the scene."}
    for question in ("is it free of water", "is the scene without water"):
        assert answers[question] == {"No, water covers about 6 percent of the scene."}
    denied = [given for q, given in answers.items() if q.startswith("is it true that there is no")]
    assert len(denied) > 5
    assert all(text.startswith("Yes") == ("there is no" in text) for (text,) in denied)
    cloudy = "clouds hide about 6 percent of the scene."
    assert answers["are there clouds"] == {f"Yes, {cloudy}"}
    assert answers["is it free of clouds"] == answers["is the sky clear"] == {f"No, {cloudy}"}


@pytest.mark.slow
def test_every_question_alone_has_one_answer(of_map):
    """But for those that refer to the one before."""
    answers = of_map
    followed = [t.lower().rstrip("?.") for t in FOLLOW_UPS]
    unclear = {
        question
        for question, given in answers.items()
        if len(given) > 1 and not any(question.endswith(text) for text in followed)
    }
    assert unclear == set()


@pytest.mark.slow
def test_parts_of_the_map_are_counted_and_rivers_followed(of_map):
    answers = of_map
    assert answers["how many lakes are there"] == {"The map shows 2 separate parts of water."}
    assert answers["which way does the river run"] == {
        "It runs between the left and the right; which way it flows cannot be seen."
    }
    assert answers["what surrounds the lake"] == {"Mostly tree cover."}
    assert answers["how many burn scars are there"] == {"There is no burnt land in view."}


def test_sizes_are_told_of_the_largest_part_on_the_map():
    scene = replace(random_scene(), pixel_metres=10.0)
    answers = ask_all(make_mapped_labels(), scene=scene, has_map=True)
    # 20 x 20 of 120 x 120 pixels of a scene of 64 x 64 pixels
    lake = {"The largest part of water covers about 1.1 ha."}
    assert answers["how big is the lake"] == lake
    others = [answers.get(f"how large is the {water}") for water in ("lake", "reservoir", "pond")]
    assert any(others) and all(given in (None, lake) for given in others)
    no_fire = [given for asked, given in answers.items() if re.match("how .*(burn|fire)", asked)]
    assert no_fire and all(given == {"There is no burnt land in view."} for given in no_fire)
    assert all(len(given) == 1 for asked, given in answers.items() if "how big is" in asked)


def test_sizes_are_not_asked_where_pixels_have_none():
    answers = ask_all(make_mapped_labels(), scene=random_scene(), has_map=True)
    assert "how big is the lake" not in answers


def test_parts_of_a_map_are_not_asked_about_without_it():
    answers = ask_all(make_mapped_labels(), count=500, scene=random_scene())
    assert not any("The map shows" in text for given in answers.values() for text in given)


@pytest.mark.slow
def test_date_place_and_size_are_told_where_the_context_has_them(of_labels):
    scene = replace(
        random_scene(),
        date=datetime.date(2021, 1, 16),
        longitude=2.8,
        latitude=-42.3,
        pixel_metres=10.0,
    )
    answers = ask_all(MIXED, scene=scene)
    taken = "It was taken on 16 January 2021."
    assert answers["when was this taken"] == {taken}
    assert answers["which season is it"] == {f"It is summer. {taken}"}
    assert "At 42.3° S 2.8° E." in next(iter(answers["what are the coordinates"]))
    assert answers["which hemisphere is it in"] == {
        "It is temperate, in the southern hemisphere, at 42.3° S 2.8° E."
    }
    side = scene.width / 100
    assert answers["how large is the area"] == {f"It is {side:.1f} x {side:.1f} km."}
    assert of_labels["when was this taken"] == {NO_DATE}
    assert of_labels["what are the coordinates"] == {NO_PLACE}


@pytest.mark.slow
def test_other_languages_are_never_answered(of_labels):
    questions = {q.lower().rstrip("?.") for group in OTHER_LANGUAGES for q in group}
    asked = questions & set(of_labels)
    assert len(questions) > 300 and len(asked) > 40
    assert all(of_labels[question] == {ASK_IN_ENGLISH} for question in asked)


def test_hidden_ground_cannot_be_told():
    hidden = replace(MIXED, cloud=np.ones((2, 2), np.float32))
    answers = ask_all(hidden, count=500)
    told = "Clouds hide the scene, so that cannot be told."
    assert answers["is there water"] == answers["which land cover dominates"] == {told}


@pytest.mark.slow
def test_haze_is_asked_about_where_it_is_known(of_labels):
    assert "is it hazy" not in ask_all(make_mapped_labels(), count=500)
    assert of_labels["is it hazy"] == {"No, there is no haze in view."}
    assert QueryTargets.write(make_mapped_labels())[-2] is None


def test_one_sentence_is_one_sentence():
    for labels in (MIXED, make_mapped_labels(), make_labels(*[WATER] * 4)):
        assert describe_in_one_sentence(labels).count(".") == 1


def test_snow_and_burnt_land_are_described():
    labels = make_labels({"snow or ice": 1.0}, {"burnt land": 1.0}, {"burnt land": 1.0}, TREES)
    text = describe(labels)
    assert text.startswith("Burnt land covers about 50 percent of the scene.")
    assert "snow or ice (25 percent)" in text
    assert mentioned_land_cover(text)[0] == "burnt land"


def test_labels_of_a_map_keep_its_shares():
    labels = make_mapped_labels()
    cover_map = labels.cover_map
    assert labels.cloud.shape == (6, 6) and labels.has_fields
    assert labels.cloud_share == pytest.approx(cover_map.shares["cloud"], abs=1e-6)
    for cover, share in cover_map.ground_shares.items():
        assert labels.shares[cover] == pytest.approx(share, abs=1e-6)
    assert labels.field("bottom right").shares["water"] == pytest.approx(0.25, abs=1e-6)
    turned = labels.flipped(0)
    assert turned.field("top right").shares["water"] == pytest.approx(0.25, abs=1e-6)
    assert turned.cover_map.fields["top right"].shares["water"] == pytest.approx(0.25)
    assert labels.quarter("top left").cover_map is None


def test_labels_of_tiles_and_maps_are_joined():
    labels = make_mapped_labels()
    joined = SceneLabels.mosaic([[labels, MIXED]])
    assert joined.cloud.shape == (6, 12) and joined.cover_map is None
    assert joined.quarter("right half").shares["water"] == pytest.approx(0.25)
    assert joined.quarter("left half").shares == pytest.approx(labels.shares, abs=1e-6)
    twice = SceneLabels.mosaic([[labels], [labels]])
    assert twice.cover_map.classes.shape == (240, 120)


def test_map_without_any_ground_has_labels():
    hidden = CoverMap(np.full((30, 40), COVERS.index("cloud"), np.uint8))
    labels = SceneLabels.from_cover_map(hidden)
    assert labels.cloud_share == 1 and np.isfinite(labels.land_cover).all()


def test_kind_of_scene_is_kept_where_a_hand_gave_it():
    covers = {"tree cover": 1.0}
    entry = {"quadrants": dict.fromkeys(QUARTERS, covers), "scene": "Highway"}
    assert SceneLabels.from_entry(entry).scene_class == "Highway"
    for source, kept in (("hand label", "Highway"), ("classifier", None)):
        assert SceneLabels.from_entry(entry | {"scene_source": source}).scene_class == kept


def test_wordings_vary_and_keep_their_letters():
    rng = random.Random(0)
    words = {vary_wording("Is there water?", rng) for _ in range(300)}
    assert {"Is there water?", "is there water?", "Is there water"} <= words and len(words) > 8
    assert len({mistype("Is there water in view?", rng) for _ in range(50)}) > 5
    assert {mistype("Any snow?", rng) for _ in range(50)} >= {"Any sonw?", "Any sow?", "Any snoow?"}
    assert mistype("???", rng) == "???"


@pytest.mark.slow
def test_places_are_asked_by_every_name_of_a_cover(of_map):
    names = ("where is the water", "where are the lakes", "where is the lake", "where is the sea")
    assert len({frozenset(of_map[name]) for name in names}) == 1
    assert "water" in of_map and "any lakes" in of_map
