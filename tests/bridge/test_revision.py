"""A bridge's revision changes with all that changes embeddings or answers."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

import numpy as np
import pytest

from earthvlm.bridge.config import (
    DESCRIPTIVE_ENTRIES,
    LANGUAGE_FILE,
    SEGMENTATION_FILE,
    VISION_FILE,
    BridgeConfig,
    bridge_revision,
    list_parts,
)
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.embeddings.schema import Provenance
from earthvlm.scenes.analysis.distribution_shift import TrainingStatistics
from earthvlm.search.query import check_bridge
from tests.conftest import draw_adapter, random_scene
from tests.support.made_scenes import make_scene

# The adapter's own file decides about the last two.
ELSEWHERE = ("format_version", "lora_r", "lora_alpha")
ENTRIES = tuple(field.name for field in fields(BridgeConfig) if field.name not in ELSEWHERE)


def change(value: object) -> object:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    if value is None:
        return asdict(TrainingStatistics({"B02": (100, 900)}, 64))
    return {"steps": 9} if isinstance(value, dict) else value[:-1]


@pytest.mark.parametrize("name", ENTRIES)
def test_revision_depends_on_computing_entries(saved, name):
    for file in (VISION_FILE, LANGUAGE_FILE, SEGMENTATION_FILE):  # read where entries change
        (saved / file).write_bytes(b"weights")
    config = json.loads((saved / "config.json").read_text())
    config["use_vlm_vision"] |= name == "freeze_vlm_vision"
    (saved / "config.json").write_text(json.dumps(config))
    before = bridge_revision(saved)
    config[name] = change(config[name])
    (saved / "config.json").write_text(json.dumps(config))
    assert (bridge_revision(saved) == before) == (name in DESCRIPTIVE_ENTRIES)


def test_revision_depends_on_weight_files_only(saved):
    before = bridge_revision(saved)
    (saved / "stray.safetensors").write_bytes(b"left behind")
    (saved / "README.md").write_text("A card.")
    assert bridge_revision(saved) == before
    parts = list_parts(BridgeConfig.read(saved))
    files = [part for part in parts if part.endswith(".safetensors")]
    assert len(files) == 3
    for file in files:
        content = (saved / file).read_bytes()
        (saved / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert bridge_revision(saved) != before
        (saved / file).write_bytes(content)
    assert bridge_revision(saved) == before


def test_index_rejects_other_embedding_patch_size(tiny_bridge, tmp_path):
    load, revisions, vectors = OlmoEarthVLMBridge.from_pretrained, [], []
    for patch in (8, 4):
        tiny_bridge.set_patch_sizes(8, patch)
        tiny_bridge.save_pretrained(tmp_path / str(patch))
        bridge = load(tmp_path / str(patch), "cpu")
        assert bridge.revision == tiny_bridge.revision
        revisions.append(bridge.revision)
        vectors.append(bridge.embed([make_scene("a")]))
    assert not np.allclose(*vectors, atol=1e-3)
    with pytest.raises(ValueError, match="was made by bridge a at revision"):
        check_bridge(Provenance("a", revisions[0]), bridge)


def test_adapter_scale_changes_revision_and_answers(tiny_bridge, tmp_path):
    draw_adapter(tiny_bridge)
    tiny_bridge.save_pretrained(tmp_path)
    path = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    losses, revisions = [], []
    talk = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A lake."}]
    for alpha in (32, 64):
        path.write_text(json.dumps(config | {"lora_alpha": alpha}))
        bridge = OlmoEarthVLMBridge.from_pretrained(tmp_path, "cpu")
        losses.append(bridge.answer_losses([random_scene()], [talk])[0][0])
        revisions.append(bridge.revision)
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)
    assert revisions[0] != revisions[1]


def test_unsaved_bridges_have_unique_revisions(tiny_bridge, tmp_path):
    tiny_bridge.save_pretrained(tmp_path)
    bridge = OlmoEarthVLMBridge.from_pretrained(tmp_path, "cpu", trainable=True)
    revisions = [bridge.revision]
    bridge.set_patch_sizes(4, 4)
    revisions.append(bridge.revision)
    bridge.train()  # weights may change
    revisions.append(bridge.eval().revision)
    bridge.save_pretrained(tmp_path)
    revisions.append(bridge.revision)
    assert len(set(revisions)) == 4 and revisions[-1] == bridge_revision(tmp_path)
