"""What each stage optimizes, and at which rates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.training import trainer as trainer_module
from earthvlm.training.config import TrainingConfig
from earthvlm.training.losses.training_model import TrainingModel
from earthvlm.training.optimizer import parameter_groups
from tests.support.training_runs import make_trainer


def test_only_weights_of_layers_decay(tiny_bridge):
    config = TrainingConfig(weight_decay=0.1)
    name_of = {id(p): name for name, p in tiny_bridge.named_parameters()}
    names = {0.0: set(), 0.1: set()}
    for group in parameter_groups(TrainingModel(tiny_bridge), "bridge", config):
        names[group["weight_decay"]] |= {name_of[id(p)] for p in group["params"]}
    assert names[0.0] | names[0.1] == {
        n for n, p in tiny_bridge.named_parameters() if p.requires_grad
    }
    assert {"fusion.queries", "fusion.output_scale"} < names[0.0]
    assert {"fusion.place.weight", "fusion.attention.in_proj_weight"} < names[0.1]
    parameters = dict(tiny_bridge.named_parameters())
    assert all(parameters[name].ndim > 1 for name in names[0.1])
    assert not any("norm" in name or "bias" in name for name in names[0.1])
    assert any("lora_A" in name for name in names[0.1])


def test_each_part_has_its_learning_rate(tiny_bridge):
    rates = {"learning_rate": 1.0, "encoder_learning_rate": 2.0}
    rates |= {"query_learning_rate": 3.0, "head_learning_rate": 4.0}
    groups = parameter_groups(TrainingModel(tiny_bridge), "bridge", TrainingConfig(**rates))
    rate_of = {id(p): group["lr"] for group in groups for p in group["params"]}
    parts = {"language_model": 1.0, "encoder": 2.0, "fusion": 3.0, "head": 4.0}
    for name, rate in parts.items():
        trained = [p for p in getattr(tiny_bridge, name).parameters() if p.requires_grad]
        assert trained and {rate_of[id(p)] for p in trained} == {rate}
    assert len(rate_of) == sum(p.requires_grad for p in tiny_bridge.parameters())


def test_a_rate_of_zero_is_not_the_default(tiny_bridge):
    config = TrainingConfig(query_learning_rate=0.0)
    model = TrainingModel(tiny_bridge)
    queries = id(tiny_bridge.fusion.queries)
    (rate,) = (
        group["lr"]
        for group in parameter_groups(model, "queries", config)
        if queries in map(id, group["params"])
    )
    assert rate == 0.0


def test_saved_weights_are_the_trained_ones(tiny_language, tiny_bridge):
    frozen = OlmoEarthVLMBridge("random-v1.2-nano", tiny_language, num_geo_queries=4, device="cpu")
    full = OlmoEarthVLMBridge("random-v1.2-nano", tiny_language, use_lora=False, device="cpu")
    adapter, language = "adapter/adapter_model.safetensors", "language_model.safetensors"
    for bridge, files in (
        (frozen, {adapter}),
        (tiny_bridge, {adapter, "encoder.safetensors"}),
        (full, {language}),
    ):
        weights = bridge.weights()
        assert weights.keys() == files | {"fusion.safetensors"}
        trained = sum(p.numel() for p in bridge.parameters() if p.requires_grad)
        assert sum(t.numel() for state in weights.values() for t in state.values()) == trained


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_rates_follow_the_schedule(schedule, data, tiny_bridge, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 1)
    monkeypatch.setattr(trainer_module, "validation_losses", lambda *_: {})
    monkeypatch.setattr(trainer_module, "sample_answers", lambda *_: [])
    monkeypatch.setattr(trainer_module, "train_step", lambda *_: {"caption": torch.zeros(())})
    options = {"schedule": schedule, "warmup_steps": 2, "learning_rate": 1.0, "max_steps": 10}
    trainer = make_trainer(tiny_bridge, data, tmp_path, batch_size=1, **options)
    trainer.run()
    rates = [e["learning_rate"] for e in trainer.files.log if e["stage"] == "bridge"]
    decays = {"cosine": lambda x: (1 + np.cos(np.pi * x)) / 2, "linear": lambda x: 1 - x}
    # The first step's rate is 0; a step after the last would have a rate of 0 again.
    expected = [0.0, 0.5, *(decays[schedule](step / 8) for step in range(8))]
    assert rates == pytest.approx(expected)
