"""Every way to decode compared with the plain one: two scenes, 20 tokens, greedy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.generation.decoding import DecoderState, TorchDecoderState
from earthvlm.generation.onnx_decoding import OnnxDecoder, OnnxDecoderState
from earthvlm.generation.prompt_lookup import AnswerCache
from earthvlm.generation.sampling import Sampling
from earthvlm.generation.session import ChatSession
from earthvlm.models.language.language_model import LanguageModel
from earthvlm.scenes.scene import Scene
from earthvlm.search.index import SceneIndex

pytestmark = pytest.mark.slow
Seen = tuple[str, Tensor]
QUESTION = "Describe this scene."
ASKED = [{"role": "user", "content": QUESTION}]
SCENES = 2
TOKENS = 20
# The share of plain decoding's tokens that 8-bit weights choose too, given those before.
AGREEMENT = 0.95


@pytest.fixture(scope="module")
def bridge() -> OlmoEarthVLMBridge:
    """In float32, where rounding does not decide between words."""
    return OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    found = SceneIndex.from_pretrained("bundled").browse("tiles", k=SCENES)
    return [Scene.open(result.scene_file) for result in found]


@pytest.fixture(scope="module")
def seen(bridge, scenes) -> list[Seen]:
    """Each scene as the language model reads it: the text of its context, and its vectors."""
    return [(bridge.write_context(scene), bridge.scene_prefix([scene])[0]) for scene in scenes]


@pytest.fixture(scope="module")
def plain(bridge, seen) -> list[list[int]]:
    """The tokens of the answers of plain decoding."""
    start = partial(TorchDecoderState, bridge.language.model)
    return [decode_answer(bridge.language, start, *scene) for scene in seen]


@pytest.fixture
def passes(bridge, monkeypatch) -> list[int]:
    """An entry for each forward pass of the language model."""
    counts, forward = [], bridge.language.model.forward

    def count(*arguments, **options):
        counts.append(1)
        return forward(*arguments, **options)

    monkeypatch.setattr(bridge.language.model, "forward", count)
    return counts


@pytest.fixture(scope="module")
def answers(bridge, plain) -> list[str]:
    return [bridge.language.tokenizer.decode(tokens).strip() for tokens in plain]


def test_batch_answers_equal_plain_decoding(bridge, scenes, answers):
    bridge.text_generator.answer_cache = AnswerCache()  # empty
    assert bridge.generate(scenes, QUESTION, max_length=TOKENS) == answers


def test_batch_answers_with_drafts_equal_plain_decoding(bridge, scenes, plain, answers, passes):
    bridge.text_generator.answer_cache = AnswerCache()
    for tokens in plain[SCENES // 2 :]:
        bridge.text_generator.answer_cache.add(tokens)
    assert bridge.generate(scenes, QUESTION, max_length=TOKENS) == answers
    assert len(passes) < TOKENS


def test_answers_with_drafts_equal_plain_decoding(bridge, scenes, answers, passes):
    bridge.text_generator.answer_cache = AnswerCache()
    assert [bridge.generate(s, QUESTION, max_length=TOKENS) for s in scenes] == answers
    assert len(passes) < TOKENS * len(scenes)


def test_8_bit_weights_agree_with_plain_decoding(bridge, seen, plain):
    start = partial(OnnxDecoderState, OnnxDecoder(bridge.language.model))
    assert agree(bridge.language, start, seen, plain) >= AGREEMENT


def decode_answer(
    language: LanguageModel, start: Callable[[], DecoderState], context: str, prefix: Tensor
) -> list[int]:
    """The tokens of an answer about a scene."""
    prompt, session = language.encode(ASKED, context), ChatSession(language, prefix, start())
    list(session.answer(prompt, Sampling(TOKENS + 1)))  # the last token is not processed
    return session.tokens[len(prompt.ids) + len(prefix) :]


@torch.inference_mode()
def agree(
    language: LanguageModel,
    start: Callable[[], DecoderState],
    seen: list[Seen],
    answers: list[list[int]],
) -> float:
    """The share of the answers' tokens that this engine would have chosen, given those before."""
    same = []
    for (context, prefix), tokens in zip(seen, answers, strict=True):
        prompt, state = language.encode(ASKED, context), start()
        ids = torch.tensor([prompt.ids])
        vectors = language.embed_around(ids, prefix[None], prompt.scene_at)
        for token in tokens:
            same.append(state.forward(vectors).argmax(-1).item() == token)
            vectors = language.embed(torch.tensor([[token]]))
        state.release()
    return sum(same) / len(same)
