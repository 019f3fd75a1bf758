"""Answers that foretell others: what is said stays the same, and fewer readings say it."""

from __future__ import annotations

import threading

import pytest
import torch

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.generation.decoding import TorchDecoderState
from earthvlm.generation.prompt_lookup import (
    BATCH_DRAFT_TOKENS,
    DRAFT_TOKENS,
    MAX_NGRAMS,
    AnswerCache,
)
from tests.conftest import random_scene
from tests.generation.test_session import copy_of, windowed_bridge  # noqa: F401

ASKED = [{"role": "user", "content": "Is there water?"}]


@pytest.fixture
def bridge(tiny_bridge: OlmoEarthVLMBridge) -> OlmoEarthVLMBridge:
    tiny_bridge.eval().language.model.generation_config.eos_token_id = None
    return tiny_bridge


@pytest.fixture
def readings(bridge, monkeypatch) -> list[int]:
    """How many tokens each reading of the language model took."""
    counts = []
    forward = bridge.language.model.forward

    def count(*arguments, **named):
        counts.append(named["inputs_embeds"].shape[1])
        return forward(*arguments, **named)

    monkeypatch.setattr(bridge.language.model, "forward", count)
    return counts


def answer(bridge: OlmoEarthVLMBridge, scene, **options) -> str:
    return "".join(bridge.stream(copy_of(scene), ASKED, max_length=24, **options))


def test_what_was_said_foretells_how_an_answer_goes_on():
    drafts = AnswerCache()
    assert drafts.propose([]) == ()
    drafts.add(range(20))
    assert drafts.propose([]) == tuple(range(DRAFT_TOKENS))
    assert drafts.propose([0]) == tuple(range(1, DRAFT_TOKENS + 1))
    assert drafts.propose([17, 18]) == (19,)  # as far as it went on
    assert drafts.propose([99, 98, 7, 8])[0] == 9  # two are enough, where four were never said
    assert drafts.propose([8, 7])[0] == 8  # and so is one
    assert drafts.propose([7, 99]) == ()
    drafts.add([7, 8, 30])
    assert drafts.propose([99, 98, 7, 8]) == (30,)  # the latest
    assert drafts.propose([5, 6, 7, 8])[0] == 9  # unless more speaks for an earlier one


def test_the_oldest_are_forgotten():
    drafts = AnswerCache()
    drafts.add([-2, -3, -4])
    drafts.add(range(MAX_NGRAMS))
    assert drafts.propose([-2, -3]) == ()
    assert drafts.propose([MAX_NGRAMS - 3, MAX_NGRAMS - 2])


