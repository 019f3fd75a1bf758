"""llama.cpp compared with torch: the same logits and answers in float32."""

from __future__ import annotations

import pytest
import torch

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.generation.decoding import TorchDecoderState
from tests.conftest import draw_adapter, random_scene
from tests.generation.test_session import QUESTIONS, copy_of, talk

pytest.importorskip("llama_cpp", reason="the extra 'llama' is not installed")

from earthvlm.generation.llama_cpp import MAX_SEQUENCES, LlamaDecoderState, LlamaEngine
from tests.support.tiny_models import VOCABULARY

ASKED = [{"role": "user", "content": QUESTIONS[0]}]


@pytest.fixture(autouse=True)
def cache(request, monkeypatch, tmp_path_factory):
    """Write GGUF files to a temporary cache; the embedded model is converted before."""
    request.getfixturevalue("tiny_language")
    monkeypatch.setenv("EARTHVLM_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def llama_bridge(tiny_bridge: OlmoEarthVLMBridge, tmp_path) -> OlmoEarthVLMBridge:
    draw_adapter(tiny_bridge)
    tiny_bridge.save_pretrained(tmp_path)
    return OlmoEarthVLMBridge.from_pretrained(
        tmp_path, device="cpu", dtype=torch.float32, engine="llama"
    )


def test_llama_cpp_logits_equal_those_of_torch(llama_bridge, tmp_path):
    language = llama_bridge.language
    engine = LlamaEngine(language, llama_bridge.revision, "F32")
    plain, other = TorchDecoderState(language.model), LlamaDecoderState(engine)
    torch.manual_seed(0)
    for length in (20, 1, 5, 1):
        vectors = language.embed(torch.randint(0, VOCABULARY, (1, length)))
        with torch.inference_mode():
            expected, found = plain.forward(vectors), other.forward(vectors)
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
        assert other.length == plain.length
    vectors = language.embed(torch.arange(3)[None])
    with torch.inference_mode():
        expected, found = plain.forward_each(vectors), other.forward_each(vectors)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    for state in (plain, other):
        state.rollback([2])
        state.select_rows([0])
    assert other.length == plain.length
    for state in (plain, other):
        state.crop(7)
    other.release()
    vectors = language.embed(torch.arange(4)[None])
    with torch.inference_mode():
        torch.testing.assert_close(
            other.forward(vectors), plain.forward(vectors), atol=1e-3, rtol=1e-3
        )


def test_cached_turns_answer_like_uncached_ones(llama_bridge):
    engine = LlamaEngine(llama_bridge.language, llama_bridge.revision, "F32")
    llama_bridge.text_generator.make_state = lambda: LlamaDecoderState(engine)
    scene = random_scene()
    uncached = talk(llama_bridge, scene, cached=False)
    assert talk(llama_bridge, scene, cached=True) == uncached
    assert llama_bridge.generate(scene, QUESTIONS[0], max_length=8) == uncached[0].strip()


def test_concurrent_answers_are_independent(llama_bridge):
    llama_bridge.language.model.generation_config.eos_token_id = None
    scenes = [random_scene(seed=seed) for seed in range(MAX_SEQUENCES + 1)]
    alone = ["".join(llama_bridge.stream(copy_of(s), ASKED, max_length=6)) for s in scenes[:-1]]
    streams = [llama_bridge.stream(scene, ASKED, max_length=6) for scene in scenes]
    answers = [next(stream) for stream in streams[:-1]]
    with pytest.raises(RuntimeError, match="already decoding 4 answers: wait for one to end"):
        next(streams[-1])
    for _ in range(5):
        answers = [text + next(s, "") for text, s in zip(answers, streams, strict=False)]
    assert [text + "".join(s) for text, s in zip(answers, streams, strict=False)] == alone
    assert "".join(llama_bridge.stream(scenes[-1], ASKED, max_length=6))  # a sequence is free again


def test_unknown_engine_and_model_type_are_rejected(tiny_bridge, tmp_path):
    tiny_bridge.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="There is no engine 'steam': choose from torch, llama"):
        OlmoEarthVLMBridge.from_pretrained(tmp_path, engine="steam")
    tiny_bridge.language.model.config.model_type = "phi"
    with pytest.raises(ValueError, match="a 'phi' model: leave the engine out"):
        LlamaEngine(tiny_bridge.language, "x")
