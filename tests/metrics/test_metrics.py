"""Metrics of descriptions, answers, losses and retrieval."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from earthvlm.metrics import retrieval
from earthvlm.metrics.captioning import score_captions
from earthvlm.metrics.land_cover import captioned_land_cover
from earthvlm.metrics.questions import (
    score_mentions,
    score_mentions_precision,
    score_mentions_recall,
    score_water,
)
from earthvlm.metrics.results import score_losses
from earthvlm.metrics.retrieval import pair_ranks, score_retrieval


def test_correct_descriptions_score_best():
    references = [
        ["Tree cover covers about 60 percent of the scene.", "A forest beside a lake."],
        ["Water covers nearly all of the scene.", "The open sea and nothing else."],
        ["Built-up land covers about 45 percent of the scene.", "A town beside some fields."],
    ]
    right = [sentences[0] for sentences in references]
    captions = {
        "scene": right,
        "shuffled_image": right[1:] + right[:1],
        "no_image": ["A scene."] * 3,
    }
    results = {f.name: f for f in score_captions(captions, references)}
    assert list(results) == ["BLEU-4", "METEOR", "ROUGE-L", "CIDEr"]
    for result in results.values():
        assert result.value > max(result.shuffled_image, result.no_image) >= 0
        assert result.low <= result.value + 1e-9 and result.value <= result.high + 1e-9
    assert results["BLEU-4"].value == pytest.approx(1) == results["ROUGE-L"].value
    assert results["METEOR"].value == pytest.approx(1, abs=0.01)


def test_perplexity_weighs_tokens_not_tiles():
    tokens = np.array([1, 3])
    losses = {
        "scene": np.log([8.0, 1.0]),
        "shuffled_image": np.log([8.0, 8.0]),
        "no_image": np.zeros(2),
    }
    loss, perplexity = score_losses(losses, tokens)
    assert loss.value == pytest.approx(np.log(8) / 4)
    assert perplexity.value == pytest.approx(8 ** (1 / 4))
    assert perplexity.shuffled_image == pytest.approx(8 ** (2 / 4)) and perplexity.no_image == 1


def test_a_tie_counts_against_the_scene(monkeypatch):
    similarity = np.array([[0.9, 0.1, 0.9], [0.2, 0.8, 0.1], [0.5, 0.5, 0.5]])
    monkeypatch.setattr(retrieval, "QUERIES_AT_ONCE", 2)
    ranks = pair_ranks(similarity, np.eye(3))
    assert ranks.tolist() == [2, 1, 3]
    results = {f.name.split(", ")[1]: f for f in score_retrieval(ranks)}
    assert results["recall@1"].value == pytest.approx(1 / 3)
    assert results["median rank"].value == 2 and results["median rank"].shuffled_image == 2


def test_land_cover_is_compared_with_captions():
    captions = ("Farmland surrounds a small lake.", "Crops and grasslands; no developed areas.")
    answer = "Fields beside a forest, and some water. There is no snow."
    assert set().union(*map(captioned_land_cover, captions)) == {"crop", "water", "grass"}
    assert captioned_land_cover(answer) == {"crop", "tree", "water"}
    assert score_mentions_precision(answer, captions, "") == pytest.approx(2 / 3)
    assert score_mentions_recall(answer, captions, "") == pytest.approx(2 / 3)
    assert score_mentions(answer, captions, "") == pytest.approx(2 / 3)
    assert score_mentions("Nothing.", captions, "") == 0
    assert score_mentions(answer, ("A scene.",), "") == 0
    assert score_mentions("Nothing.", ("A scene.",), "") == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("Yes.", True),
        ("yes, a lake", True),
        ("No.", False),
        ("**No**, none", False),
        ("North of the road lies a lake.", None),
        ("Nothing but water.", None),
        ("Not sure.", None),
        ("Yesterday", None),
    ],
)
def test_yes_or_no_must_be_a_whole_word(answer, says):
    for there in (True, False):
        labels = SimpleNamespace(shares={"water": float(there)})
        assert score_water(answer, labels, "") == float(says is there)
