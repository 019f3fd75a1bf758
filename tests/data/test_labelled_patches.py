"""Labelled patches: what masks, label files and spectra say, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from earthvlm.data.labelled_patches import LabelFile, LabelledPatches
from earthvlm.data.pixel_labels import ANY, cover_set
from tests.support.labelled_patches import write_labelled_patches


@pytest.fixture
def labels(tmp_path):
    return LabelFile.read(write_labelled_patches(tmp_path))


def test_held_out_places_are_left_out(tmp_path, labels):
    assert [p.id for p in LabelledPatches(tmp_path, labels).patches] == ["shore_a", "plain_b"]
    held = LabelledPatches(tmp_path, labels, held_out=True)
    assert [p.id for p in held.patches] == ["far_c"]


def test_scene_has_the_date_and_place_of_its_patch(tmp_path, labels):
    patches = LabelledPatches(tmp_path, labels)
    scene = patches.read(patches.patches[0])
    assert str(scene.date) == "2020-05-01" and scene.longitude == 10.0
    assert len(scene.bands) == 12 and scene.height == 48


def test_masks_label_file_and_spectra_agree_on_pixels(tmp_path, labels):
    patches = LabelledPatches(tmp_path, labels)
    shore, plain = patches.patches
    found = patches.read_labels(shore, patches.read(shore)).possible
    # The mask says crops or soil, the label file leaves soil, and the spectrum of water neither:
    # the mask and the file outweigh it.
    assert set(found[:, :24].ravel()) == {cover_set(["bare soil"])}
    assert set(found[:, 24:].ravel()) == {cover_set(["tree cover"])}
    found = patches.read_labels(plain, patches.read(plain)).possible
    assert set(found[:10].ravel()) == {cover_set(["bare soil"])}
    assert cover_set(["water"]) & np.bitwise_or.reduce(found[10:].ravel()) == 0
    assert (found[10:, 30:] & cover_set(["cropland or grass"])).all()


def test_pixels_without_data_can_be_anything(tmp_path, labels):
    with np.load(tmp_path / "drawn.npz") as file:
        arrays = dict(file)
    arrays["plain_b"][:, 40:] = 0
    np.savez(tmp_path / "drawn.npz", **arrays)
    patches = LabelledPatches(tmp_path, labels)
    plain = patches.patches[1]
    found = patches.read_labels(plain, patches.read(plain)).possible
    assert (found[40:] == ANY).all() and (found[:40] != ANY).all()


def test_wrong_folders_and_files_are_named(tmp_path, labels):
    with pytest.raises(FileNotFoundError, match=r"holds no manifest\.json"):
        LabelledPatches(tmp_path / "none", labels)
    (tmp_path / "drawn.npz").unlink()
    patches = LabelledPatches(tmp_path, labels)
    with pytest.raises(FileNotFoundError, match=r"drawn\.npz is missing"):
        patches.read(patches.patches[0])
    (tmp_path / "manifest.json").write_text(json.dumps({"patches": []}))
    with pytest.raises(ValueError, match="is no manifest of labelled patches"):
        LabelledPatches(tmp_path, labels)
    (tmp_path / "labels.json").write_text(json.dumps({"covers": {"shore": ["sea"]}}))
    with pytest.raises(ValueError, match=r"labels\.json is no label file: 'sea' is no land cover"):
        LabelFile.read(tmp_path / "labels.json")
