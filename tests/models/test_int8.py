"""Weights of 8 bits: near the layers they are made of, loaded one by one, for answering alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.models.int8 import DEQUANTIZE_FROM, Int8Linear
from earthvlm.models.language_model import load_language_model
from tests.conftest import draw_adapter, random_scene
from tests.support.moondream_reference import write_checkpoint


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [1, DEQUANTIZE_FROM])
def test_a_layer_is_near_the_one_it_is_made_of(dtype, rows):
    torch.manual_seed(0)
    linear = nn.Linear(96, 64).to(dtype)
    with torch.no_grad():
        linear.weight[3] = 0  # a row without numbers has no scale
        x = torch.randn(1, rows, 96, dtype=dtype)
        found, expected = Int8Linear(linear)(x), linear(x)
    assert found.dtype == dtype and found.shape == expected.shape
    # A 254th of the largest weight, at random, 96 times; bfloat16 adds its own rounding.
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)


def test_an_update_is_added_to_what_is_there():
    torch.manual_seed(0)
    linear, update = nn.Linear(96, 64), torch.randn(64, 96)
    layer = Int8Linear(linear)
    layer.add_(update)
    whole = linear.weight.detach() + update
    torch.testing.assert_close(layer.dequantize(), whole, atol=0.03, rtol=0)
    assert layer.weight.dtype == torch.int8


@pytest.mark.parametrize("layout", ["2024", "2025"])
def test_moondream_is_loaded_into_8_bits(tmp_path, layout):
    write_checkpoint(tmp_path, layout)
    language = load_language_model(str(tmp_path), torch.int8)
    whole = load_language_model(str(tmp_path))
    layers = [m for m in whole.model.modules() if isinstance(m, nn.Linear)]
    in_int8 = [m for m in language.model.modules() if isinstance(m, Int8Linear)]
    assert len(in_int8) == len(layers) > 0
    assert not [m for m in language.model.modules() if isinstance(m, nn.Linear)]
    assert language.model.dtype == whole.model.dtype
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        found, expected = language.model(ids).logits, whole.model(ids).logits
    apart = (found - expected).float().norm() / expected.float().norm()
    assert 0 < apart < 0.05


def test_a_bridge_answers_with_its_adapter_in_8_bits(tiny_bridge, tmp_path):
    draw_adapter(tiny_bridge)
    tiny_bridge.save_pretrained(tmp_path)
    whole = OlmoEarthVLMBridge.from_pretrained(tmp_path, device="cpu", dtype=torch.float32)
    bridge = OlmoEarthVLMBridge.from_pretrained(tmp_path, device="cpu", dtype=torch.int8)
    for name, layer in bridge.language.model.named_modules():
        if isinstance(layer, Int8Linear):
            expected = whole.language.model.get_submodule(name).weight
            apart = (layer.dequantize().float() - expected).norm() / expected.norm()
            assert apart < 0.02, name
    assert bridge.generate(random_scene(), "Is there water?", max_length=4)
    bridge.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/adapter/adapter_model.safetensors").is_file()


def test_weights_of_8_bits_are_not_trained(tiny_language):
    with pytest.raises(ValueError, match=r"leave dtype=torch\.int8 out"):
        OlmoEarthVLMBridge("random-v1.2-nano", tiny_language, dtype=torch.int8)
