"""The segmentation stage: its loss, its samples, and a run that learns to map."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.data.labelled_patches import LabelFile, LabelledPatches
from earthvlm.data.pixel_labels import ANY, PixelLabels, cover_set
from earthvlm.scenes.land_cover import COVERS
from earthvlm.training.batches.pixel_samples import LAYOUTS, PixelSamples
from earthvlm.training.batches.sampler import SampleKey
from earthvlm.training.losses.segmentation_loss import segmentation_loss
from tests.support.labelled_patches import write_labelled_patches
from tests.support.training_runs import make_trainer


def logits_for(cover: str, side: int = 16) -> torch.Tensor:
    logits = torch.zeros(1, len(COVERS), side, side)
    logits[:, COVERS.index(cover)] = 20
    return logits.requires_grad_()


def labels_of(possible: int, shares: dict[str, float] | None = None, side: int = 16):
    grid = np.full((side, side), possible, np.uint16)
    values = np.array([[shares.get(cover, 0.0) for cover in COVERS]] if shares else [], np.float32)
    areas = np.full((side, side), 0 if shares else -1, np.int16)
    return PixelLabels(grid, areas, values.reshape(-1, len(COVERS)))


def test_loss_accepts_every_possible_cover_and_no_other():
    either = labels_of(cover_set(["water", "tree cover"]))
    assert segmentation_loss(logits_for("water"), [either]) < 1e-3
    assert segmentation_loss(logits_for("cloud"), [either]) > 10
    assert segmentation_loss(logits_for("cloud"), [labels_of(ANY)]) == 0


def test_area_loss_wants_its_shares_and_has_finite_gradients():
    half = labels_of(ANY, {"water": 0.5, "tree cover": 0.5})
    logits = torch.zeros(1, len(COVERS), 16, 16)
    logits[:, 0, :8] = logits[:, 1, 8:] = 20
    logits.requires_grad_()
    right = segmentation_loss(logits, [half])
    wrong = logits_for("water")
    assert right < 1e-3 < 0.5 < segmentation_loss(wrong, [half])
    (right + segmentation_loss(wrong, [half])).backward()
    assert torch.isfinite(logits.grad).all() and torch.isfinite(wrong.grad).all()


@pytest.fixture
def patches(tmp_path):
    folder = tmp_path / "patches"
    folder.mkdir()
    return LabelledPatches(folder, LabelFile.read(write_labelled_patches(folder)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_samples_of_a_layout_have_one_size_and_repeat(data, patches, tiny_bridge, layout):
    tiles = ChatEarthNet(data, "train")
    samples = PixelSamples(tiles, patches, tiny_bridge.encoder.prepare, 8, seed=3)
    rows, _, zoom = layout
    side = int(64 * rows * zoom)
    names = set()
    for index in range(12):
        sample, again = (samples[SampleKey(0, index, layout)] for _ in range(2))
        assert sample.scene.pixels.shape == (side, side, 12)
        assert sample.labels.possible.shape == (side, side)
        assert torch.equal(sample.scene.pixels, again.scene.pixels)
        names.add(sample.name)
    assert {"drawn"} < names
    assert not any(name.startswith("far") for name in names)


@pytest.mark.slow
def test_run_learns_to_map_and_saves_the_head(data, tmp_path, tiny_bridge):
    label_file = write_labelled_patches(tmp_path)
    options = {"num_epochs": 0, "segmentation_epochs": 16, "encoder_batch_size": 4}
    options |= {"segmentation_learning_rate": 4e-3}
    options |= {"patches_dir": str(tmp_path), "patch_labels": str(label_file), "warmup_steps": 3}
    tiny_bridge.add_segmentation_head()
    make_trainer(tiny_bridge, data, tmp_path / "run", **options).run()
    log = json.loads((tmp_path / "run" / "training_log.json").read_text())
    losses = [entry["loss"]["segmentation"] for entry in log]
    assert {entry["stage"] for entry in log} == {"segmentation"}
    assert losses[-1] < 0.7 * losses[0]
    bridge = OlmoEarthVLMBridge.from_pretrained(tmp_path / "run", device="cpu")
    held = LabelledPatches(tmp_path, LabelFile.read(label_file), held_out=True)
    found = bridge.segment(held.read(held.patches[0])).cover_map
    assert found.window(slice(None), slice(0, 20)).shares["water"] > 0.8
