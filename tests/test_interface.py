"""What a user types, as it is documented: names of models, defaults of commands, flags."""

from __future__ import annotations

import json

import pytest
import torch
from olmoearth_pretrain_minimal import ModelID

import train_accelerate
from earthvlm.bridge import OlmoEarthVLMBridge
from tests.conftest import random_scene
from tests.generated_chatearthnet import write_generated_chatearthnet
from tests.moondream_reference import write_checkpoint
from tests.test_downloads import _files, write_olmoearth


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
    assert train_accelerate.main([*command.split(), "--num_workers=0"]) == 0
    output = tmp_path / "olmoearth_vlm_checkpoints"
    config = json.loads((output / "config.json").read_text())
    assert config["olmoearth_model_id"] == "OlmoEarth-v1-Nano"
    assert config["training"]["steps"] == 1
    again = OlmoEarthVLMBridge.from_pretrained(output, "cpu")
    assert isinstance(again.generate(random_scene(), max_length=3), str)


def test_training_defaults_are_those_documented():
    arguments = train_accelerate.parse_arguments([])
    assert arguments.data_dir == "./chatearthnet_data"
    assert arguments.output_dir == "./olmoearth_vlm_checkpoints"
    assert arguments.fusion_type == "geospatial_queries"
    assert (arguments.batch_size, arguments.accumulation_steps) == (4, 4)


def test_missing_data_names_the_command_that_fetches_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train_accelerate.main(["--device=cpu"]) == 2
    said = capsys.readouterr().err
    assert "The folder chatearthnet_data is missing" in said and said.count("\n") == 1
    assert "`earthvlm download chatearthnet --data_dir chatearthnet_data`" in said


@pytest.mark.usefixtures("released_models")
def test_a_bridge_is_built_by_the_enum():
    bridge = OlmoEarthVLMBridge(ModelID.OLMOEARTH_V1_NANO, device="cpu", dtype=torch.float32)
    assert bridge.config.olmoearth_model_id == "OlmoEarth-v1-Nano"
    assert type(bridge.config.olmoearth_model_id) is str
