"""What a user types, as it is documented: names of models, defaults of commands, flags."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from olmoearth_pretrain_minimal import ModelID

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.cli import build_parser, main
from tests.conftest import ask_hub_at, random_scene
from tests.storage.test_hub import _files, write_olmoearth
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.moondream_reference import write_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
DESCRIBE = ["describe", "--prompt", "What is the dominant land cover?", "--max_length", "8"]
DESCRIBE += ["--temperature", "0.7", "--top_p", "0.9", "--top_k", "50", "--device", "cpu"]


@pytest.fixture
def released_models(hub, tmp_path, monkeypatch) -> None:
    """The default encoder and language model on the Hub, small and random."""
    (tmp_path / "moondream").mkdir()
    write_checkpoint(tmp_path / "moondream", "2024")
    moondream = hub.repository("vikhyatk/moondream2")
    moondream.commit(_files(tmp_path / "moondream"), "2024-08-26")
    olmoearth = write_olmoearth(tmp_path / "olmoearth", "v1", monkeypatch)
    hub.repository("allenai/OlmoEarth-v1-Nano").commit(_files(olmoearth))


@pytest.mark.usefixtures("released_models")
def test_training_runs_with_the_default_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_generated_chatearthnet(tmp_path / "chatearthnet_data", train=4, val=1)
    command = "--olmoearth_model OLMOEARTH_V1_NANO --vlm_model vikhyatk/moondream2"
    command += " --fusion_type geospatial_queries --num_geo_queries 32 --freeze_olmoearth"
    command += " --use_lora --lora_r 16 --lora_alpha 32 --batch_size 4 --accumulation_steps 4"
    command += " --num_epochs 1 --learning_rate 1e-4 --warmup_steps 1 --weight_decay 0.01"
    command += " --save_every 500 --validate_every 200 --device cpu"
    assert main(["train", *command.split(), "--num_workers=0"]) == 0
    output = tmp_path / "olmoearth_vlm_checkpoints"
    config = json.loads((output / "config.json").read_text())
    assert config["olmoearth_model_id"] == "OlmoEarth-v1-Nano"
    assert config["training"]["steps"] == 1
    again = OlmoEarthVLMBridge.from_pretrained(output, "cpu")
    assert isinstance(again.generate(random_scene(), max_length=3), str)


def test_training_defaults_are_those_documented():
    arguments = build_parser().parse_args(["train"])
    assert arguments.data_dir == "./chatearthnet_data"
    assert arguments.output_dir == "./olmoearth_vlm_checkpoints"
    assert arguments.fusion_type == "geospatial_queries"
    assert (arguments.batch_size, arguments.accumulation_steps) == (4, 4)


def test_missing_data_names_the_command_that_fetches_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--device=cpu"]) == 2
    said = capsys.readouterr().err
    assert (
        "The folder chatearthnet_data is missing: check its path." in said and said.count("\n") == 1
    )
    assert "`earthvlm download chatearthnet --data_dir chatearthnet_data`" in said


@pytest.mark.usefixtures("released_models")
@pytest.mark.parametrize("model_path", ["empty", "./olmoearth_vlm_checkpoints"])
def test_describe_builds_an_untrained_bridge_and_says_so(model_path, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    random_scene().save(tmp_path / "scene.tif")
    options = [*DESCRIBE, "--model_path", model_path]
    assert main([*options, "--image_path", "scene.tif"]) == 0
    captured = capfd.readouterr()
    assert f"{model_path} holds no bridge" in captured.err and "untrained" in captured.err
    assert captured.err.count("earthvlm: ") == 1  # next to the progress of downloads
    assert main([*options, "--image_path", "missing.tif"]) == 2  # before any model
    assert "untrained" not in capfd.readouterr().err


def test_describe_without_the_hub_is_one_sentence(tmp_path, monkeypatch, capfd):
    ask_hub_at("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    random_scene().save(tmp_path / "scene.tif")
    options = ["--model_path", str(tmp_path / "none"), "--image_path", str(tmp_path / "scene.tif")]
    assert main([*DESCRIBE, *options]) == 2
    said = capfd.readouterr()
    assert said.out == "" and "cannot be fetched to build an untrained one" in said.err
    assert "Traceback" not in said.err


def test_search_needs_a_trained_bridge(tmp_path, capfd):
    random_scene().save(tmp_path / "scene.tif")
    (tmp_path / "empty").mkdir()
    options = ["--scene", str(tmp_path / "scene.tif"), "--model_path", str(tmp_path / "empty")]
    assert main(["search", *options]) == 2
    assert "config.json" in capfd.readouterr().err


def test_describe_takes_every_flag_with_the_bundled_bridge(tmp_path, capfd):
    random_scene().save(tmp_path / "scene.tif")
    options = ["--model_path", "bundled", "--image_path", str(tmp_path / "scene.tif")]
    assert main([*DESCRIBE, *options]) == 0
    assert capfd.readouterr().out.strip()


@pytest.mark.usefixtures("released_models")
def test_a_bridge_is_built_by_the_enum():
    bridge = OlmoEarthVLMBridge(ModelID.OLMOEARTH_V1_NANO, device="cpu", dtype=torch.float32)
    assert bridge.config.olmoearth_model_id == "OlmoEarth-v1-Nano"
    assert type(bridge.config.olmoearth_model_id) is str
