"""The training loop: warmup, validation, and failures that keep the last good weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.training import step as step_module
from earthvlm.training import trainer as trainer_module
from tests.support.training_runs import make_trainer

pytestmark = pytest.mark.slow


def test_too_long_warmup_is_shortened(data, tiny_bridge, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trainer_module, "validation_losses", fail_to_read)
    monkeypatch.setattr(trainer_module, "train_step", lambda *_: {"caption": torch.zeros(())})
    make_trainer(tiny_bridge, data, tmp_path, batch_size=1, warmup_steps=100).run()
    output = capsys.readouterr().out
    assert "warms up over 2 steps, a fifth of 12, instead of --warmup_steps 100." in output


def test_failed_validation_does_not_end_the_run(data, tiny_bridge, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trainer_module, "sample_answers", fail_to_read)
    options = {"batch_size": 4, "max_steps": 2, "validate_every": 1, "warmup_steps": 0}
    make_trainer(tiny_bridge, data, tmp_path, **options).run()
    output = capsys.readouterr().out
    assert output.count("No validation at step ") == 2 and "step 2: a.png is gone" in output
    assert (tmp_path / "fusion.safetensors").is_file()


def fail_to_read(*_: object) -> None:
    raise FileNotFoundError("a.png is gone")


def test_bridge_is_saved_before_its_last_validation(data, tiny_bridge, tmp_path, monkeypatch):
    def be_killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer_module, "validation_losses", be_killed)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tiny_bridge, data, tmp_path, batch_size=4, max_steps=1).run()
    assert OlmoEarthVLMBridge.from_pretrained(tmp_path, device="cpu").config.training["steps"] == 1


def test_exploding_loss_leaves_the_last_good_weights(data, tiny_bridge, tmp_path, monkeypatch):
    calls, take_real_step = [], trainer_module.train_step

    def explode_at_the_third(*arguments: object) -> dict[str, torch.Tensor]:
        calls.append(1)
        if len(calls) == 3:
            good.update({n: t.clone() for n, t in tiny_bridge.fusion.state_dict().items()})
            monkeypatch.setattr(step_module, "EXPLODED", 0.0)
        return take_real_step(*arguments)

    good: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(trainer_module, "train_step", explode_at_the_third)
    trainer = make_trainer(tiny_bridge, data, tmp_path, batch_size=4, validate_every=0)
    folder = tmp_path / "checkpoints" / "2"
    with pytest.raises(ValueError, match=r"The loss is \d+\.\d+ at step 3, with ") as failed:
        trainer.run()
    assert f"weights are saved in {folder}: continue with --resume last" in str(failed.value)
    saved = load_file(folder / "fusion.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in good.items() if name in saved)


def test_explosion_at_the_first_step_saves_nothing(data, tiny_bridge, tmp_path, monkeypatch):
    monkeypatch.setattr(step_module, "EXPLODED", 0.1)
    with pytest.raises(ValueError, match=r"The loss is .* Nothing was trained yet, so nothing is"):
        make_trainer(tiny_bridge, data, tmp_path, batch_size=4).run()
    assert not (tmp_path / "checkpoints").exists()


def test_loss_that_is_not_finite_names_step_and_tiles(data, tiny_bridge, tmp_path):
    trainer = make_trainer(tiny_bridge, data, tmp_path, batch_size=4)
    with torch.no_grad():
        tiny_bridge.fusion.queries.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"The loss is nan at step 1, with generated_00\d\d\.png,"):
        trainer.run()


def test_gradient_that_is_not_finite_changes_no_weight(data, tiny_bridge, tmp_path):
    trainer = make_trainer(tiny_bridge, data, tmp_path, batch_size=2, accumulation_steps=2)
    before = {name: tensor.clone() for name, tensor in tiny_bridge.state_dict().items()}
    tiny_bridge.fusion.queries.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(ValueError, match=r"The gradient is nan at step 1, with gener") as failed:
        trainer.run()
    assert str(failed.value).count("generated_") == 4  # the tiles of all batches of the step
    after = tiny_bridge.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_frozen_encoder_is_required_for_the_feature_cache(data, tiny_bridge, tmp_path):
    trainer = make_trainer(tiny_bridge, data, tmp_path, feature_cache_dir=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="--feature_cache_dir needs --freeze_olmoearth"):
        trainer.run()
