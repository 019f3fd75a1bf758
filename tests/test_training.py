"""Training: the real script, as users start it, on generated tiles and a small language model."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from earthvlm.bridge import OlmoEarthVLMBridge
from earthvlm.chatearthnet import ChatEarthNet
from earthvlm.cli import main
from earthvlm.facts import LAND_COVER, SceneFacts
from earthvlm.objectives import contrastive_loss
from earthvlm.training_data import EpochSampler, TrainingSamples, balancing_weights
from tests.generated_chatearthnet import write_generated_chatearthnet
from tests.training_runs import TrainingRun


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    write_generated_chatearthnet(folder, train=12, val=4)
    return folder


def train(data: Path, output: Path, language: str, *options: str) -> tuple[int, str]:
    """The exit code of a run, and what it said."""
    arguments = [f"--data_dir={data}", f"--output_dir={output}", f"--vlm_model={language}"]
    arguments += ["--olmoearth_model=random-v1.2-nano", "--no-freeze_olmoearth", "--device=cpu"]
    arguments += ["--num_geo_queries=8", "--num_workers=0", *options]
    return TrainingRun(arguments, output.with_suffix(".log")).finish()


@pytest.mark.slow
def test_a_run_learns_saves_and_goes_on(data, tmp_path, tiny_language):
    options = ["--batch_size=4", "--num_epochs=4", "--encoder_epochs=2", "--encoder_batch_size=4"]
    options += [
        "--balance",
        "--query_epochs=1",
        "--save_every=5",
        "--validate_every=5",
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
    ]
    assert stages.count("validation") == 3  # at 5, 10 and at the end, step 12
    first, last = (
        next(e for e in entries if e["stage"] == "validation") for entries in (log, log[::-1])
    )
    assert last["loss"]["caption"] < first["loss"]["caption"]
    assert last["samples"][0].keys() == {"image", "answer", "truth"}
    assert (tmp_path / "run" / "loss_curve.png").stat().st_size > 5000
    checkpoints = {p.name for p in (tmp_path / "run" / "checkpoints").iterdir()}
    assert checkpoints == {"encoder-5", "queries-5", "queries-10", "5", "10", "last"}
    bridge = OlmoEarthVLMBridge.from_pretrained(tmp_path / "run", device="cpu")
    assert "12 steps on 12 Sentinel-2 tiles" in bridge.summary
    evaluated = ["evaluate", "--model_path", str(tmp_path / "run"), "--data_dir", str(data)]
    assert main([*evaluated, "--output", str(tmp_path / "results.json")]) == 0
    figures = json.loads((tmp_path / "results.json").read_text())["figures"]
    assert {f["tiles"] for f in figures} == {4}
    assert all(0 <= f["low"] <= f["value"] <= f["high"] for f in figures)
    assert all(f["blind"] <= 1 for f in figures if "recall" in f["name"])  # chance, too
    more = ["--max_steps=1", "--batch_size=4", f"--model_path={tmp_path / 'run'}"]
    code, said = train(data, tmp_path / "more", tiny_language, *more)
    assert code == 0, said


@pytest.mark.slow
def test_trackers_get_losses_and_sample_answers(data, tmp_path, tiny_language, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "database"))
    options = ["--max_steps=1", "--batch_size=4", "--validate_tiles=1"]
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


def test_an_epoch_holds_every_tile_once_and_one_layout_a_batch():
    sampler = EpochSampler(50, batch_size=8, seed=3)
    first = list(sampler)
    assert sorted(key.index for key in first) == list(range(50))
    assert first == list(sampler)
    for start in range(0, 50, 8):
        assert len({key.layout for key in first[start : start + 8]}) == 1
    sampler.epoch = 1
    assert [key.index for key in sampler] != [key.index for key in first]


def test_balanced_epochs_show_rare_land_cover_more_often():
    def facts(cover: int) -> SceneFacts:
        shares = np.zeros((2, 2, len(LAND_COVER)), np.float32)
        shares[..., cover] = 1
        return SceneFacts(shares, np.zeros((2, 2)), np.zeros((2, 2)))

    weights = balancing_weights([facts(1)] * 96 + [facts(3)] * 4)
    assert weights[-1] / weights[0] == pytest.approx(24**0.5)
    drawn = [k.index for k in EpochSampler(100, batch_size=8, seed=3, weights=weights)]
    assert len(drawn) == 100 and max(drawn) < 100
    assert 8 <= sum(index >= 96 for index in drawn) <= 30  # 17 expected, 4 unbalanced


def test_batches_by_length_are_padded_little(practice_data, tiny_bridge):
    tiles = ChatEarthNet(practice_data / "s2_practice", "train")
    samples = TrainingSamples(tiles, tiny_bridge, seed=0)
    layouts = {(1, 1, 1): 1.0}

    def padding(sampler: EpochSampler) -> float:
        lengths = np.array([len(samples[key].prompt.ids) for key in list(sampler)[:192]])
        return 1 - lengths.sum() / lengths.reshape(-1, 8).max(1).sum() / 8

    by_length = EpochSampler(len(tiles), 8, 0, layouts, length_of=samples.length_of)
    assert sorted(key.index for key in by_length) == list(range(len(tiles)))
    assert padding(by_length) < 0.15 < padding(EpochSampler(len(tiles), 8, 0, layouts))


def test_a_sample_depends_on_its_key_alone(data, tiny_bridge):
    tiles = ChatEarthNet(data, "train")
    keys = list(EpochSampler(len(tiles), 4, seed=0))
    samples = TrainingSamples(tiles, tiny_bridge, seed=0)
    again = TrainingSamples(tiles, tiny_bridge, seed=0)
    backwards = [again[key] for key in keys[::-1]][::-1]
    for one, other in zip([samples[key] for key in keys], backwards, strict=True):
        assert torch.equal(one.scene.pixels, other.scene.pixels)
        assert one.prompt == other.prompt and one.sentence == other.sentence


def test_tiles_without_facts_train_on_their_captions(data, tiny_bridge, tmp_path):
    for folder in data.iterdir():
        if folder.name != "facts.json":
            (tmp_path / folder.name).symlink_to(folder)
    tiles = ChatEarthNet(tmp_path, "train")
    sample = TrainingSamples(tiles, tiny_bridge, 0)[next(iter(EpochSampler(len(tiles), 4, 0)))]
    assert sample.facts is None
    assert any(sample.sentence in tile.captions for tile in tiles)


def test_contrastive_loss_falls_as_scenes_come_to_their_sentences():
    rng = np.random.default_rng(0)
    sentences = torch.tensor(rng.normal(size=(16, 32)), dtype=torch.float32)
    sentences = torch.nn.functional.normalize(sentences, dim=1)
    other = sentences.roll(1, 0)
    near = torch.nn.functional.normalize(sentences + 0.3 * other, dim=1)
    assert contrastive_loss(sentences, sentences) < contrastive_loss(near, sentences)
    assert contrastive_loss(near, sentences) < contrastive_loss(other, sentences)
