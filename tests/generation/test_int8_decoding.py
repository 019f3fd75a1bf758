"""Decoding with 8-bit weights, compared with transformers."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.generation.decoding import TorchDecoderState
from earthvlm.generation.int8_decoding import MAX_TOKENS, Int8Decoder, Int8DecoderState
from tests.conftest import draw_adapter, random_scene
from tests.support.tiny_models import save_tiny_model

QUESTION = "Is there water?"


@pytest.fixture(params=["llama", "qwen2"])
def model(request, tmp_path):
    """Of two layers at random, whose norms and biases are not those of a new model."""
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    save_tiny_model(tmp_path, request.param, **heads)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "norm" in name or "bias" in name:
            weight.data.uniform_(0.5, 1.5)
    return model.eval()


@torch.inference_mode()
def test_logits_are_those_of_transformers(model):
    plain, state = TorchDecoderState(model), Int8DecoderState(model, Int8Decoder(model))
    torch.manual_seed(1)
    for length in (20, 1, 3, 1, 9, MAX_TOKENS):
        vectors = model.get_input_embeddings()(torch.randint(0, 100, (1, length)))
        expected, found = plain.forward_each(vectors), state.forward_each(vectors)
        assert torch.cosine_similarity(expected, found, dim=-1).min() > 0.999
        assert state.length == plain.length
    for other in (plain, state):
        other.rollback([2])
        other.crop(other.length - 7)
    expected, found = plain.forward(vectors[:, :1]), state.forward(vectors[:, :1])
    assert torch.cosine_similarity(expected, found, dim=-1).min() > 0.999


@torch.inference_mode()
def test_tokens_at_once_equal_tokens_one_by_one(model):
    decoder = Int8Decoder(model)
    embed = model.get_input_embeddings()
    together, alone = Int8DecoderState(model, decoder), Int8DecoderState(model, decoder)
    for state in (together, alone):
        state.forward(embed(torch.arange(12)[None]))
    vectors = embed(torch.arange(MAX_TOKENS)[None])
    found = together.forward_each(vectors)
    expected = torch.stack([alone.forward(vector[:, None]) for vector in vectors.unbind(1)], dim=1)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-2)
    assert found.argmax(-1).equal(expected.argmax(-1))


def test_bridges_decode_so_unless_a_dtype_is_named(tiny_bridge, tmp_path):
    draw_adapter(tiny_bridge)
    tiny_bridge.save_pretrained(tmp_path)
    kinds = {
        dtype: type(load(tmp_path, dtype=dtype).text_generator.make_state())
        for dtype in (None, torch.float32, torch.bfloat16, torch.int8)
    }
    assert kinds.pop(None) is Int8DecoderState
    assert set(kinds.values()) == {TorchDecoderState}
    trainable = load(tmp_path, trainable=True)
    assert type(trainable.text_generator.make_state()) is TorchDecoderState


def test_training_decodes_with_the_new_weights(tiny_bridge, tmp_path):
    tiny_bridge.save_pretrained(tmp_path)
    bridge = load(tmp_path)
    first = bridge.generate(random_scene(), QUESTION, max_length=8)
    bridge.train()
    for weight in bridge.language.model.parameters():
        weight.data = weight.data.roll(1, dims=0)
    assert bridge.eval().generate(random_scene(), QUESTION, max_length=8) != first


def test_models_of_another_layout_are_left_to_transformers(tmp_path):
    for kind, options in {"gemma": {}, "phi": {}, "llama": {"mlp_bias": True}}.items():
        save_tiny_model(tmp_path / kind, kind, **options)
        assert not Int8Decoder.fits(AutoModelForCausalLM.from_pretrained(tmp_path / kind))


def load(folder, **options) -> OlmoEarthVLMBridge:
    return OlmoEarthVLMBridge.from_pretrained(folder, device="cpu", **options)
