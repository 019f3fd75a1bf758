"""The benchmark of unseen places reads answers as people would."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from benchmarks.truth_answers import (
    Asker,
    balanced_accuracy,
    balanced_interval,
    read_cover,
    read_layout,
    read_quarters,
    read_share,
    read_yes_or_no,
)
from benchmarks.truth_consistency import PAIRS, list_pairs
from benchmarks.truth_conversations import (
    CONVERSATIONS,
    JUDGED,
    VERDICTS,
    find_contradictions,
    judge,
    open_scene,
    score_judged,
)
from benchmarks.truth_scenes import LETTERS, SEEN_BY_EYE
from earthvlm.data.questions.scene_sentences import describe
from earthvlm.scenes.land_cover import COVERS, FIELDS
from tests.support.made_labels import MIXED


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ("Water covers about 15 percent of the scene.", 0.15),
        ("Water covers nearly all of the scene.", 0.99),
        ("Yes, water covers less than 1 percent of the scene.", 0.005),
        ("There is no water in view.", 0.0),
        ("I cannot tell that.", None),
    ],
)
def test_shares_are_read(answer, share):
    assert read_share(answer) == share


def test_places_and_covers_are_read():
    assert read_quarters("Mostly in the top left and bottom right.") == ["top left", "bottom right"]
    assert len(read_quarters("Water is spread over all of the scene.")) == 4
    assert read_cover("Cloud, then water (10 percent).") == "cloud"
    assert read_cover("I cannot tell.") is None
    assert [read_yes_or_no(a) for a in ("Yes, a lake.", "no", "Northern.")] == [True, False, None]
    assert read_layout(describe(MIXED)) == {
        "top left": "water",
        "top right": "tree cover",
        "bottom left": "tree cover",
        "bottom right": "tree cover",
    }
    assert set(read_layout("Water dominates every quarter.").values()) == {"water"}


def test_constant_answers_score_a_half():
    truth = np.array([True] * 30 + [False] * 10)
    right = np.ones(40, dtype=bool) == truth
    assert balanced_accuracy(right, truth) == 0.5
    assert balanced_interval(right, truth) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("answer", "rule", "kept"),
    [
        ("Yes, water covers about 15 percent of the scene.", "yes", True),
        ("There is no water in view.", "no", True),
        ("Water covers about 15 percent.", "share:0.1-0.2", True),
        ("Water covers about 35 percent.", "share:0.1-0.2", False),
        ("Mostly in the bottom right and top left.", "quarters:top left|bottom right", True),
        ("Mostly in the top left.", "quarters:top left|bottom right", False),
        ("Sparse vegetation, on about 60 percent.", "cover:bare soil|sparse vegetation", True),
        ("At 42.3° N 2.8° E.", "all:42.3|2.8", True),
        ("I cannot tell that from a satellite scene.", "refuse", True),
        ("Please ask in English.", "english", True),
        ("At 42.3° N.", "sentence", True),
        ("Water. Trees.", "sentence", False),
    ],
)
def test_answers_are_judged_by_rules(answer, rule, kept):
    assert judge(answer, rule) == kept


def test_contradictions_are_found():
    covers = "Built-up land covers about 35 percent of the scene."
    denied = "There is no built-up land in view."
    assert find_contradictions([covers, denied]) == ["built-up land"]
    assert find_contradictions([covers, "There is no water in view."]) == []
    assert find_contradictions([denied, "No, there is no built-up land in view."]) == []


def test_conversations_have_five_questions_and_known_rules():
    entries = json.loads(CONVERSATIONS.read_text())
    assert len(entries) == 100 and len({entry["scene"] for entry in entries}) >= 12
    assert sum(entry["variant"] != "full" for entry in entries) >= 40
    for entry in entries:
        assert len(entry["turns"]) == 5
        for _, rule in entry["turns"]:
            judge("Yes.", rule or "yes")
            if rule and rule.startswith("cover:"):
                assert set(rule.removeprefix("cover:").split("|")) <= set(COVERS)


def test_answers_that_changed_are_not_counted(tmp_path, tiny_bridge, capsys):
    entries = json.loads(JUDGED.read_text())
    assert len(entries) == 12 and sum(entry["variant"] != "full" for entry in entries) == 6
    assert {turn[2] for entry in entries for turn in entry["turns"]} <= set(VERDICTS)
    asker = Asker(tiny_bridge, tmp_path / "answers.jsonl")
    for entry in (one for one in entries[:3] if one["scene"].startswith("bundled:")):
        name = open_scene(tmp_path, entry["scene"], entry["variant"]).name
        questions, answers, _ = zip(*entry["turns"], strict=True)
        key = (tiny_bridge.revision, "chat", name, json.dumps(list(questions)))
        asker.kept[key] = json.dumps(["Mars.", *answers[1:]])
    [row] = score_judged(tmp_path, asker, limit=3)
    counted = [turn[2] for entry in entries[:3] for turn in entry["turns"][1:]]
    assert row.scenes == 12
    assert row.value == np.mean([verdict in ("right", "refused") for verdict in counted])
    assert capsys.readouterr().out.count("-> Mars. JUDGE") == 3


def test_pairs_of_wordings_differ():
    pairs = list_pairs(PAIRS)
    assert len(pairs) == 100 and all(first != second for first, second, _ in pairs)
    assert 20 < sum(opposite for _, _, opposite in pairs) < 50
    assert all(one != other for one, other in pairwise(pairs))


def test_tables_of_ninths_name_covers():
    for letters in json.loads(SEEN_BY_EYE.read_text())["ninths"].values():
        assert len(letters) == len(FIELDS)
        for letter in letters.replace(".", ""):
            assert set(LETTERS[letter]) <= set(COVERS)
