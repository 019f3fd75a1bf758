"""Training: the real script, as users start it, on generated tiles and a small language model."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

import train_accelerate
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.cli import main
from earthvlm.data.chatearthnet import ChatEarthNet
from earthvlm.training import config as training_config
from earthvlm.training import losses as objectives
from earthvlm.training import step as training_step
from earthvlm.training import trainer as training
from earthvlm.training.config import TrainingConfig
from earthvlm.training.losses import TrainingModel, contrastive_loss
from earthvlm.training.sampler import SampleKey
from earthvlm.training.samples import TrainingSamples
from earthvlm.training.step import GRADIENT_NORM, train_step
from earthvlm.training.trainer import Trainer
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.training_runs import TrainingRun


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    write_generated_chatearthnet(folder, train=12, val=2)
    return folder


def train(data: Path, output: Path, language: str, *options: str) -> tuple[int, str]:
    """The exit code of a run, and what it said."""
    arguments = [f"--data_dir={data}", f"--output_dir={output}", f"--vlm_model={language}"]
    arguments += ["--olmoearth_model=random-v1.2-nano", "--no-freeze_olmoearth", "--device=cpu"]
    arguments += ["--num_geo_queries=8", "--num_workers=0", "--accumulation_steps=1", *options]
    return TrainingRun(arguments, output.with_suffix(".log")).finish()


@pytest.mark.slow
def test_a_run_learns_saves_and_goes_on(data, tmp_path, tiny_language):
    options = ["--batch_size=4", "--num_epochs=2", "--encoder_epochs=2", "--encoder_batch_size=4"]
    options += [
        "--class_balanced_sampling",
        "--query_epochs=1",
        "--retrieval_head_epochs=3",
        "--save_every=5",
        "--validate_every=3",
        "--max_eval_samples=1",
        "--learning_rate=0.003",
    ]
    code, said = train(data, tmp_path / "run", tiny_language, *options)
    assert code == 0, said
    log = json.loads((tmp_path / "run" / "training_log.json").read_text())
    stages = [entry["stage"] for entry in log]
    assert list(dict.fromkeys(s for s in stages if s != "validation")) == [
        "encoder",
        "queries",
        "bridge",
        "head",
    ]
    assert stages.count("validation") == 2  # at 3 and at 6, which is the end
    first, last = (
        next(e for e in entries if e["stage"] == "validation") for entries in (log, log[::-1])
    )
    assert last["loss"]["caption"] < first["loss"]["caption"]
    assert last["samples"][0].keys() == {"image", "answer", "reference"}
    assert (tmp_path / "run" / "loss_curve.png").stat().st_size > 5000
    checkpoints = {p.name for p in (tmp_path / "run" / "checkpoints").iterdir()}
    steps = {"encoder-5", "encoder-6", "queries-5", "queries-10", "queries-12", "5", "6", "head-3"}
    assert checkpoints == steps | {"last"}
    bridge = OlmoEarthVLMBridge.from_pretrained(tmp_path / "run", device="cpu")
    assert " on 12 Sentinel-2 tiles" in bridge.summary
    assert bridge.config.training["steps"] == 3
    assert bridge.config.training_tiles.side == 64
    evaluated = ["evaluate", "--model_path", str(tmp_path / "run"), "--data_dir", str(data)]
    assert main([*evaluated, "--output", str(tmp_path / "results.json")]) == 0
    metrics = json.loads((tmp_path / "results.json").read_text())["metrics"]
    assert {f["tiles"] for f in metrics} == {2}
    assert all(0 <= f["low"] <= f["value"] <= f["high"] for f in metrics)
    assert all(f["shuffled_image"] <= 1 for f in metrics if "recall" in f["name"])  # chance, too
    more = ["--num_epochs=0", "--retrieval_head_epochs=1", f"--model_path={tmp_path / 'run'}"]
    code, said = train(data, tmp_path / "more", tiny_language, *more)
    assert code == 0, said
    for name in ("encoder.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "more" / name).read_bytes()
    before, after = (load_file(tmp_path / run / "fusion.safetensors") for run in ("run", "more"))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head"}


@pytest.mark.slow
def test_trackers_get_losses_and_sample_answers(data, tmp_path, tiny_language, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "database"))
    options = ["--max_steps=1", "--batch_size=4", "--max_eval_samples=1"]
    for name in ("tensorboard", "trackio"):
        code, said = train(data, tmp_path / name, tiny_language, *options, f"--log_with={name}")
        assert code == 0, said
    events = EventAccumulator(str(tmp_path / "tensorboard" / "earthvlm")).Reload()
    assert {"bridge/caption", "validation/caption"} <= set(events.Tags()["scalars"])
    assert events.Tags()["tensors"] == ["samples/text_summary"]
    with sqlite3.connect(tmp_path / "database" / "earthvlm.db") as database:
        logged = [json.loads(row[0]) for row in database.execute("select metrics from metrics")]
    names = set().union(*logged)
    assert {"bridge/caption", "validation/caption", "samples"} <= names
    sample = ChatEarthNet(data, "val").tiles[0].name
    assert any(sample in str(entry.get("samples")) for entry in logged)


def test_missing_data_is_one_sentence(tmp_path, tiny_language):
    code, said = train(tmp_path, tmp_path / "run", tiny_language)
    assert code == 2
    sentences = [line for line in said.splitlines() if line.startswith("train_accelerate:")]
    assert len(sentences) == 1 and "is missing" in sentences[0]
    assert "Traceback" not in said


# Each flag with a value that no run can have, and what is said of it.
IMPOSSIBLE = {
    "--batch_size=0": "--batch_size must be a whole number of at least 1; 0 was given.",
    "--accumulation_steps=0": "--accumulation_steps must be a whole number of at least 1; 0",
    "--num_geo_queries=0": "--num_geo_queries must be a whole number of at least 1; 0 was given.",
    "--lora_r=0": "--lora_r must be a whole number of at least 1",
    "--lora_alpha=-1": "--lora_alpha must be a whole number of at least 1",
    "--patch_size=0": "--patch_size must be a whole number of at least 1 and at most 8; 0",
    "--embedding_patch_size=9": "--embedding_patch_size must be a whole number of at least 1",
    "--num_epochs=-1": "--num_epochs must be a whole number of at least 0",
    "--num_epochs=0": "Nothing would be trained: one of --encoder_epochs, --query_epochs, --num_ep",
    "--retrieval_head_epochs=-1": "--retrieval_head_epochs must be a whole number of at least 0",
    "--encoder_batch_size=0": "--encoder_batch_size must be a whole number of at least 1",
    "--learning_rate=-1": "--learning_rate must be a number of at least 0; -1 was given.",
    "--learning_rate=nan": "--learning_rate must be a number of at least 0; nan was given.",
    "--encoder_learning_rate=inf": "--encoder_learning_rate must be a number of at least 0; inf",
    "--query_learning_rate=-0.1": "--query_learning_rate must be a number of at least 0",
    "--head_learning_rate=-0.1": "--head_learning_rate must be a number of at least 0",
    "--weight_decay=-1": "--weight_decay must be a number of at least 0",
    "--warmup_steps=-1": "--warmup_steps must be a whole number of at least 0",
    "--save_every=-1": "--save_every must be a whole number of at least 0",
    "--save_total_limit=-1": "--save_total_limit must be a whole number of at least 0",
    "--hub_push_steps=-1": "--hub_push_steps must be a whole number of at least 0",
    "--validate_every=-1": "--validate_every must be a whole number of at least 0",
    "--max_eval_samples=-1": "--max_eval_samples must be a whole number of at least 0",
    "--max_steps=-1": "--max_steps must be a whole number of at least 0",
    "--num_workers=-1": "--num_workers must be a whole number of at least 0",
    "--seed=-1": "--seed must be a whole number of at least 0 and at most 4294967295; -1",
    "--seed=4294967296": "--seed must be a whole number of at least 0 and at most 4294967295",
    "--device=banana": "--device must be cpu, cuda, cuda:N or mps; 'banana' was given.",
    "--device=cpu:1": "--device must be cpu, cuda, cuda:N or mps; 'cpu:1' was given.",
    "--device=cuda:3": "This machine has no device 'cuda:3' (0 GPUs are seen)",
}


@pytest.mark.parametrize("argument", IMPOSSIBLE)
def test_impossible_arguments_are_one_sentence(argument, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    code = train_accelerate.main([f"--data_dir={data}", f"--output_dir={tmp_path}", argument])
    said = capsys.readouterr().err
    assert code == 2 and said.startswith(f"train_accelerate: {IMPOSSIBLE[argument]}")
    assert said.count("\n") == 1 and not any(tmp_path.iterdir())


def test_every_number_of_the_command_line_is_checked(data, tmp_path):
    given = vars(train_accelerate.parse_arguments([f"--data_dir={data}", f"--output_dir={data}"]))
    numbers = {name for name, value in given.items() if type(value) in (int, float)}
    numbers |= {name for name in given if name.endswith("_rate") or "patch_size" in name}
    assert numbers == training_config.LEAST.keys() | set(training_config.RATES)
    with pytest.raises(ValueError, match="--schedule must be one of cosine, linear; 'wavy'"):
        TrainingConfig(str(data), str(tmp_path), schedule="wavy")
    # The launcher's precision is taken where none is given.
    others = {n: d for n, d in training_config.DEFAULTS.items() if n != "mixed_precision"}
    assert {name: given[name] for name in others} == others


def test_weights_decay_and_nothing_else(data, tiny_bridge, tmp_path):
    trainer = make_trainer(tiny_bridge, data, tmp_path, weight_decay=0.1)
    name_of = {id(p): name for name, p in tiny_bridge.named_parameters()}
    names = {0.0: set(), 0.1: set()}
    for group in trainer._groups("bridge"):
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


def test_a_warmup_that_is_too_long_is_said(data, tiny_bridge, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Trainer, "_validate", lambda *_: None)
    monkeypatch.setattr(training, "train_step", lambda *_: {"caption": torch.zeros(())})
    make_trainer(tiny_bridge, data, tmp_path, batch_size=1, warmup_steps=100).run()
    said = capsys.readouterr().out
    assert "the rate rises over 2 steps, a fifth of 12, not over --warmup_steps 100." in said


def test_a_failing_validation_ends_nothing(data, tiny_bridge, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "sample_answers", read_nothing)
    options = {"batch_size": 4, "max_steps": 2, "validate_every": 1, "warmup_steps": 0}
    make_trainer(tiny_bridge, data, tmp_path, **options).run()
    said = capsys.readouterr().out
    assert said.count("No validation at step ") == 2 and "step 2: a.png is gone" in said
    assert (tmp_path / "fusion.safetensors").is_file()


def test_steps_compute_on_the_device_of_the_model(data, tiny_bridge, tmp_path, monkeypatch):
    """On a second kind of device, which refuses tensors of another, forward and backward."""
    monkeypatch.setattr("earthvlm.training.dataloaders.HEAD_CROP_EPOCHS", 1)
    monkeypatch.setattr("earthvlm.training.dataloaders.CROP_EPOCHS", 1)
    trainer = make_trainer(tiny_bridge, data, tmp_path, encoder_batch_size=4)
    # The bridge's own stage asks transformers, which looks at the values of masks: none are here.
    stages = {"encoder": 3, "queries": 2, "head": 1}
    batches = {stage: getattr(trainer.loaders, stage)(trainer.model) for stage in stages}
    batches = {stage: next(iter(loader)) for stage, loader in batches.items()}
    trainer.model.to("meta")
    for stage, count in stages.items():
        sentences = torch.zeros(batches[stage].size, 384, device="meta")
        losses = trainer.model(batches[stage], sentences)
        assert len(losses) == count and {loss.device.type for loss in losses.values()} == {"meta"}
        objectives.total_loss(losses).backward()


def read_nothing(*_: object) -> None:
    raise FileNotFoundError("a.png is gone")


def test_the_bridge_is_saved_before_its_last_validation(data, tiny_bridge, tmp_path, monkeypatch):
    def be_killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "validation_losses", be_killed)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tiny_bridge, data, tmp_path, batch_size=4, max_steps=1).run()
    assert OlmoEarthVLMBridge.from_pretrained(tmp_path, device="cpu").config.training["steps"] == 1


def test_an_explosion_leaves_the_last_good_weights(data, tiny_bridge, tmp_path, monkeypatch):
    taken, step = [], training.train_step

    def take(*arguments: object) -> dict[str, torch.Tensor]:
        taken.append(1)
        if len(taken) == 3:
            good.update({n: t.clone() for n, t in tiny_bridge.fusion.state_dict().items()})
            monkeypatch.setattr(training_step, "EXPLODED", 0.0)
        return step(*arguments)

    good: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(training, "train_step", take)
    trainer = make_trainer(tiny_bridge, data, tmp_path, batch_size=4, validate_every=0)
    folder = tmp_path / "checkpoints" / "2"
    with pytest.raises(ValueError, match=r"The loss is \d+\.\d+ at step 3, with ") as failed:
        trainer.run()
    assert f"weights are saved in {folder}: continue with --resume last" in str(failed.value)
    saved = load_file(folder / "fusion.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in good.items() if name in saved)


def test_an_explosion_at_the_first_step_says_nothing_is_saved(
    data, tiny_bridge, tmp_path, monkeypatch
):
    monkeypatch.setattr(training_step, "EXPLODED", 0.1)
    with pytest.raises(ValueError, match="Nothing was trained yet, so nothing is saved"):
        make_trainer(tiny_bridge, data, tmp_path, batch_size=4).run()
    assert not (tmp_path / "checkpoints").exists()


def make_trainer(bridge, data: Path, output: Path, **options) -> Trainer:
    options = {"accumulation_steps": 1, "num_workers": 0} | options
    config = TrainingConfig(str(data), str(output), **options)
    tiles = (ChatEarthNet(data, split) for split in ("train", "val"))
    trainer = Trainer(bridge, *tiles, config, Accelerator(cpu=True))
    trainer.model = TrainingModel(bridge)
    return trainer


def test_every_part_has_its_learning_rate(data, tiny_bridge, tmp_path):
    rates = {"learning_rate": 1.0, "encoder_learning_rate": 2.0}
    rates |= {"query_learning_rate": 3.0, "head_learning_rate": 4.0}
    trainer = make_trainer(tiny_bridge, data, tmp_path, **rates)
    rate_of = {id(p): g["lr"] for g in trainer._groups("bridge") for p in g["params"]}
    parts = {"language_model": 1.0, "encoder": 2.0, "fusion": 3.0, "head": 4.0}
    for name, rate in parts.items():
        trained = [p for p in getattr(tiny_bridge, name).parameters() if p.requires_grad]
        assert trained and {rate_of[id(p)] for p in trained} == {rate}
    assert len(rate_of) == sum(p.requires_grad for p in tiny_bridge.parameters())


def test_accumulated_batches_count_every_answer_token_alike(
    data, tiny_bridge, tmp_path, monkeypatch
):
    # Scenes are compared within a batch, so that loss is another where batches are smaller.
    monkeypatch.setattr(objectives, "CONTRASTIVE_WEIGHT", 0.0)
    state = {name: tensor.clone() for name, tensor in tiny_bridge.state_dict().items()}
    after, tokens = [], []
    for size in (4, 2, 3):  # in one batch, in two, and in a full one with what is left
        tiny_bridge.load_state_dict(state)
        options = {"batch_size": size, "accumulation_steps": -(-4 // size)}
        trainer = make_trainer(tiny_bridge, data, tmp_path, **options)
        keys = [SampleKey(0, index, (1, 1, 1.0)) for index in range(4)]
        samples = TrainingSamples(trainer.files.train_tiles, tiny_bridge, 0)
        batches = [
            trainer.loaders._collate([samples[key] for key in keys[start : start + size]])
            for start in range(0, 4, size)
        ]
        tokens.append([batch.answer_tokens for batch in batches])
        parameters = [p for p in tiny_bridge.parameters() if p.requires_grad]
        optimizer = trainer.accelerator.prepare(torch.optim.SGD(parameters, lr=0.1))
        assert list(training_step._group(batches, trainer.config.accumulation_steps)) == [batches]
        train_step(trainer.accelerator, trainer.model, batches, optimizer, parameters, 1)
        after.append({n: t.clone() for n, t in tiny_bridge.state_dict().items()})
    assert len({sum(counts) for counts in tokens}) == 1 and tokens[1][0] != tokens[1][1]
    for other in after[1:]:
        for name, tensor in after[0].items():
            torch.testing.assert_close(other[name], tensor, atol=1e-6, rtol=1e-5)
    changed = sum(not torch.equal(tensor, state[name]) for name, tensor in after[0].items())
    assert changed > 20


def test_a_loss_that_is_no_number_names_the_step_and_the_tiles(data, tiny_bridge, tmp_path):
    trainer = make_trainer(tiny_bridge, data, tmp_path, batch_size=4)
    with torch.no_grad():
        tiny_bridge.fusion.queries.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"The loss is nan at step 1, with generated_00\d\d\.png,"):
        trainer.run()


def test_a_loss_that_explodes_is_named_too(data, tiny_bridge, tmp_path, monkeypatch):
    monkeypatch.setattr(training_step, "EXPLODED", 0.1)
    trainer = make_trainer(tiny_bridge, data, tmp_path, batch_size=4)
    with pytest.raises(ValueError, match=r"The loss is \d+\.\d+ at step 1, with generated_00\d\d"):
        trainer.run()


def test_a_gradient_that_is_no_number_is_named_before_any_weight_changes(
    data, tiny_bridge, tmp_path
):
    trainer = make_trainer(tiny_bridge, data, tmp_path, batch_size=2, accumulation_steps=2)
    before = {name: tensor.clone() for name, tensor in tiny_bridge.state_dict().items()}
    tiny_bridge.fusion.queries.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(ValueError, match=r"The gradient is nan at step 1, with generated_") as said:
        trainer.run()
    assert str(said.value).count("generated_") == 4  # of all batches of the step
    after = tiny_bridge.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_what_is_kept_of_a_bridge_is_what_trains(tiny_language, tiny_bridge):
    frozen = OlmoEarthVLMBridge("random-v1.2-nano", tiny_language, num_geo_queries=4, device="cpu")
    whole = OlmoEarthVLMBridge("random-v1.2-nano", tiny_language, use_lora=False, device="cpu")
    adapter, language = "adapter/adapter_model.safetensors", "language_model.safetensors"
    for bridge, files in (
        (frozen, {adapter}),
        (tiny_bridge, {adapter, "encoder.safetensors"}),
        (whole, {language}),
    ):
        kept = bridge.weights()
        assert kept.keys() == files | {"fusion.safetensors"}
        trains = sum(p.numel() for p in bridge.parameters() if p.requires_grad)
        assert sum(t.numel() for state in kept.values() for t in state.values()) == trains


def test_a_step_is_clipped(data, tiny_bridge, tmp_path):
    trainer = make_trainer(tiny_bridge, data, tmp_path, batch_size=4)
    parameters = [p for p in tiny_bridge.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    optimizer = trainer.accelerator.prepare(torch.optim.SGD(parameters, lr=1.0))
    batches = [next(iter(trainer.loaders.bridge(trainer.model)))]
    train_step(trainer.accelerator, trainer.model, batches, optimizer, parameters, 1)
    moved = sum((p - b).square().sum() for p, b in zip(parameters, before, strict=True)).sqrt()
    assert moved.item() == pytest.approx(GRADIENT_NORM, rel=1e-3)  # it would be more otherwise


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_rates_rise_and_fall_as_asked(schedule, data, tiny_bridge, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    monkeypatch.setattr(Trainer, "_validate", lambda *_: None)
    options = {"schedule": schedule, "warmup_steps": 2, "learning_rate": 1.0, "max_steps": 10}
    monkeypatch.setattr(training, "train_step", lambda *_: {"caption": torch.zeros(())})
    trainer = make_trainer(tiny_bridge, data, tmp_path, batch_size=1, **options)
    trainer.run()
    rates = [entry["learning_rate"] for entry in trainer.files.log]
    falls = {"cosine": lambda x: (1 + np.cos(np.pi * x)) / 2, "linear": lambda x: 1 - x}
    # Of each step itself: the first is taken at 0, and only a next one after the last would be 0.
    expected = [0.0, 0.5, *(falls[schedule](step / 8) for step in range(8))]
    assert rates == pytest.approx(expected)


def test_gradient_checkpointing_changes_no_gradient(data, tiny_bridge, tmp_path):
    samples = TrainingSamples(ChatEarthNet(data, "train"), tiny_bridge, 0)
    drawn = [samples[SampleKey(0, index, (1, 1, 1.0))] for index in range(2)]
    batch = tiny_bridge.collate([s.scene for s in drawn], [s.prompt for s in drawn])
    gradients = []
    for kept in (True, False):
        if not kept:
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


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precisions_train_and_go_on(precision, data, tmp_path, tiny_language):
    options = ["--batch_size=4", "--max_eval_samples=1", f"--mixed_precision={precision}"]
    for more in (["--max_steps=1", "--save_every=1"], ["--max_steps=2", "--resume=last"]):
        code, said = train(data, tmp_path / "run", tiny_language, *options, *more)
        assert code == 0, said
    log = json.loads((tmp_path / "run" / "training_log.json").read_text())
    assert log[-1]["step"] == 2 and 0 < log[-1]["loss"]["caption"] < 20
    weights = load_file(tmp_path / "run" / "fusion.safetensors")
    assert all(t.dtype == torch.float32 and t.isfinite().all() for t in weights.values())


def test_contrastive_loss_falls_as_scenes_come_to_their_sentences():
    rng = np.random.default_rng(0)
    sentences = torch.tensor(rng.normal(size=(16, 32)), dtype=torch.float32)
    sentences = torch.nn.functional.normalize(sentences, dim=1)
    other = sentences.roll(1, 0)
    near = torch.nn.functional.normalize(sentences + 0.3 * other, dim=1)
    assert contrastive_loss(sentences, sentences) < contrastive_loss(near, sentences)
    assert contrastive_loss(near, sentences) < contrastive_loss(other, sentences)