def test_the_same_answer_takes_fewer_readings(bridge, readings):
    scene = random_scene()
    bridge.text_generator.answer_cache = None
    plain = answer(bridge, scene)
    assert len(readings) == 24 and set(readings[1:]) == {1}
    bridge.text_generator.answer_cache = AnswerCache()
    assert answer(bridge, scene) == plain
    readings.clear()
    assert answer(bridge, scene) == plain
    assert len(readings) == 1 + -(-23 // (DRAFT_TOKENS + 1))


def test_what_was_foretold_wrong_is_not_said(bridge, readings):
    scene = random_scene()
    first = answer(bridge, scene)
    said = bridge.language.tokenizer(first, add_special_tokens=False).input_ids
    # Right at first, then wrong, whatever comes before.
    bridge.text_generator.answer_cache = AnswerCache()
    for place in range(1, len(said)):
        bridge.text_generator.answer_cache.add([*said[max(0, place - 4) : place + 3], 5, 6, 7])
    readings.clear()
    assert answer(bridge, scene) == first
    assert 4 < len(readings) < 24


def test_later_turns_read_on_from_what_was_kept(bridge):
    scene = random_scene()
    again = [{"role": "user", "content": "And where?"}]

    def talk(asked) -> list[str]:
        messages, answers = list(ASKED), []
        for more in (again, []):
            said = "".join(bridge.stream(asked(), messages, max_length=24))
            answers.append(said)
            messages += [{"role": "assistant", "content": said}, *more]
        return answers

    kept = copy_of(scene)
    bridge.text_generator.answer_cache = None
    plain = talk(lambda: copy_of(scene))
    bridge.text_generator.answer_cache = AnswerCache()
    assert talk(lambda: kept) == talk(lambda: copy_of(scene)) == plain


def test_stopped_within_what_was_foretold_it_goes_on_rightly(bridge):
    scene, stop = random_scene(), threading.Event()
    first = answer(bridge, scene)
    asked = copy_of(scene)
    said = ""
    for piece in bridge.stream(asked, ASKED, max_length=24, stop=stop):
        said += piece
        if len(said) > len(first) // 3:
            stop.set()
    assert first.startswith(said) and said != first
    assert "".join(bridge.stream(asked, ASKED, max_length=24)) == first


def test_answers_that_are_drawn_at_random_are_not_foretold(bridge, readings):
    scene = random_scene()
    answer(bridge, scene)
    readings.clear()
    torch.manual_seed(0)
    answer(bridge, scene, temperature=1.0)
    assert set(readings[1:]) == {1}


def test_a_batch_of_answers_is_foretold_and_stays_the_same(bridge, readings):
    scenes = [random_scene(seed=seed) for seed in range(4)]
    prompts = ["Is there water?", "Describe it.", "Is there water?", "What lies in the top left?"]
    bridge.text_generator.answer_cache = None
    plain = bridge.generate(scenes, prompts, max_length=24)
    assert len(readings) == 1 + 24  # what all prompts begin with comes first
    bridge.text_generator.answer_cache = AnswerCache()
    readings.clear()
    assert bridge.generate(scenes, prompts, max_length=24) == plain
    assert set(readings[2:]) == {1}  # nothing was known yet
    readings.clear()
    assert bridge.generate(scenes, prompts, max_length=24) == plain
    assert len(readings) < 1 + 24 and max(readings[2:]) == BATCH_DRAFT_TOKENS + 1


def test_rows_of_a_batch_get_on_unequally_and_end_where_each_does(bridge, monkeypatch):
    scenes, prompts = [random_scene()] * 2, ["Is there water?", "Describe it."]
    bridge.text_generator.answer_cache = None
    answers = bridge.generate(scenes, prompts, max_length=24)
    said = [bridge.language.tokenizer(a, add_special_tokens=False).input_ids for a in answers]
    assert said[0] != said[1]
    # What comes late in the first row's answer ends it, and perhaps the other.
    bridge.language.model.generation_config.eos_token_id = said[0][14]
    plain = bridge.generate(scenes, prompts, max_length=24)
    bridge.text_generator.answer_cache = AnswerCache()
    bridge.text_generator.answer_cache.add(said[0])
    for place in range(1, len(said[1])):  # the second is foretold wrong
        bridge.text_generator.answer_cache.add([*said[1][max(0, place - 4) : place + 1], 5, 6, 7])
    wrong, rollback = [], TorchDecoderState.rollback
    monkeypatch.setattr(
        TorchDecoderState, "rollback", lambda self, n: wrong.append(n) or rollback(self, n)
    )
    assert bridge.generate(scenes, prompts, max_length=24) == plain
    assert any(len(set(counts)) > 1 for counts in wrong)


@pytest.mark.parametrize("padding", [[0, 0, 0], [3, 0, 1]])
@torch.inference_mode()
def test_what_is_taken_back_of_some_rows_is_as_if_it_was_never_read(bridge, padding):
    language, steps = bridge.language, ([4, 0, 2], [0, 3, 3], [1, 1, 1])
    torch.manual_seed(0)
    first, then = torch.randint(0, 200, (3, 9)), torch.randint(0, 200, (len(steps), 3, 5))
    together = TorchDecoderState(language.model, torch.tensor(padding) if any(padding) else None)
    together.forward(language.embed(first))
    for ids, counts in zip(then, steps, strict=True):
        together.forward_each(language.embed(ids))
        together.rollback(counts)
    together.select_rows([2, 0])
    found = together.forward(language.embed(first[[2, 0], :2]))
    for logits, row in zip(found, (2, 0), strict=True):
        kept = [ids[row, : 5 - counts[row]] for ids, counts in zip(then, steps, strict=True)]
        alone = torch.cat([first[row, padding[row] :], *kept, first[row, :2]])
        expected = TorchDecoderState(language.model).forward(language.embed(alone[None]))
        torch.testing.assert_close(logits[None], expected, atol=1e-4, rtol=1e-4)


def test_what_all_prompts_begin_with_is_read_once(bridge, readings):
    scenes = [random_scene(seed=seed) for seed in range(3)]
    prompts = ["Is there water?", "What lies in the top left?", "Describe it."]
    bridge.text_generator.answer_cache = None
    alone = [bridge.generate(*pair, max_length=12) for pair in zip(scenes, prompts, strict=True)]
    readings.clear()
    assert bridge.generate(scenes, prompts, max_length=12) == alone
    asked = [bridge.language.encode([{"role": "user", "content": text}]) for text in prompts]
    before = asked[0].scene_at
    longest = max(len(prompt.ids) for prompt in asked) + bridge.config.num_geo_queries
    assert before > 0 and readings[:2] == [before, longest - before]


def test_models_that_look_back_over_a_window_foretell_no_batch(windowed_bridge):  # noqa: F811
    scenes = [random_scene(seed=seed) for seed in range(2)]
    windowed_bridge.language.model.generation_config.eos_token_id = None
    answers = [windowed_bridge.generate(scenes, "Hm?", max_length=16) for _ in range(2)]
    assert answers[0] == answers[1]
    windowed_bridge.text_generator.answer_cache = None
    assert windowed_bridge.generate(scenes, "Hm?", max_length=16) == answers[0]
