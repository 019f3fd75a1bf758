"""8-bit weights: their accuracy, loading and use with adapters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.models.int8 import DEQUANTIZE_FROM, Int8Linear
from earthvlm.models.language.language_model import load_language_model
from tests.conftest import draw_adapter, random_scene
from tests.support.moondream_reference import write_checkpoint


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [1, DEQUANTIZE_FROM])
def test_int8_layer_approximates_the_original(dtype, rows):
    torch.manual_seed(0)
    linear = nn.Linear(96, 64).to(dtype)
    with torch.no_grad():
        linear.weight[3] = 0  # a row of zeros, whose scale is not zero
        x = torch.randn(1, rows, 96, dtype=dtype)
        found, expected = Int8Linear(linear)(x), linear(x)
    assert found.dtype == dtype and found.shape == expected.shape
    # Rounding errors of up to 1/254 of the largest weight in 96 terms; bfloat16 adds its own.
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)


def test_add_updates_the_weights():
    torch.manual_seed(0)
    linear, update = nn.Linear(96, 64), torch.randn(64, 96)
    layer = Int8Linear(linear)
    layer.add_(update)
    expected = linear.weight.detach() + update
    torch.testing.assert_close(layer.dequantize(), expected, atol=0.03, rtol=0)
    assert layer.weight.dtype == torch.int8


@pytest.mark.parametrize("layout", ["2024", "2025"])
def test_moondream_loads_in_8_bits(tmp_path, layout):
    write_checkpoint(tmp_path, layout)
    language = load_language_model(str(tmp_path), torch.int8)
    full = load_language_model(str(tmp_path))
    layers = [m for m in full.model.modules() if isinstance(m, nn.Linear)]
    in_int8 = [m for m in language.model.modules() if isinstance(m, Int8Linear)]
    assert len(in_int8) == len(layers) > 0
    assert not [m for m in language.model.modules() if isinstance(m, nn.Linear)]
    assert language.model.dtype == full.model.dtype
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        found, expected = language.model(ids).logits, full.model(ids).logits
    difference = (found - expected).float().norm() / expected.float().norm()
    assert 0 < difference < 0.05


def test_bridge_with_adapter_answers_in_8_bits(tiny_bridge, tmp_path):
    draw_adapter(tiny_bridge)
    tiny_bridge.save_pretrained(tmp_path)
    full = OlmoEarthVLMBridge.from_pretrained(tmp_path, device="cpu", dtype=torch.float32)
    bridge = OlmoEarthVLMBridge.from_pretrained(tmp_path, device="cpu", dtype=torch.int8)
    for name, layer in bridge.language.model.named_modules():
        if isinstance(layer, Int8Linear):
            expected = full.language.model.get_submodule(name).weight
            difference = (layer.dequantize().float() - expected).norm() / expected.norm()
            assert difference < 0.02, name
    assert bridge.generate(random_scene(), "Is there water?", max_length=4)
    bridge.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/adapter/adapter_model.safetensors").is_file()


def test_training_in_8_bits_is_rejected(tiny_language):
    with pytest.raises(ValueError, match=r"leave dtype=torch\.int8 out"):
        OlmoEarthVLMBridge("random-v1.2-nano", tiny_language, dtype=torch.int8)
