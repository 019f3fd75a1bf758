"""A language model whose weights all train: training, saving, resuming, publishing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from earthvlm.bridge.config import LANGUAGE_FILE, bridge_revision
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.models.int8 import Int8Linear
from tests.conftest import random_scene
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.tiny_models import save_tiny_model
from tests.support.training_runs import run_training

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tied_language(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A language model whose input and output embeddings are tied, like SmolLM2's."""
    folder = tmp_path_factory.mktemp("tied-language")
    sizes = {"num_hidden_layers": 2, "intermediate_size": 8192}  # 3 million weights
    save_tiny_model(folder, "llama", tie_word_embeddings=True, **sizes)
    return str(folder)


@pytest.fixture
def bridge(tied_language: str) -> OlmoEarthVLMBridge:
    """A bridge whose language model has other weights than the base model."""
    torch.manual_seed(1)
    bridge = OlmoEarthVLMBridge(
        "random-v1.2-nano",
        tied_language,
        freeze_olmoearth=False,  # a random encoder is saved only if it trains
        use_lora=False,
        num_geo_queries=4,
        device="cpu",
    )
    with torch.no_grad():
        for parameter in bridge.language_model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return bridge.eval()


@pytest.fixture
def saved(bridge: OlmoEarthVLMBridge, tmp_path: Path) -> Path:
    bridge.save_pretrained(tmp_path / "bridge")
    return tmp_path / "bridge"


def test_all_weights_train_in_float32(tied_language, monkeypatch):
    """On hardware with bfloat16 too, whose rounding is larger than a training step."""
    monkeypatch.setattr(
        "earthvlm.models.language.language_model.preferred_dtype", lambda _: torch.bfloat16
    )
    bridge = OlmoEarthVLMBridge("random-v1.2-nano", tied_language, use_lora=False, device="cpu")
    parameters = list(bridge.language_model.parameters())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in parameters)
    scenes = [bridge.prepare(random_scene())]
    messages = [{"role": "user", "content": "Water?"}, {"role": "assistant", "content": "Yes."}]
    bridge(bridge.collate(scenes, [bridge.language.encode(messages)])).loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in parameters)


def test_fully_trained_bridge_answers_after_loading(bridge, saved):
    scene = random_scene()
    again = OlmoEarthVLMBridge.from_pretrained(saved, "cpu", torch.float32)
    assert again.generate(scene, max_length=8) == bridge.generate(scene, max_length=8)
    assert not any(p.requires_grad for p in again.language_model.parameters())
    tensors = load_file(saved / LANGUAGE_FILE)
    assert "lm_head.weight" not in tensors  # tied to the embeddings
    for name, parameter in again.language_model.named_parameters():
        assert torch.equal(parameter, tensors[name]), name
    trainable = OlmoEarthVLMBridge.from_pretrained(saved, "cpu", trainable=True)
    trainable.save_pretrained(saved.parent / "again")
    assert bridge_revision(saved.parent / "again") == bridge_revision(saved) == bridge.revision


def test_revision_covers_the_language_model(saved):
    before = bridge_revision(saved)
    tensors = load_file(saved / LANGUAGE_FILE)
    tensors["model.norm.weight"] += 1
    save_file(tensors, saved / LANGUAGE_FILE, {"format": "pt"})
    assert bridge_revision(saved) != before


@pytest.mark.parametrize("lost", [None, "model.norm.weight"])
def test_missing_language_weights_are_named(saved, lost):
    path = saved / LANGUAGE_FILE
    if lost is None:
        path.unlink()
    else:
        save_file({n: t for n, t in load_file(path).items() if n != lost}, path)
    with pytest.raises((FileNotFoundError, ValueError), match=lost or LANGUAGE_FILE):
        OlmoEarthVLMBridge.from_pretrained(saved)


def test_fully_trained_bridge_in_8_bits_is_not_saved(saved):
    trained = load_file(saved / LANGUAGE_FILE)
    bridge = OlmoEarthVLMBridge.from_pretrained(saved, "cpu", torch.int8)
    layers = {n: m for n, m in bridge.language.model.named_modules() if isinstance(m, Int8Linear)}
    for name, layer in layers.items():
        expected = trained.get(f"{name}.weight", trained["model.embed_tokens.weight"])
        assert (layer.dequantize().float() - expected).norm() / expected.norm() < 0.02, name
    assert len(layers) > 10 and bridge.generate(random_scene(), max_length=3) is not None
    with pytest.raises(
        ValueError, match=r"8-bit language model cannot be saved.*without dtype=torch\.int8"
    ):
        bridge.save_pretrained(saved.parent / "again")


def test_fully_trained_bridge_is_published(hub, tied_language):
    files = {path.name: path.read_bytes() for path in Path(tied_language).iterdir()}
    hub.repository("owner/words").commit(files)
    torch.manual_seed(1)
    bridge = OlmoEarthVLMBridge(
        "random-v1.2-nano",
        "owner/words",
        freeze_olmoearth=False,
        use_lora=False,
        num_geo_queries=4,
        device="cpu",
    ).eval()
    with torch.no_grad():
        bridge.language.model.get_input_embeddings().weight.mul_(1.5)
    stage = {
        "command": "accelerate launch -m earthvlm.train --no-use_lora",
        "steps": 2,
        "seconds": 60,
        "device": "CPU",
        "torch": "2",
        "dataset": None,
        "earlier": [],
    }
    bridge.record_training("trained for 2 steps", stage)
    bridge.push_to_hub("owner/bridge")
    published = hub.repositories["owner/bridge"].files
    assert LANGUAGE_FILE in published and "adapter/adapter_config.json" not in published
    card = published["README.md"].decode()
    assert "all of whose weights were trained to read them" in card and "LoRA" not in card
    assert "- lora" not in card and "--no-use_lora" in card
    assert f"`{LANGUAGE_FILE}` is a fine-tuned copy of `owner/words`" in card
    again = OlmoEarthVLMBridge.from_pretrained("owner/bridge", "cpu", torch.float32)
    scene = random_scene()
    assert again.generate(scene, max_length=8) == bridge.generate(scene, max_length=8)


def test_full_training_resumes_to_the_same_weights(tied_language, tmp_path):
    write_generated_chatearthnet(tmp_path / "data", train=6, val=1)
    options = [f"--data_dir={tmp_path / 'data'}", f"--vlm_model={tied_language}", "--no-use_lora"]
    options += ["--olmoearth_model=random-v1.2-nano", "--num_geo_queries=4", "--device=cpu"]
    options += ["--num_workers=0", "--batch_size=2", "--accumulation_steps=1", "--warmup_steps=1"]
    options += ["--query_epochs=1", "--max_steps=3", "--save_every=1", "--max_eval_samples=1"]
    first, second = tmp_path / "first", tmp_path / "second"
    said = run_training([*options, f"--output_dir={first}"], tmp_path / "first.log")
    assert "All weights of the language model train: 3 million, which take 0.1 GB" in said
    resume = f"--resume={first / 'checkpoints' / '1'}"
    run_training([*options, f"--output_dir={second}", resume], tmp_path / "second.log")
    for file in (LANGUAGE_FILE, "fusion.safetensors"):
        whole, resumed = load_file(first / file), load_file(second / file)
        assert all(torch.equal(whole[name], resumed[name]) for name in whole | resumed), file
    base = load_file(Path(tied_language) / "model.safetensors")
    trained = load_file(first / LANGUAGE_FILE)
    assert not any(torch.equal(tensor, trained[name]) for name, tensor in base.items())
    assert not json.loads((first / "config.json").read_text())["use_lora"]
