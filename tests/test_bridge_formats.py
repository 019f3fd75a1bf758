"""Bridges that another earthvlm wrote: older ones are read, newer ones name what reads them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from earthvlm import __version__
from earthvlm.bridge import OlmoEarthVLMBridge
from tests.conftest import random_scene

ADDED_IN_2 = ("olmoearth_revision", "patch_size", "use_vlm_vision", "freeze_vlm_vision")
ADDED_IN_3 = ("embedding_patch_size",)


def test_a_bridge_of_the_first_format_answers_as_before(tiny_bridge, tmp_path):
    tiny_bridge.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"format_version": 1}
    for name in (*ADDED_IN_2, *ADDED_IN_3, "earthvlm_version"):
        del config[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = load_file(tmp_path / "fusion.safetensors")
    numbers = {name: tensor[0] for name, tensor in state.items() if tensor.shape == (1,)}
    assert numbers  # which had no dimension then
    save_file(state | numbers, tmp_path / "fusion.safetensors")

    again = OlmoEarthVLMBridge.from_pretrained(tmp_path, "cpu", torch.float32)
    scene = random_scene()
    assert again.generate(scene, max_length=12) == tiny_bridge.generate(scene, max_length=12)
    again.save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (written["format_version"], written["earthvlm_version"]) == (3, __version__)


def test_a_bridge_of_the_second_format_embeds_in_the_patches_it_talks_about(tiny_bridge, tmp_path):
    tiny_bridge.set_patch_sizes(4, 4)
    tiny_bridge.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"format_version": 2}
    for name in ADDED_IN_3:
        del config[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = OlmoEarthVLMBridge.from_pretrained(tmp_path, "cpu", torch.float32)
    assert again.config.embedding_patch_size == 4
    scenes = [random_scene()]
    np.testing.assert_allclose(again.embed(scenes), tiny_bridge.embed(scenes), atol=1e-5)


def test_a_bridge_of_a_newer_format_names_what_reads_it(saved):
    config = json.loads((saved / "config.json").read_text())
    assert config["earthvlm_version"] == __version__
    config |= {"format_version": 4, "earthvlm_version": "7.1", "sees_in_the_dark": True}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"reads \(3\): pip install 'earthvlm>=7\.1'\.$"):
        OlmoEarthVLMBridge.from_pretrained(saved)
