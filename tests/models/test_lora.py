"""Adapters as PEFT writes them: followed as PEFT would, or refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from earthvlm.bridge.config import bridge_revision
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.cli import main
from earthvlm.models.adapter_config import AdapterConfig
from earthvlm.models.language.language_model import load_language_model
from earthvlm.models.lora import adapted_layers
from tests.conftest import random_scene

IDS = torch.arange(40, 60)[None]
FORMS = {
    "rslora": {"r": 4, "lora_alpha": 8, "use_rslora": True, "target_modules": ["q_proj", "v_proj"]},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "up_proj", "o_proj"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, "up_proj": 6},
        "alpha_pattern": {".*o_proj": 3, "layers.0.self_attn.q_proj": 20},
    },
    "expression": {"r": 3, "lora_alpha": 7, "target_modules": r".*layers\.1\..*(k|gate)_proj"},
    "excluded": {"r": 2, "target_modules": "all-linear", "exclude_modules": ["down_proj"]},
}


def save_adapter(folder: Path, language: str, **options: object) -> None:
    """Save an adapter of a language model by PEFT alone, with random factors."""
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(language)
    model = get_peft_model(base, LoraConfig(**options, task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("form", FORMS)
def test_adapters_of_peft_are_followed(form, saved, tiny_language, tmp_path):
    save_adapter(saved / "adapter", tiny_language, **FORMS[form])
    base = AutoModelForCausalLM.from_pretrained(tiny_language)
    plain = logits(base)
    expected = logits(PeftModel.from_pretrained(base, saved / "adapter").eval())
    assert (expected - plain).abs().max() > 0.01
    options = {"device": "cpu", "dtype": torch.float32}
    merged = OlmoEarthVLMBridge.from_pretrained(saved, **options)
    trainable = OlmoEarthVLMBridge.from_pretrained(saved, trainable=True, **options)
    for bridge in (merged, trainable):
        torch.testing.assert_close(logits(bridge.language_model), expected)
        assert bridge.revision == bridge_revision(saved)
        bridge.save_pretrained(tmp_path / "again")
        again = OlmoEarthVLMBridge.from_pretrained(tmp_path / "again", **options)
        torch.testing.assert_close(logits(again.language_model), expected)
        assert again.revision == bridge.revision == bridge_revision(saved)


@pytest.mark.parametrize(
    "change", [{"use_rslora": True}, {"lora_alpha": 33}, {"alpha_pattern": {"q_proj": 3}}]
)
def test_scaling_changes_the_revision(change, saved):
    before = bridge_revision(saved)
    path = saved / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert bridge_revision(saved) != before


REFUSED = {
    "use_dora": ({"use_dora": True}, "sets use_dora, which"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "sets modules_to_save, which"),
    "unknown": ({"use_next_year": {"a": 1}}, "sets use_next_year, which"),
    "bias": ({"bias": "all"}, "sets bias, which"),
    "pissa": ({"init_lora_weights": "pissa"}, "sets init_lora_weights 'pissa', which"),
    "kind": ({"peft_type": "IA3"}, "peft_type IA3"),
    "rank": ({"r": 0}, "r is 0"),
    "targets": ({"target_modules": ["q_proj", "query"]}, "no layers named query"),
    "not linear": ({"target_modules": ["embed_tokens"]}, "embed_tokens .* it is a Embedding"),
    "expression": ({"target_modules": "(q_proj"}, "is no configuration of a LoRA adapter"),
    "ranks": ({"r": 5}, r"lora_A.weight of shape \(16, 64\), expected is \(5, 64\)"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_other_adapters_are_refused_by_name(form, saved):
    change, expected = REFUSED[form]
    path = saved / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=expected):
        OlmoEarthVLMBridge.from_pretrained(saved, device="cpu")


def test_missing_entry_and_damaged_file_are_named(saved):
    path = saved / "adapter" / "adapter_config.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps({name: entries[name] for name in entries if name != "r"}))
    with pytest.raises(ValueError, match=r"adapter_config.json is no .* it lacks 'r'"):
        AdapterConfig.read(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"adapter_config.json is no configuration"):
        AdapterConfig.read(path)


def test_a_lone_adapter_is_refused(tiny_language, tmp_path, capsys):
    save_adapter(tmp_path / "lone", tiny_language, r=2)
    with pytest.raises(ValueError, match="holds a PEFT adapter, not a bridge"):
        OlmoEarthVLMBridge.from_pretrained(tmp_path / "lone")
    random_scene().save(tmp_path / "scene.tif")
    command = ["describe", str(tmp_path / "scene.tif"), "--model_path", str(tmp_path / "lone")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "holds a PEFT adapter, not a bridge" in error and "untrained" not in error
    with pytest.raises(ValueError, match="holds a PEFT adapter: merge it into"):
        load_language_model(str(tmp_path / "lone"))


def test_a_lone_adapter_on_the_hub_is_refused(hub, tiny_language, tmp_path):
    save_adapter(tmp_path / "lone", tiny_language, r=2)
    files = {path.name: path.read_bytes() for path in (tmp_path / "lone").iterdir()}
    hub.repository("jane/adapter").commit(files)
    with pytest.raises(ValueError, match="holds a PEFT adapter, not a bridge"):
        OlmoEarthVLMBridge.from_pretrained("jane/adapter")


def test_all_linear_layers_leave_out_the_output(tiny_language):
    language = load_language_model(tiny_language)
    layers = adapted_layers(language, AdapterConfig(2, 2, "all-linear"))
    assert {name.rpartition(".")[2] for name in layers} == set(language.family.lora_targets)
