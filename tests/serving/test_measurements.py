"""Summaries, suggested questions and comparisons from the spectral measurements of a scene."""

from __future__ import annotations

import pytest

from earthvlm.scenes.analysis.spectral_indices import SpectralIndices
from earthvlm.serving.measurements import (
    select_measurements,
    suggest_next,
    suggest_questions,
    summarize_measurements,
)

LAKE = SpectralIndices({"water": 1 / 3, "dense vegetation": 2 / 3}, "MNDWI")
SNOW = SpectralIndices({"snow": 0.9, "water": 0.1, "bare or built": 0.0}, "MNDWI")
DESERT = SpectralIndices({"bare or built": 1.0}, "NDWI")


def test_summary_names_shares():
    assert summarize_measurements(LAKE) == "33\u00a0% water, 67\u00a0% vegetation"
    assert summarize_measurements(SNOW) == "90\u00a0% snow, 10\u00a0% water, no vegetation"
    assert summarize_measurements(DESERT) == "No open water, no vegetation"
    assert "nothing was measured" in summarize_measurements(None)


def test_suggested_questions_fit_the_scene():
    assert "Where is the water?" in suggest_questions(LAKE)
    assert "Is there snow?" in suggest_questions(SNOW)
    assert "Where is the water?" not in suggest_questions(DESERT)
    assert {len(suggest_questions(each)) for each in (None, LAKE, SNOW, DESERT)} == {5}


def test_suggestions_follow_the_conversation():
    fitting = suggest_questions(LAKE)
    assert suggest_next([], "", fitting) == fitting
    next_ones = suggest_next(["Is there water?"], "Yes, there is water.", fitting)
    assert next_ones[:2] == ["Where is the water?", "How much of the scene is water?"]
    assert "Is there water?" not in next_ones and len(set(next_ones)) == len(fitting)
    none = suggest_next(["Is there snow?"], "No, there is no snow in view.", fitting)
    assert not [question for question in none if "snow" in question]
    assert "Is there water?" not in suggest_next(
        ["Where is the water?", "Is it large?"], "Mostly in the top left.", fitting
    )
    everything = [*fitting, *next_ones, "What is in the bottom right?", "Is there snow?"]
    assert len(suggest_next(everything, "Trees.", fitting)) == len(fitting)


def test_measurements_match_the_covers_in_a_text():
    assert select_measurements("A lake among trees.", LAKE) == [
        ("open water", pytest.approx(1 / 3)),
        ("vegetation of any kind", pytest.approx(2 / 3)),
    ]
    assert select_measurements("There is a cloud.", DESERT) == []  # cloud was not measured
    assert select_measurements("A lake.", None) == []
