"""Attention in float32 for answers in bfloat16: equal to torch's."""

from __future__ import annotations

import pytest
import torch

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.generation import cpu_attention
from earthvlm.generation.cpu_attention import CPU_ATTENTION, TORCH_ATTENTION, choose_attention
from earthvlm.generation.decoding import TorchDecoderState
from tests.support.moondream_reference import write_checkpoint


@pytest.mark.parametrize("padding", [None, torch.tensor([3, 0])])
@pytest.mark.parametrize("bidirectional_prefix", [0, 9])
def test_logits_equal_those_of_torch_attention(tmp_path, padding, bidirectional_prefix):
    write_checkpoint(tmp_path, "2024")
    torch.manual_seed(0)
    bridge = OlmoEarthVLMBridge(
        "random-v1.2-nano", str(tmp_path), device="cpu", dtype=torch.bfloat16
    )
    model = bridge.language.model
    vectors = bridge.language.embed(torch.randint(0, 200, (2, 14)))
    found = {}
    for answering in (False, True):
        choose_attention(model, answering)
        assert model.config._attn_implementation == (
            CPU_ATTENTION if answering else TORCH_ATTENTION
        )
        state = TorchDecoderState(model, padding)
        with torch.inference_mode():
            first = state.forward(vectors, bidirectional_prefix)
            found[answering] = torch.stack([first, state.forward(vectors[:, :1])])
    torch.testing.assert_close(found[True], found[False], atol=0.05, rtol=0.05)


@pytest.mark.parametrize("padding", [None, torch.tensor([3, 0, 1])])
def test_grouped_heads_equal_torch_attention(tiny_language, padding, monkeypatch):
    monkeypatch.setattr(cpu_attention, "ROOM", 3)  # so that the cache grows
    bridge = OlmoEarthVLMBridge(
        "random-v1.2-nano", tiny_language, device="cpu", dtype=torch.bfloat16
    )
    model = bridge.language.model
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    vectors = bridge.language.embed(torch.randint(0, 200, (3, 14)))
    found = {}
    for answering in (False, True):
        choose_attention(model, answering)
        state = TorchDecoderState(model, padding)
        with torch.inference_mode():
            state.forward_shared(vectors[0, :4], 3)
            state.forward(vectors)
            each = state.forward_each(vectors[:, :5])
            state.rollback([2, 4, 3])
            then = state.forward_each(vectors[:, :2])
            state.select_rows([2, 1])
            rest = state.forward_each(vectors[:2, :3])
            found[answering] = torch.cat([each[[2, 1]], then[[2, 1]], rest], dim=1)
    torch.testing.assert_close(found[True], found[False], atol=0.05, rtol=0.05)


def test_chosen_only_for_inference_in_bfloat16(tiny_language):
    def choice(dtype: torch.dtype, training: bool) -> str:
        bridge = OlmoEarthVLMBridge("random-v1.2-nano", tiny_language, device="cpu", dtype=dtype)
        bridge.train(training)
        return bridge.language.model.config._attn_implementation

    assert choice(torch.bfloat16, training=False) == CPU_ATTENTION
    assert choice(torch.bfloat16, training=True) == TORCH_ATTENTION
    assert choice(torch.float32, training=False) == TORCH_ATTENTION
