"""Every way to answer beside the plain path: ten scenes, 20 tokens, the likeliest each time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.generation.decoding import DecoderState, TorchDecoderState
from earthvlm.generation.prompt_lookup import AnswerCache
from earthvlm.generation.sampling import Sampling
from earthvlm.generation.session import ChatSession
from earthvlm.models.int8 import DEQUANTIZE_FROM
from earthvlm.models.language_model import LanguageModel
from earthvlm.scenes.scene import Scene
from earthvlm.search.index import SceneIndex

pytestmark = pytest.mark.slow
QUESTION = "Describe this scene."
ASKED = [{"role": "user", "content": QUESTION}]
TOKENS = 20
# The share of the plain path's tokens that fewer bits choose too, given those before.
AGREEMENT = 0.95


@pytest.fixture(scope="module")
def bridge() -> OlmoEarthVLMBridge:
    """In float32, where rounding does not decide between words."""
    return OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    found = SceneIndex.from_pretrained("bundled").browse("tiles", k=10)
    return [Scene.open(result.scene_file) for result in found]


@pytest.fixture(scope="module")
def seen(bridge, scenes) -> list[Tensor]:
    return [bridge.scene_prefix([scene])[0] for scene in scenes]


@pytest.fixture(scope="module")
def plain(bridge, seen) -> list[list[int]]:
    """The tokens of the plain path's answers."""
    start = partial(TorchDecoderState, bridge.language.model)
    return [say(bridge.language, start, vectors) for vectors in seen]


@pytest.fixture
def readings(monkeypatch) -> list[int]:
    """One for each time a language model reads on."""
    counts, read = [], TorchDecoderState._forward

    def count(self, *arguments):
        counts.append(1)
        return read(self, *arguments)

    monkeypatch.setattr(TorchDecoderState, "_forward", count)
    return counts


@pytest.fixture
def start_llama(bridge, monkeypatch, tmp_path) -> Callable[[str], Callable[[], DecoderState]]:
    """Starts llama.cpp with weights of a kind; its files are not left behind."""
    pytest.importorskip("llama_cpp", reason="the extra 'llama' is not installed")
    from earthvlm.generation import llama_cpp as llama_engine

    monkeypatch.setattr(llama_engine, "cache_folder", lambda: tmp_path)

    def start(kind: str) -> Callable[[], DecoderState]:
        engine = llama_engine.LlamaEngine(bridge.language, bridge.revision, kind)
        return partial(llama_engine.LlamaDecoderState, engine)

    return start


@pytest.fixture(scope="module")
def answers(bridge, plain) -> list[str]:
    return [bridge.language.tokenizer.decode(said).strip() for said in plain]


def test_a_list_of_scenes_is_answered_the_same(bridge, scenes, answers):
    bridge.text_generator.answer_cache = AnswerCache()  # nothing is known
    assert bridge.generate(scenes, QUESTION, max_length=TOKENS) == answers


def test_a_list_of_scenes_that_others_foretell_is_answered_the_same(
    bridge, scenes, plain, answers, readings
):
    bridge.text_generator.answer_cache = AnswerCache()
    for said in plain[5:]:
        bridge.text_generator.answer_cache.add(said)
    assert bridge.generate(scenes, QUESTION, max_length=TOKENS) == answers
    assert len(readings) < TOKENS


def test_with_answers_that_foretell_others_it_says_the_same(bridge, scenes, answers, readings):
    bridge.text_generator.answer_cache = AnswerCache()
    assert [bridge.generate(s, QUESTION, max_length=TOKENS) for s in scenes] == answers
    assert len(readings) < TOKENS * len(scenes)


def test_llama_with_whole_weights_says_the_same(bridge, seen, plain, start_llama):
    start = start_llama("F32")
    assert [say(bridge.language, start, vectors) for vectors in seen] == plain


def test_llama_with_weights_of_8_bits_says_nearly_the_same(bridge, seen, plain, start_llama):
    from earthvlm.generation.llama_cpp import QUANTIZATION

    start, pairs = start_llama(QUANTIZATION), zip(seen, plain, strict=True)
    shares = [agree(bridge.language, start(), scene[None], [said]) for scene, said in pairs]
    assert sum(shares) / len(shares) >= AGREEMENT


def test_torch_with_weights_of_8_bits_says_nearly_the_same(seen, plain):
    language = OlmoEarthVLMBridge.from_pretrained(
        "bundled", dtype=torch.int8, device="cpu"
    ).language
    # All scenes at once are fewer than would make the layers dequantize their weights.
    assert len(seen) < DEQUANTIZE_FROM
    state = TorchDecoderState(language.model)
    assert agree(language, state, torch.stack(seen), plain) >= AGREEMENT


def say(language: LanguageModel, start: Callable[[], DecoderState], seen: Tensor) -> list[int]:
    """The tokens of an answer about a scene."""
    prompt, conversation = language.encode(ASKED), ChatSession(language, seen, start())
    list(conversation.answer(prompt, Sampling(TOKENS + 1)))  # the last it chooses is not read
    return conversation.tokens[len(prompt.ids) + len(seen) :]


@torch.inference_mode()
def agree(
    language: LanguageModel, state: DecoderState, seen: Tensor, said: list[list[int]]
) -> float:
    """The share of answers' tokens that this way would have chosen after those before.

    seen: scenes, `[B, S, D]`. said: `TOKENS` of the answer about each.
    """
    prompt, tokens, same = language.encode(ASKED), torch.tensor(said), []
    assert tokens.shape == (len(seen), TOKENS)
    ids = torch.tensor(prompt.ids).expand(len(seen), -1)
    vectors = language.embed_around(ids, seen, prompt.scene_at)
    for token in tokens.T:
        same.append(state.forward(vectors).argmax(-1) == token)
        vectors = language.embed(token[:, None])
    state.release()
    return torch.stack(same).float().mean().item()
