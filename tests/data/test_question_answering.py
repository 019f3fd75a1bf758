"""Facts and the words made from them: the words must be true of the labels, however turned."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from earthvlm.data.augmentation import add_clouds, augment, join_scenes, stain_water
from earthvlm.data.labels import LAND_COVER, QUARTERS, SceneLabels
from earthvlm.data.question_answering import (
    QUESTIONS,
    describe,
    short_phrase,
    write_questions_and_answers,
)
from earthvlm.metrics.land_cover import mentioned_land_cover
from earthvlm.metrics.questions import score_mentions, score_quarter, score_water
from earthvlm.scenes.bands import BANDS
from earthvlm.training.query_targets import QueryTargets
from tests.conftest import random_scene


def facts_of(*cells: dict[str, float], scene_class: str | None = None) -> SceneLabels:
    """Facts of 2 x 2 cells, each given as shares by name."""
    grid = [[cell.get(cover, 0.0) for cover in LAND_COVER] for cell in cells]
    sky = np.zeros((2, 2), np.float32)
    return SceneLabels(np.array(grid, np.float32).reshape(2, 2, -1), sky, sky, scene_class)


WATER, TREES, TOWN = {"water": 1.0}, {"tree cover": 1.0}, {"built-up land": 1.0}
MIXED = facts_of(WATER, TREES, TREES, TREES)


def test_a_description_says_what_is_there_and_where():
    assert describe(MIXED) == (
        "Tree cover covers about 75 percent of the scene. There is also water (25 percent). "
        "Water dominates the top left; tree cover dominates the top right, bottom left and "
        "bottom right."
    )


def test_a_description_says_that_clouds_hide_the_ground():
    hidden = replace(MIXED, cloud=np.ones((2, 2), np.float32))
    assert "Clouds hide almost all" in describe(hidden)
    assert mentioned_land_cover(describe(hidden)) == []


@pytest.mark.parametrize(
    ("turn", "place"),
    [
        (lambda f: f.flipped(1), "top right"),
        (lambda f: f.flipped(0), "bottom left"),
        (lambda f: f.rotated(1), "bottom left"),
        (lambda f: f.rotated(2), "bottom right"),
    ],
)
def test_quarters_follow_flips_and_turns_as_numpy_does_them(turn, place):
    assert [name for name in QUARTERS if turn(MIXED).quarter(name).dominant == "water"] == [place]


def test_a_mosaic_knows_its_quarters_and_halves():
    scene = (random_scene(16, 16), facts_of(*[WATER] * 4))
    other = (random_scene(16, 16), facts_of(*[TOWN] * 4))
    joined, labels = join_scenes([[scene, other], [scene, scene]])
    assert joined.reflectance.shape == (32, 32, 12)
    assert labels.quarter("top right").dominant == "built-up land"
    assert labels.quarter("left half").shares["water"] == 1
    assert labels.shares["water"] == 0.75


def test_augmented_pixels_and_facts_agree():
    """Water is made dark: after any variation, the dark quarters are those called water."""
    for seed in range(40):
        reflectance = np.full((64, 64, 12), 3000, np.float32)
        reflectance[:32, :32] = 100
        scene = replace(random_scene(), reflectance=reflectance)
        rng = np.random.default_rng(seed)
        varied, labels = augment(scene, MIXED, rng, zoom=1.5 if seed % 2 else 1)
        if labels.cloud_share + labels.haze_share > 0.02:
            continue
        red = varied.reflectance[..., 2]
        half = red.shape[0] // 2
        means = {
            "top left": red[:half, :half].mean(),
            "top right": red[:half, half:].mean(),
            "bottom left": red[half:, :half].mean(),
            "bottom right": red[half:, half:].mean(),
        }
        darkest = min(means, key=means.get)
        assert labels.quarter(darkest).dominant == "water", seed


def test_clouds_are_bright_and_counted():
    dark = np.full((64, 64, 12), 200, np.float32)
    covered = []
    for seed in range(20):
        pixels, labels = add_clouds(dark, MIXED, np.random.default_rng(seed))
        blue = pixels[..., 0]
        covered.append((labels.cloud_share, (blue > 1800).mean()))
        assert labels.cloud_share + labels.haze_share <= 1.001
    shares, bright = np.array(covered).T
    assert shares.max() > 0.8 and shares.min() == 0
    assert np.corrcoef(shares, bright)[0, 1] > 0.8


def test_stained_water_is_darker_in_the_visible_and_land_stays():
    green, infrared = BANDS.index("B03"), BANDS.index("B08")
    pixels = np.full((8, 8, 12), 2000, np.float32)
    pixels[:4] = 250
    pixels[:4, :, infrared] = 200
    browner = 0
    for seed in range(20):
        stained = stain_water(pixels, np.random.default_rng(seed))
        np.testing.assert_array_equal(stained[4:], pixels[4:])
        assert (stained[:4] < pixels[:4]).all() and (stained > 50).all()
        browner += (stained[:4, :, green] < stained[:4, :, infrared]).all()
    assert browner > 10


def test_every_question_has_an_answer_that_is_true():
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


def test_scores_tell_right_from_wrong():
    right, wrong = describe(MIXED), "Built-up land covers nearly all of the scene."
    assert score_mentions(right, MIXED, "") == 1
    assert score_mentions(wrong, MIXED, "") == 0
    assert score_mentions("Tree cover covers the scene. There is no water in view.", MIXED, "") == (
        pytest.approx(2 / 3)
    )
    assert score_quarter("Water (95 percent).", MIXED, "top left") == 1
    assert score_quarter("Tree cover (95 percent).", MIXED, "top left") == 0


def test_phrases_name_what_dominates():
    rng = random.Random(0)
    phrases = {short_phrase(facts_of(*[WATER] * 2, *[TREES] * 2), rng) for _ in range(50)}
    assert len(phrases) > 10
    assert any(p.startswith("a lake") for p in phrases)
    assert not any("town" in p or "buildings" in p for p in phrases)


def test_soft_words_say_what_a_description_says():
    words = QueryTargets.write(MIXED)
    assert words[:5] == ["tree cover", 0.75, "water", 0.25, "nothing"]
    assert words[8:13] == ["top left", "water", 1.0, "nothing", 0.0]
    assert len(words) <= 32  # the queries of a default bridge
    assert words[-1] is None  # the kind of scene is not known
