"""Prompt lookup decoding: the same answers in fewer forward passes."""

from __future__ import annotations

import threading

import pytest
import torch

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.generation.decoding import TorchDecoderState
from earthvlm.generation.prompt_lookup import (
    BATCH_DRAFT_TOKENS,
    DRAFT_TOKENS,
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
def passes(bridge, monkeypatch) -> list[int]:
    """The number of tokens of each forward pass of the language model."""
    counts = []
    forward = bridge.language.model.forward

    def count(*arguments, **named):
        counts.append(named["inputs_embeds"].shape[1])
        return forward(*arguments, **named)

    monkeypatch.setattr(bridge.language.model, "forward", count)
    return counts


def answer(bridge: OlmoEarthVLMBridge, scene, **options) -> str:
    return "".join(bridge.stream(copy_of(scene), ASKED, max_length=24, **options))


def test_propose_uses_longest_and_latest_ngram():
    cache = AnswerCache()
    assert cache.propose([]) == ()
    cache.add(range(20))
    assert cache.propose([]) == tuple(range(DRAFT_TOKENS))
    assert cache.propose([0]) == tuple(range(1, DRAFT_TOKENS + 1))
    assert cache.propose([17, 18]) == (19,)  # up to the end of the answer
    assert cache.propose([99, 98, 7, 8])[0] == 9  # an n-gram of two, because none of four is known
    assert cache.propose([8, 7])[0] == 8  # an n-gram of one
    assert cache.propose([7, 99]) == ()
    cache.add([7, 8, 30])
    assert cache.propose([99, 98, 7, 8]) == (30,)  # the latest answer
    assert cache.propose([5, 6, 7, 8])[0] == 9  # unless a longer n-gram is known


def test_cache_drops_oldest_ngrams(monkeypatch):
    monkeypatch.setattr("earthvlm.generation.prompt_lookup.MAX_NGRAMS", 400)
    cache = AnswerCache()
    cache.add([-2, -3, -4])
    cache.add(range(400))
    assert cache.propose([-2, -3]) == ()
    assert cache.propose([397, 398])


def test_repeated_answer_takes_fewer_forward_passes(bridge, passes):
    scene = random_scene()
    bridge.text_generator.answer_cache = None
    plain = answer(bridge, scene)
    assert len(passes) == 24 and set(passes[1:]) == {1}
    bridge.text_generator.answer_cache = AnswerCache()
    assert answer(bridge, scene) == plain
    passes.clear()
    assert answer(bridge, scene) == plain
    assert len(passes) == 1 + -(-23 // (DRAFT_TOKENS + 1))


def test_wrong_drafts_do_not_change_the_answer(bridge, passes):
    scene = random_scene()
    first = answer(bridge, scene)
    said = bridge.language.tokenizer(first, add_special_tokens=False).input_ids
    # Drafts whose first tokens are right and whose last ones are wrong.
    bridge.text_generator.answer_cache = AnswerCache()
    for place in range(1, len(said)):
        bridge.text_generator.answer_cache.add([*said[max(0, place - 4) : place + 3], 5, 6, 7])
    passes.clear()
    assert answer(bridge, scene) == first
    assert 4 < len(passes) < 24


def test_drafts_do_not_change_later_turns(bridge):
    scene = random_scene()
    again = [{"role": "user", "content": "And where?"}]

    def talk(make_scene) -> list[str]:
        messages, answers = list(ASKED), []
        for more in (again, []):
            said = "".join(bridge.stream(make_scene(), messages, max_length=24))
            answers.append(said)
            messages += [{"role": "assistant", "content": said}, *more]
        return answers

    kept = copy_of(scene)
    bridge.text_generator.answer_cache = None
    plain = talk(lambda: copy_of(scene))
    bridge.text_generator.answer_cache = AnswerCache()
    assert talk(lambda: kept) == talk(lambda: copy_of(scene)) == plain


def test_answer_stopped_within_a_draft_can_resume(bridge):
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


def test_sampled_answers_use_no_drafts(bridge, passes):
    scene = random_scene()
    answer(bridge, scene)
    passes.clear()
    torch.manual_seed(0)
    answer(bridge, scene, temperature=1.0)
    assert set(passes[1:]) == {1}


def test_drafts_do_not_change_batch_answers(bridge, passes):
    scenes = [random_scene(seed=seed) for seed in range(4)]
    prompts = ["Is there water?", "Describe it.", "Is there water?", "What lies in the top left?"]
    bridge.text_generator.answer_cache = None
    plain = bridge.generate(scenes, prompts, max_length=24)
    assert len(passes) == 1 + 24  # after the shared prefix of all prompts
    bridge.text_generator.answer_cache = AnswerCache()
    passes.clear()
    assert bridge.generate(scenes, prompts, max_length=24) == plain
    assert set(passes[2:]) == {1}  # the cache was empty
    passes.clear()
    assert bridge.generate(scenes, prompts, max_length=24) == plain
    assert len(passes) < 1 + 24 and max(passes[2:]) == BATCH_DRAFT_TOKENS + 1


def test_batch_rows_accept_unequal_numbers_of_drafts(bridge, monkeypatch):
    scenes, prompts = [random_scene()] * 2, ["Is there water?", "Describe it."]
    said: list[list[int]] = []
    with monkeypatch.context() as recording:
        recording.setattr(AnswerCache, "add", lambda self, answer: said.append(list(answer)))
        bridge.text_generator.answer_cache = AnswerCache()
        bridge.generate(scenes, prompts, max_length=24)
    bridge.text_generator.answer_cache = None
    assert said[0] != said[1]
    # A late token of the first row's answer ends it, and perhaps the other answer.
    bridge.language.model.generation_config.eos_token_id = said[0][14]
    plain = bridge.generate(scenes, prompts, max_length=24)
    bridge.text_generator.answer_cache = AnswerCache()
    bridge.text_generator.answer_cache.add(said[0])
    for place in range(1, len(said[1])):  # wrong drafts for the second row
        bridge.text_generator.answer_cache.add([*said[1][max(0, place - 4) : place + 1], 5, 6, 7])
    rejected, rollback = [], TorchDecoderState.rollback
    monkeypatch.setattr(
        TorchDecoderState, "rollback", lambda self, n: rejected.append(n) or rollback(self, n)
    )
    assert bridge.generate(scenes, prompts, max_length=24) == plain
    assert any(len(set(counts)) > 1 for counts in rejected)


@pytest.mark.parametrize("padding", [[0, 0, 0], [3, 0, 1]])
@torch.inference_mode()
def test_rollback_of_rows_equals_never_processing_them(bridge, padding):
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


def test_shared_prompt_prefix_is_processed_once(bridge, passes):
    scenes = [random_scene(seed=seed) for seed in range(3)]
    prompts = ["Is there water?", "What lies in the top left?", "Describe it."]
    bridge.text_generator.answer_cache = None
    alone = [bridge.generate(*pair, max_length=12) for pair in zip(scenes, prompts, strict=True)]
    passes.clear()
    assert bridge.generate(scenes, prompts, max_length=12) == alone
    asked = [bridge.language.encode([{"role": "user", "content": text}]) for text in prompts]
    before = asked[0].scene_at
    longest = max(len(prompt.ids) for prompt in asked) + bridge.config.num_geo_queries
    assert before > 0 and passes[:2] == [before, longest - before]


@pytest.mark.slow
def test_sliding_window_models_use_no_batch_drafts(windowed_bridge):  # noqa: F811
    scenes = [random_scene(seed=seed) for seed in range(2)]
    windowed_bridge.language.model.generation_config.eos_token_id = None
    answers = [windowed_bridge.generate(scenes, "Hm?", max_length=16) for _ in range(2)]
    assert answers[0] == answers[1]
    windowed_bridge.text_generator.answer_cache = None
    assert windowed_bridge.generate(scenes, "Hm?", max_length=16) == answers[0]
