"""Likelihoods of candidate answers: one by one, in batches, on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from earthvlm.bridge.scoring import score_candidates
from earthvlm.cli import main
from tests.conftest import draw_adapter, random_scene

QUESTION, CANDIDATES = "Is there water?", ["Yes.", "No, there is none at all.", "A lake."]


def test_scores_are_the_losses_of_the_answers(tiny_bridge):
    draw_adapter(tiny_bridge)
    scenes = [random_scene(seed=1), random_scene(40, 72, seed=2)]
    scores = tiny_bridge.score(scenes, QUESTION, CANDIDATES)
    assert scores.shape == (2, 3) and (scores < 0).all()
    for scene, row in zip(scenes, scores, strict=True):
        for candidate, score in zip(CANDIDATES, row, strict=True):
            talk = [{"role": "user", "content": QUESTION}]
            talk.append({"role": "assistant", "content": candidate})
            losses, counts = tiny_bridge.answer_losses([scene], [talk])
            assert score == pytest.approx(-losses[0], rel=1e-4)
            mean = tiny_bridge.score(scene, QUESTION, [candidate], per_token=True)
            assert mean[0] == pytest.approx(-losses[0] / counts[0], rel=1e-4)
    assert np.abs(scores[0] - scores[1]).max() > 1e-4  # the scene matters
    assert tiny_bridge.score(None, QUESTION, CANDIDATES).shape == (3,)
    assert tiny_bridge.score([], QUESTION, CANDIDATES).shape == (0, 3)


def test_many_candidates_are_scored_in_several_passes(tiny_bridge, monkeypatch):
    scenes = [random_scene(seed=seed) for seed in range(3)]
    questions, candidates = ["Which?", "What?", "Where?"], [["a", "b", "c"], ["d"], ["e", "f"]]
    encoded, prefix = [], tiny_bridge.scene_prefix
    monkeypatch.setattr(
        type(tiny_bridge),
        "scene_prefix",
        lambda _, given: encoded.append(len(given)) or prefix(given),
    )
    score_candidates(tiny_bridge, [scenes[0]] * 3, questions, candidates)
    assert encoded == [1]  # one scene, asked about three times
    whole = score_candidates(tiny_bridge, scenes, questions, candidates)
    assert [len(each) for each in whole] == [3, 1, 2]
    monkeypatch.setattr("earthvlm.bridge.scoring.ROWS_AT_ONCE", 2)
    for one, other in zip(
        whole, score_candidates(tiny_bridge, scenes, questions, candidates), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4)


@pytest.mark.parametrize(
    ("question", "candidates"), [("", ["a"]), ("Which?", []), ("?", ["a", " "])]
)
def test_empty_questions_and_candidates_are_refused(question, candidates, tiny_bridge):
    with pytest.raises(ValueError, match="empty"):
        tiny_bridge.score(random_scene(), question, candidates)


def test_the_command_chooses_a_candidate(saved, tmp_path, capsys):
    random_scene().save(tmp_path / "scene.tif")
    command = ["describe", str(tmp_path / "scene.tif"), "--model_path", str(saved), "--device=cpu"]
    assert main([*command, "--prompt", QUESTION, "--candidates", "Yes.", "No.", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    likeliest = max(found["probabilities"], key=found["probabilities"].get)
    assert found["answer"] == likeliest
    assert main([*command, "--prompt", QUESTION, "--candidates", "Yes.", "No."]) == 0
    assert capsys.readouterr().out.startswith(f"{likeliest} (0.")
