"""Whole runs of the training script, on generated tiles with a tiny language model."""

from __future__ import annotations

import json
import shlex
import sqlite3
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.cli import build_parser, main
from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.training.trainer import Trainer
from tests.support.training_runs import run_training


def options_for(data: Path, output: Path, language: str, *options: str) -> list[str]:
    arguments = [f"--data_dir={data}", f"--output_dir={output}", f"--vlm_model={language}"]
    arguments += ["--olmoearth_model=random-v1.2-nano", "--no-freeze_olmoearth", "--device=cpu"]
    arguments += ["--num_geo_queries=8", "--num_workers=0", "--accumulation_steps=1"]
    return [*arguments, "--batch_size=4", "--max_eval_samples=1", *options]


def read_log(output: Path) -> list[dict]:
    return json.loads((output / "training_log.json").read_text())


@pytest.fixture(scope="module")
def trained(data, tiny_language, tmp_path_factory) -> Path:
    """The output folder of a run through every stage."""
    output = tmp_path_factory.mktemp("runs") / "run"
    options = ["--num_epochs=2", "--encoder_epochs=2", "--encoder_batch_size=4", "--query_epochs=1"]
    options += ["--retrieval_head_epochs=3", "--class_balanced_sampling", "--save_every=5"]
    options += ["--validate_every=3", "--learning_rate=0.003"]
    run_training(options_for(data, output, tiny_language, *options), output.with_suffix(".log"))
    return output


@pytest.mark.slow
def test_run_goes_through_all_stages_and_learns(trained):
    log = read_log(trained)
    stages = [entry["stage"] for entry in log]
    in_order = list(dict.fromkeys(stage for stage in stages if stage != "validation"))
    assert in_order == ["encoder", "queries", "bridge", "head"]
    first, last = (entry for entry in log if entry["stage"] == "validation")  # at steps 3 and 6
    assert last["loss"]["caption"] < first["loss"]["caption"]
    assert last["samples"][0].keys() == {"image", "answer", "reference"}


@pytest.mark.slow
def test_training_computes_no_denormals(data, tmp_path, tiny_language, monkeypatch):
    def is_flushed() -> bool:
        return (torch.tensor(2e-39) * torch.tensor(0.5)).item() == 0

    seen, run = [], Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self: (seen.append(is_flushed()), run(self)))
    options = options_for(data, tmp_path / "run", tiny_language, "--max_steps=1")
    assert not is_flushed()
    assert main(["train", *options]) == 0
    assert seen == [True] and not is_flushed()


@pytest.mark.slow
def test_run_saves_bridge_curve_and_checkpoints(trained):
    assert (trained / "loss_curve.png").stat().st_size > 5000
    checkpoints = {path.name for path in (trained / "checkpoints").iterdir()}
    steps = {"encoder-5", "encoder-6", "queries-5", "queries-10", "queries-12", "5", "6", "head-3"}
    assert checkpoints == steps | {"last"}
    bridge = OlmoEarthVLMBridge.from_pretrained(trained, device="cpu")
    assert " on 12 Sentinel-2 tiles" in bridge.summary
    assert bridge.config.training["steps"] == 3
    assert bridge.config.training_tiles.side == 64
    assert "--data_dir DATA --output_dir RUN1 " in bridge.config.training["command"]


@pytest.mark.slow
def test_second_run_trains_only_the_search_head(trained, data, tmp_path, tiny_language):
    options = ["--num_epochs=0", "--retrieval_head_epochs=1", f"--model_path={trained}"]
    output = tmp_path / "more"
    printed = run_training(options_for(data, output, tiny_language, *options), tmp_path / "log")
    last = printed.splitlines()[-1]
    assert last.startswith(
        f"earthvlm: the trained bridge is in {output}; measure it with `earthvlm"
    )
    _, evaluate, _, push, _ = last.split("`")
    parsed = build_parser().parse_args(shlex.split(evaluate)[1:])
    assert (parsed.data_dir, parsed.model_path) == (str(data), str(output))
    assert build_parser().parse_args(shlex.split(push)[1:]).folder == str(output)
    for name in ("encoder.safetensors", "adapter/adapter_model.safetensors"):
        assert (trained / name).read_bytes() == (output / name).read_bytes()
    before, after = (load_file(folder / "fusion.safetensors") for folder in (trained, output))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head"}
    record = json.loads((output / "config.json").read_text())["training"]
    assert "--output_dir RUN2 " in record["command"] and "--model_path RUN1" in record["command"]
    assert "--output_dir RUN1 " in record["earlier"][0]["command"]


@pytest.mark.slow
@pytest.mark.one_setting
@pytest.mark.parametrize(("precision", "tracker"), [("bf16", "tensorboard"), ("fp16", "trackio")])
def test_half_precision_runs_resume_and_log_to_trackers(
    precision, tracker, data, tmp_path, tiny_language, monkeypatch
):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    output = tmp_path / "run"
    options = [f"--mixed_precision={precision}", f"--log_with={tracker}"]
    for more in (["--max_steps=1", "--save_every=1"], ["--max_steps=2", "--resume=last"]):
        arguments = options_for(data, output, tiny_language, *options, *more)
        run_training(arguments, tmp_path / "log")
    log = read_log(output)
    assert log[-1]["step"] == 2 and 0 < log[-1]["loss"]["caption"] < 20
    weights = load_file(output / "fusion.safetensors")
    assert all(t.dtype == torch.float32 and t.isfinite().all() for t in weights.values())
    read = {"tensorboard": assert_logged_to_tensorboard, "trackio": assert_logged_to_trackio}
    read[tracker](tmp_path, ChatEarthNet(data, "val").tiles[0].name)


def assert_logged_to_tensorboard(folder: Path, sample: str) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "run" / "earthvlm")).Reload()
    assert {"bridge/caption", "validation/caption"} <= set(events.Tags()["scalars"])
    assert events.Tags()["tensors"] == ["samples/text_summary"]
    tensor = events.Tensors("samples/text_summary")[0].tensor_proto
    assert sample.encode() in tensor.string_val[0]


def assert_logged_to_trackio(folder: Path, sample: str) -> None:
    with sqlite3.connect(folder / "trackio" / "earthvlm.db") as database:
        logged = [json.loads(row[0]) for row in database.execute("select metrics from metrics")]
    assert {"bridge/caption", "validation/caption", "samples"} <= set().union(*logged)
    assert any(sample in str(entry.get("samples")) for entry in logged)


def test_missing_data_is_one_sentence(tmp_path, tiny_language, capfd):
    (tmp_path / "notes.txt").write_text("No captions.")
    assert main(["train", *options_for(tmp_path, tmp_path / "run", tiny_language)]) == 2
    output = capfd.readouterr().err
    sentences = [line for line in output.splitlines() if line.startswith("earthvlm:")]
    assert len(sentences) == 1 and "holds no captions or conversations" in sentences[0]
    assert "Traceback" not in output
