"""Decoding by ONNX Runtime with 8-bit weights, compared with transformers."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.generation import text_generator
from earthvlm.generation.decoding import TorchDecoderState
from earthvlm.generation.onnx_decoding import ROOM, OnnxDecoder, OnnxDecoderState
from earthvlm.generation.prompt_lookup import DRAFT_TOKENS
from tests.conftest import draw_adapter, random_scene
from tests.generation.test_session import QUESTIONS, copy_of, talk
from tests.support.tiny_models import save_tiny_model

HEADS = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.fixture(params=["llama", "llama 3", "qwen2"])
def model(request, tmp_path):
    """Of two layers at random, whose norms and biases are not those of a new model."""
    more = {"rope_parameters": LLAMA_3} if request.param == "llama 3" else {}
    save_tiny_model(tmp_path, request.param.split()[0], **HEADS, **more)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "norm" in name or "bias" in name:
            weight.data.uniform_(0.5, 1.5)
    return model.eval()


@torch.inference_mode()
def test_logits_are_those_of_transformers(model):
    plain, state = TorchDecoderState(model), OnnxDecoderState(OnnxDecoder(model))
    torch.manual_seed(1)
    for length in (20, 1, 3, ROOM, 1, 9):
        vectors = model.get_input_embeddings()(torch.randint(0, 100, (1, length)))
        expected, found = plain.forward_each(vectors), state.forward_each(vectors)
        assert similarity(expected, found) > 0.999
        assert state.length == plain.length
    state.release()
    for other in (plain, state):
        other.rollback([2])
        other.crop(other.length - 5)
        other.select_rows([0])
    expected, found = plain.forward(vectors[:, :3]), state.forward(vectors[:, :3])
    assert similarity(expected, found) > 0.999


@torch.inference_mode()
def test_tokens_at_once_equal_tokens_one_by_one(model):
    decoder, embed = OnnxDecoder(model), model.get_input_embeddings()
    together, alone = OnnxDecoderState(decoder), OnnxDecoderState(decoder)
    for state in (together, alone):
        state.forward(embed(torch.arange(12)[None]))
    vectors = embed(torch.arange(DRAFT_TOKENS + 1)[None])
    found = together.forward_each(vectors)
    expected = torch.stack([alone.forward(vector[:, None]) for vector in vectors.unbind(1)], dim=1)
    assert similarity(expected, found) > 0.9999


def test_bridges_decode_so_unless_a_dtype_is_named(saved_bridge):
    kinds = {
        dtype: type(load(saved_bridge, dtype=dtype).text_generator.make_state())
        for dtype in (None, torch.float32, torch.bfloat16, torch.int8)
    }
    assert kinds.pop(None) is OnnxDecoderState
    assert set(kinds.values()) == {TorchDecoderState}
    trainable = load(saved_bridge, trainable=True)
    assert type(trainable.text_generator.make_state()) is TorchDecoderState


def test_cached_turns_answer_like_uncached_ones(saved_bridge):
    bridge, scene = load(saved_bridge), random_scene()
    uncached = talk(bridge, scene, cached=False)
    assert talk(bridge, scene, cached=True) == uncached
    assert bridge.generate(scene, QUESTIONS[0], max_length=8) == uncached[0].strip()


def test_concurrent_answers_are_independent(saved_bridge):
    bridge, asked = load(saved_bridge), [{"role": "user", "content": QUESTIONS[0]}]
    bridge.language.model.generation_config.eos_token_id = None
    scenes = [random_scene(seed=seed) for seed in range(3)]
    alone = ["".join(bridge.stream(copy_of(s), asked, max_length=6)) for s in scenes]
    streams = [bridge.stream(scene, asked, max_length=6) for scene in scenes]
    answers = ["" for _ in scenes]
    for _ in range(7):
        answers = [text + next(s, "") for text, s in zip(answers, streams, strict=True)]
    assert answers == alone


@pytest.mark.parametrize("is_fast", [True, False])
def test_lists_take_turns_where_bfloat16_is_slow(saved_bridge, is_fast, monkeypatch):
    monkeypatch.setattr(text_generator, "multiplies_bfloat16", lambda device: is_fast)
    bridge, batches = load(saved_bridge), []
    answer_batch = text_generator.answer_batch
    monkeypatch.setattr(
        text_generator, "answer_batch", lambda *a: batches.append(1) or answer_batch(*a)
    )
    scenes = [random_scene(seed=seed) for seed in range(3)]
    answers = bridge.generate(scenes, QUESTIONS[0], max_length=8)
    assert bool(batches) == is_fast
    if not is_fast:
        alone = [bridge.generate(scene, QUESTIONS[0], max_length=8) for scene in scenes]
        assert answers == alone
    assert len(bridge.generate(None, ["Who?", "Where?"], max_length=4)) == 2


def test_training_decodes_with_the_new_weights(saved_bridge):
    bridge = load(saved_bridge)
    first = bridge.generate(random_scene(), QUESTIONS[0], max_length=8)
    bridge.train()
    for weight in bridge.language.model.parameters():
        weight.data = weight.data.roll(1, dims=0)
    assert bridge.eval().generate(random_scene(), QUESTIONS[0], max_length=8) != first


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gemma", {}),
        ("phi", {}),
        ("llama", {"mlp_bias": True}),
        ("llama", {"hidden_size": 48}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
    ],
)
def test_models_of_another_layout_are_left_to_transformers(kind, options, tmp_path):
    save_tiny_model(tmp_path, kind, **options)
    assert not OnnxDecoder.fits(AutoModelForCausalLM.from_pretrained(tmp_path))


@pytest.fixture
def saved_bridge(tiny_bridge, tmp_path):
    draw_adapter(tiny_bridge)
    tiny_bridge.save_pretrained(tmp_path / "bridge")
    return tmp_path / "bridge"


def load(folder, **options) -> OlmoEarthVLMBridge:
    return OlmoEarthVLMBridge.from_pretrained(folder, device="cpu", **options)


def similarity(expected: torch.Tensor, found: torch.Tensor) -> float:
    """The smallest cosine of the logits after any token."""
    return torch.cosine_similarity(expected, found, dim=-1).min().item()
