"""Every way to answer beside the plain path: ten scenes, 20 tokens, the likeliest each time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from earthvlm.bridge import OlmoEarthVLMBridge
from earthvlm.conversation import Conversation
from earthvlm.decoding import Reading, TorchReading
from earthvlm.drafts import AnswerDrafts
from earthvlm.generation import Sampling
from earthvlm.int8_linear import WIDEN_FROM
from earthvlm.language import LanguageModel
from earthvlm.retrieval import SceneIndex
from earthvlm.scene import Scene

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
    return [bridge._look(scene).vectors for scene in scenes]


@pytest.fixture(scope="module")
def plain(bridge, seen) -> list[list[int]]:
    """The tokens of the plain path's answers."""
    start = partial(TorchReading, bridge.language.model)
    return [say(bridge.language, start, vectors) for vectors in seen]


@pytest.fixture
def readings(monkeypatch) -> list[int]:
    """One for each time a language model reads on."""
    counts, read = [], TorchReading._read

    def count(self, *arguments):
        counts.append(1)
        return read(self, *arguments)

    monkeypatch.setattr(TorchReading, "_read", count)
    return counts


@pytest.fixture
def start_llama(bridge, monkeypatch, tmp_path) -> Callable[[str], Callable[[], Reading]]:
    """Starts llama.cpp with weights of a kind; its files are not left behind."""
    pytest.importorskip("llama_cpp", reason="the extra 'llama' is not installed")
    from earthvlm import llama_engine

    monkeypatch.setattr(llama_engine, "cache_folder", lambda: tmp_path)

    def start(kind: str) -> Callable[[], Reading]:
        engine = llama_engine.LlamaEngine(bridge.language, bridge.revision, kind)
        return partial(llama_engine.LlamaReading, engine)

    return start


@pytest.fixture(scope="module")
def answers(bridge, plain) -> list[str]:
    return [bridge.language.tokenizer.decode(said).strip() for said in plain]


def test_a_list_of_scenes_is_answered_the_same(bridge, scenes, answers):
    bridge._drafts = AnswerDrafts()  # nothing is known
    assert bridge.generate(scenes, QUESTION, max_length=TOKENS) == answers


def test_a_list_of_scenes_that_others_foretell_is_answered_the_same(
    bridge, scenes, plain, answers, readings
):
    bridge._drafts = AnswerDrafts()
    for said in plain[5:]:
        bridge._drafts.learn(said)
    assert bridge.generate(scenes, QUESTION, max_length=TOKENS) == answers
    assert len(readings) < TOKENS


def test_with_answers_that_foretell_others_it_says_the_same(bridge, scenes, answers, readings):
    bridge._drafts = AnswerDrafts()
    assert [bridge.generate(s, QUESTION, max_length=TOKENS) for s in scenes] == answers
    assert len(readings) < TOKENS * len(scenes)


def test_llama_with_whole_weights_says_the_same(bridge, seen, plain, start_llama):
    start = start_llama("F32")
    assert [say(bridge.language, start, vectors) for vectors in seen] == plain


def test_llama_with_weights_of_8_bits_says_nearly_the_same(bridge, seen, plain, start_llama):
    from earthvlm.llama_engine import QUANTIZATION

    start, pairs = start_llama(QUANTIZATION), zip(seen, plain, strict=True)
    shares = [agree(bridge.language, start(), scene[None], [said]) for scene, said in pairs]
    assert sum(shares) / len(shares) >= AGREEMENT


def test_torch_with_weights_of_8_bits_says_nearly_the_same(seen, plain):
    language = OlmoEarthVLMBridge.from_pretrained(
        "bundled", dtype=torch.int8, device="cpu"
    ).language
    # All scenes at once are fewer than would make the layers widen their weights.
    assert len(seen) < WIDEN_FROM
    reading = TorchReading(language.model)
    assert agree(language, reading, torch.stack(seen), plain) >= AGREEMENT


def say(language: LanguageModel, start: Callable[[], Reading], seen: Tensor) -> list[int]:
    """The tokens of an answer about a scene."""
    prompt, conversation = language.encode(ASKED), Conversation(language, seen, start())
    list(conversation.answer(prompt, Sampling(TOKENS + 1)))  # the last it chooses is not read
    return conversation.read[len(prompt.ids) + len(seen) :]


@torch.inference_mode()
def agree(language: LanguageModel, reading: Reading, seen: Tensor, said: list[list[int]]) -> float:
    """The share of answers' tokens that this way would have chosen after those before.

    seen: scenes, `[B, S, D]`. said: `TOKENS` of the answer about each.
    """
    prompt, tokens, same = language.encode(ASKED), torch.tensor(said), []
    assert tokens.shape == (len(seen), TOKENS)
    ids = torch.tensor(prompt.ids).expand(len(seen), -1)
    vectors = language.embed_around(ids, seen, prompt.scene_at)
    for token in tokens.T:
        same.append(reading.read(vectors).argmax(-1) == token)
        vectors = language.embed(token[:, None])
    reading.rest()
    return torch.stack(same).float().mean().item()
