"""One step: losses, accumulation, clipping, and gradient checkpointing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.training.batches.sampler import SampleKey
from earthvlm.training.batches.samples import TrainingSamples, collate_samples
from earthvlm.training.losses import training_model as losses_module
from earthvlm.training.losses.training_model import TrainingModel, contrastive_loss
from earthvlm.training.step import GRADIENT_NORM, group_batches, train_step
from tests.support.training_runs import make_trainer


def test_accumulation_weighs_every_answer_token_alike(data, tiny_bridge, tmp_path, monkeypatch):
    # The contrastive loss compares the scenes of a batch, so it depends on the batch size.
    monkeypatch.setattr(losses_module, "CONTRASTIVE_WEIGHT", 0.0)
    state = {name: tensor.clone() for name, tensor in tiny_bridge.state_dict().items()}
    samples = TrainingSamples(ChatEarthNet(data, "train"), tiny_bridge, 0)
    drawn = [samples[SampleKey(0, index, (1, 1, 1.0))] for index in range(4)]
    parameters = [p for p in tiny_bridge.parameters() if p.requires_grad]
    after, tokens = [], []
    for size in (4, 2, 3):  # one batch, two of equal size, and a full one with a smaller one
        tiny_bridge.load_state_dict(state)
        trainer = make_trainer(tiny_bridge, data, tmp_path)
        batches = [
            collate_samples(tiny_bridge, drawn[start : start + size]) for start in range(0, 4, size)
        ]
        tokens.append([batch.answer_tokens for batch in batches])
        optimizer = trainer.accelerator.prepare(torch.optim.SGD(parameters, lr=0.1))
        train_step(trainer.accelerator, trainer.model, batches, optimizer, parameters, 1)
        after.append({n: t.clone() for n, t in tiny_bridge.state_dict().items()})
    assert len({sum(counts) for counts in tokens}) == 1 and tokens[1][0] != tokens[1][1]
    for other in after[1:]:
        for name, tensor in after[0].items():
            torch.testing.assert_close(other[name], tensor, atol=1e-6, rtol=1e-5)
    assert sum(not torch.equal(tensor, state[name]) for name, tensor in after[0].items()) > 20


def test_last_group_of_an_epoch_may_be_smaller():
    assert list(group_batches("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]


def test_gradients_are_clipped(data, tiny_bridge, tmp_path):
    trainer = make_trainer(tiny_bridge, data, tmp_path, batch_size=4)
    parameters = [p for p in tiny_bridge.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    optimizer = trainer.accelerator.prepare(torch.optim.SGD(parameters, lr=1.0))
    batches = [next(iter(trainer.loaders.bridge(trainer.model)))]
    train_step(trainer.accelerator, trainer.model, batches, optimizer, parameters, 1)
    moved = sum((p - b).square().sum() for p, b in zip(parameters, before, strict=True)).sqrt()
    assert moved.item() == pytest.approx(GRADIENT_NORM, rel=1e-3)  # more without clipping


def test_checkpointing_changes_no_gradient(data, tiny_bridge):
    samples = TrainingSamples(ChatEarthNet(data, "train"), tiny_bridge, 0)
    drawn = [samples[SampleKey(0, index, (1, 1, 1.0))] for index in range(2)]
    batch = tiny_bridge.collate([s.scene for s in drawn], [s.prompt for s in drawn])
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            tiny_bridge.language_model.activation_checkpointing_enable({"use_reentrant": False})
        tiny_bridge.train()
        tiny_bridge.encoder.eval()
        torch.manual_seed(0)
        tiny_bridge.zero_grad()
        tiny_bridge(batch).loss.backward()
        gradients.append([p.grad for p in tiny_bridge.parameters() if p.grad is not None])
    assert len(gradients[0]) > 20
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_contrastive_loss_falls_as_scenes_approach_sentences():
    rng = np.random.default_rng(0)
    sentences = torch.tensor(rng.normal(size=(16, 32)), dtype=torch.float32)
    sentences = torch.nn.functional.normalize(sentences, dim=1)
    other = sentences.roll(1, 0)
    near = torch.nn.functional.normalize(sentences + 0.3 * other, dim=1)
    assert contrastive_loss(sentences, sentences) < contrastive_loss(near, sentences)
    assert contrastive_loss(near, sentences) < contrastive_loss(other, sentences)


def test_losses_are_computed_on_the_models_device(data, tiny_bridge, tmp_path, monkeypatch):
    """On the meta device, which refuses tensors of another, forward and backward."""
    monkeypatch.setattr("earthvlm.training.dataloaders.HEAD_CROP_EPOCHS", 1)
    monkeypatch.setattr("earthvlm.training.dataloaders.CROP_EPOCHS", 1)
    trainer = make_trainer(tiny_bridge, data, tmp_path, encoder_batch_size=4)
    model = TrainingModel(tiny_bridge)
    # Not the bridge's stage: transformers reads values of masks, which meta tensors do not have.
    stages = {"encoder": 3, "queries": 2, "head": 1}
    batches = {stage: next(iter(getattr(trainer.loaders, stage)(model))) for stage in stages}
    model.to("meta")
    for stage, count in stages.items():
        losses = model(batches[stage], torch.zeros(batches[stage].size, 384, device="meta"))
        values = [loss.value for loss in losses.values()]
        assert len(values) == count and {value.device.type for value in values} == {"meta"}
        sum(values).backward()
