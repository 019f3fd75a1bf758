"""Whole runs of the training script, on generated tiles with a tiny language model."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.cli import main
from earthvlm.data.chatearthnet import ChatEarthNet
from tests.support.training_runs import TrainingRun


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
