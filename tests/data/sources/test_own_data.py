"""Datasets of one's own: folders with metadata, conversation files, Parquet files, mixtures."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from earthvlm.cli import main
from earthvlm.data.sources.mixture import open_mixture
from earthvlm.data.sources.opening import open_scenes
from earthvlm.data.sources.weighted_source import WeightedSource
from earthvlm.training.config import TrainingConfig
from earthvlm.training.dataloaders import StageLoaders
from earthvlm.training.step import read_batches
from earthvlm.training.training_tiles import open_training_tiles
from tests.conftest import random_scene
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.own_data import (
    write_conversation_files,
    write_metadata_folder,
    write_parquet,
)

CAPTION = "A lake."
QUESTION = [
    {"from": "human", "value": "<image>\nIs there water?"},
    {"from": "gpt", "value": "Yes."},
]


def write_lines(folder: Path, *rows: dict, name: str = "metadata.jsonl") -> Path:
    """Write metadata, and a scene for each row that names an image that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        image = folder / str(row.get("file_name") or "none.tif")
        image.parent.mkdir(parents=True, exist_ok=True)
        if not image.exists():
            random_scene(16, 16, seed=number).save(image)
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


FORMS = {
    "jsonl": write_metadata_folder,
    "csv": lambda data, folder: write_metadata_folder(data, folder, "csv"),
    "parquet": lambda data, folder: write_metadata_folder(data, folder, "parquet"),
    "conversations": write_conversation_files,
}


@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "captions"])
@pytest.mark.parametrize("form", FORMS)
def test_forms_give_the_batches_of_chatearthnet(form, labelled, tmp_path, tiny_bridge):
    write_generated_chatearthnet(tmp_path / "data", train=6, val=2)
    if not labelled:
        (tmp_path / "data" / "labels.json").unlink()
    FORMS[form](tmp_path / "data", tmp_path / "own")
    batches = []
    for data in ("data", "own"):
        options = {"batch_size": 2, "num_workers": 0, "seed": 5}
        config = TrainingConfig(str(tmp_path / data), str(tmp_path / "run"), **options)
        accelerator = Accelerator(cpu=True)
        train, val = open_training_tiles(config, accelerator)
        assert (len(train), len(val)) == (6, 2)
        loader = StageLoaders(tiny_bridge, config, accelerator, train).bridge(tiny_bridge)
        batches.append(list(read_batches(loader)))
    assert len(batches[0]) == 3
    for one, other in zip(*batches, strict=True):
        assert one.sentences == other.sentences
        assert torch.equal(one.bridge.ids, other.bridge.ids)
        assert torch.equal(one.bridge.labels, other.bridge.labels)
        for scene, same in zip(one.scenes, other.scenes, strict=True):
            assert all(
                np.array_equal(a, b) for a, b in zip(pixels(scene), pixels(same), strict=True)
            )


def pixels(scene: object) -> list[np.ndarray]:
    return [np.asarray(v) for v in vars(scene).values() if isinstance(v, np.ndarray | torch.Tensor)]


def test_columns_become_captions_questions_and_places(tmp_path):
    parts = [{"type": "image"}, {"type": "text", "text": "Where?"}]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "There."},
    ]
    describe = "Please describe this image in detail."
    talk = [*QUESTION, {"from": "human", "value": "And?"}]
    rows = [
        {"file_name": "a.tif", "text": [CAPTION, None, " Water. "], "date": "2021-07-16T10:50:31"},
        {"file_name": "b.tif", "question": "How many?", "answer": 3, "longitude": 2.5},
        {"file_name": "b.tif", "question": ["Is it?", "Any?"], "answer": [True, "None."]},
        {"file_name": "sub/c.tif", "conversations": talk, "longitude": 2.5, "latitude": 42},
        {"file_name": "d.tif", "messages": messages},
        {"file_name": "e.tif", "question": describe, "answer": CAPTION},
        {"file_name": "f.tif", "text": "Held.", "split": "validation"},
    ]
    dataset = open_scenes(write_lines(tmp_path, *rows), "train")
    a, b, c, d, e = dataset.tiles
    assert a.captions == (CAPTION, "Water.") and not a.conversations
    assert [talk[1]["content"] for talk in b.conversations] == ["3", "yes", "None."]
    assert c.name == "sub/c.tif"
    assert [m["content"] for m in c.conversations[0]] == ["Is there water?", "Yes."]
    assert [m["content"] for m in d.conversations[0]] == ["Where?", "There."]
    assert e.captions == (CAPTION,) and not e.conversations
    scene = dataset.read(a)
    assert scene.date == datetime.date(2021, 7, 16) and (scene.width, scene.name) == (16, "a")
    assert (dataset.read(c).longitude, dataset.read(c).latitude) == (2.5, 42)
    assert [tile.name for tile in open_scenes(tmp_path, "val").tiles] == ["f.tif"]
    with pytest.raises(FileNotFoundError, match=r"has no split 'test': it has train, val"):
        open_scenes(tmp_path, "test")


def test_folders_name_splits(tmp_path):
    write_lines(tmp_path / "train", {"file_name": "1.tif", "text": "one"})
    write_lines(tmp_path / "validation", {"file_name": "1.tif", "text": "two"})
    assert [tile.name for tile in open_scenes(tmp_path, "train").tiles] == ["train/1.tif"]
    assert [tile.name for tile in open_scenes(tmp_path, "val").tiles] == ["validation/1.tif"]


def test_without_a_validation_split_some_tiles_are_held_out(tmp_path):
    rows = [{"file_name": "same.tif", "text": "first"}]
    write_lines(tmp_path, *rows)
    for number in range(99):
        (tmp_path / f"{number}.tif").symlink_to(tmp_path / "same.tif")
        rows.append({"file_name": f"{number}.tif", "text": "a scene"})
    write_lines(tmp_path, *rows)
    train, val = (open_scenes(tmp_path, split) for split in ("train", "val"))
    names = [{tile.name for tile in each.tiles} for each in (train, val)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 100
    assert 1 <= len(val) <= 12
    assert train.notes == [
        f"{tmp_path} names no validation split, so {len(val)} of its 100 tiles, chosen by their "
        "names, are for validation."
    ]


TALK = {"image": "a.png", "conversations": QUESTION}
MALFORMED = {
    "entry": ([TALK, 3], "entry 2 is no object"),
    "image": ([TALK | {"image": 7}], "entry 1 names the image '7', which is no path"),
    "outside": ([TALK | {"image": "../a.png"}], "entry 1 names the image '../a.png', which is out"),
    "absolute": (
        [TALK | {"image": "/etc/a.png"}],
        "entry 1 names the image '/etc/a.png', which is",
    ),
    "roles": ([TALK | {"conversations": QUESTION[::-1]}], "entry 1 has a conversation whose roles"),
    "role": ([TALK | {"conversations": [{"from": "dog", "value": "?"}]}], "a message of 'dog'"),
    "number": (
        [TALK | {"conversations": [{"from": "human", "value": 1}]}],
        "entry 1 has a message",
    ),
    "text": ([TALK | {"conversations": 5}], "entry 1 has a conversation that is no list"),
    "half a pair": ([TALK | {"text": "\ud800"}], "entry 1 has a text with characters"),
    "nested": ([TALK | {"text": [["a"]]}], "entry 1 has a text that is neither text nor a list"),
    "labels": ([TALK | {"labels": {"scene": None}}], "entry 1 has labels that cannot be read"),
    "place": ([TALK | {"longitude": 200}], "entry 1 is at 200, None, which is no longitude"),
    "date": ([TALK | {"date": "July"}], "entry 1 has a place or date that cannot be read"),
    "split": ([TALK | {"split": 3}], "entry 1 has the split 3"),
    "pairs": ([TALK | {"question": ["a", "b"], "answer": "c"}], "has 2 questions and 1 answers"),
    "object": ({"a": 1}, "holds no list of entries"),
}


@pytest.mark.parametrize("form", MALFORMED)
def test_malformed_entries_are_named(form, tmp_path, capsys):
    entries, expected = MALFORMED[form]
    path = tmp_path / "talk_train.json"
    path.write_text(json.dumps(entries))
    for check in (lambda: open_scenes(path, "train"), lambda: open_training(path, tmp_path)):
        with pytest.raises(ValueError) as refused:
            check()
        assert path.name in str(refused.value) and expected in str(refused.value)
    assert main(["validate-data", str(path)]) == 2
    error = capsys.readouterr().err
    assert expected in error and "Traceback" not in error


def open_training(data: Path, run: Path) -> tuple:
    return open_training_tiles(TrainingConfig(str(data), str(run)), Accelerator(cpu=True))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"file_name": "a.tif", "text": "a"}\n{"file', "entry 2 is no JSON"),
        (b'{"file_name": "a.tif", "text": "f\xfcr"}', "entry 1 has a text with characters"),
        (b"[1]", "entry 1 is no object"),
    ],
)
def test_malformed_lines_are_named(content, expected, tmp_path):
    (tmp_path / "metadata.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=f"metadata.jsonl: {expected}"):
        open_scenes(tmp_path, "train")


def test_unusable_entries_are_reported_and_skipped(tmp_path, capsys):
    rows = [
        {"file_name": "a.tif", "text": CAPTION},
        {"file_name": "b.tif", "text": " "},
        {"text": "of no image"},
        {"file_name": "c.tif", "text": "cut"},
        {"file_name": "d.tif", "text": "gone"},
        {"file_name": "e.tif", "text": CAPTION},
        {"file_name": "e.tif", "text": CAPTION, "split": "val"},
    ]
    write_lines(tmp_path, *rows)
    (tmp_path / "c.tif").write_bytes((tmp_path / "c.tif").read_bytes()[:300])
    (tmp_path / "d.tif").unlink()
    assert main(["validate-data", str(tmp_path), "--workers", "2"]) == 1
    report = capsys.readouterr().out.splitlines()
    assert report[:2] == ["train: 4 tiles", "val: 1 tile"]
    for line in (
        "unreadable: 1 tile: c.tif",
        "missing: 1 tile: d.tif",
        "metadata.jsonl: 1 entry without text: entry 2, b.tif",
        "metadata.jsonl: 1 entry without an image: entry 3",
        f"{tmp_path}: 1 tile in train and in val: e.tif",
    ):
        assert line in report
    train, val = open_training(tmp_path, tmp_path / "run")
    assert [tile.name for tile in train.tiles] == ["a.tif"] and len(val) == 1
    output = capsys.readouterr().out
    assert "Left out: metadata.jsonl: 1 entry without text: entry 2, b.tif." in output
    assert "Left out: check.json: 2 tiles of train that cannot be used: c.tif; d.tif." in output


def test_conversations_find_their_images(tmp_path):
    (tmp_path / "images").mkdir()
    for place in ("images/a.png", "b.png"):
        shades = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(shades).save(tmp_path / place)
    entries = [{"id": 3, "image": n, "conversations": QUESTION} for n in ("a.png", ["b.png"])]
    entries += [{"id": 4, "image": ["a.png", "b.png"], "conversations": QUESTION}]
    entries += [{"id": 5, "conversations": QUESTION}]
    lines = "".join(f"{json.dumps(entry)}\n" for entry in entries)
    (tmp_path / "GeoChat_Instruct.json").write_text(json.dumps(entries))
    (tmp_path / "other.jsonl").write_text(lines)
    (tmp_path / "package.json").write_text('{"name": "of something else"}')
    for source in (tmp_path, tmp_path / "GeoChat_Instruct.json", tmp_path / "other.jsonl"):
        names = {
            tile.name for split in ("train", "val") for tile in open_scenes(source, split).tiles
        }
        assert names == {"images/a.png", "b.png"}
        dataset = open_scenes(source, "train")
        assert dataset.read(dataset.tiles[0]).is_rgb_only
        assert any("with several images: entry 3" in line for line in dataset.left_out)
        assert any("without an image: entry 4" in line for line in dataset.left_out)


def test_parquet_files_hold_images(tmp_path, monkeypatch):
    monkeypatch.setenv("EARTHVLM_CACHE", str(tmp_path / "cache"))
    images = []
    for number in range(25):
        random_scene(16, 16, seed=number).save(tmp_path / "a.tif")
        images.append((tmp_path / "a.tif").read_bytes())
    (tmp_path / "data").mkdir()
    for split, first in (("train", 0), ("test", 12)):
        rows = [{"text": f"scene {n}"} for n in range(first, first + 12)]
        content = write_parquet(rows, images[first : first + 12])
        (tmp_path / "data" / f"{split}-00000-of-00001.parquet").write_bytes(content)
    dataset = open_scenes(tmp_path, "test")
    assert [tile.captions for tile in dataset.tiles] == [(f"scene {n}",) for n in range(12, 24)]
    for number in (0, 11):  # of two row groups
        expected = random_scene(16, 16, seed=12 + number).reflectance
        np.testing.assert_allclose(dataset[number][0].reflectance, expected, atol=0.5)
    content = write_parquet([{"text": f"scene {n}"} for n in range(12)], images[:12])
    (tmp_path / "data" / "test-00000-of-00001.parquet").write_bytes(content)  # another file
    expected = random_scene(16, 16, seed=0).reflectance
    changed = open_scenes(tmp_path, "test")[0][0]
    np.testing.assert_allclose(changed.reflectance, expected, atol=0.5)


def test_weights_decide_how_often_a_source_is_drawn(tmp_path, tiny_bridge):
    few = write_lines(
        tmp_path / "few", *({"file_name": f"{n}.tif", "text": "few"} for n in range(4))
    )
    many = write_lines(
        tmp_path / "many", *({"file_name": f"{n}.tif", "text": "many"} for n in range(40))
    )
    named = [f"{few}=3", f"{many}=1"]
    config = TrainingConfig(named, str(tmp_path / "run"), num_workers=0)
    accelerator = Accelerator(cpu=True)
    train, val = open_training_tiles(config, accelerator)
    assert {tile.name.partition("/")[0] for tile in train.tiles} == {"few", "many"}
    assert len(val) >= 2 and len(train.notes) == 2
    sampler = StageLoaders(tiny_bridge, config, accelerator, train).bridge(tiny_bridge).sampler
    drawn = []
    for sampler.epoch in range(20):
        drawn += [train.tiles[key.index].captions[0] for key in sampler]
    assert drawn.count("few") / len(drawn) == pytest.approx(0.75, abs=0.05)
    assert train.read(train.tiles[0]).width == 16
    alike = open_mixture([WeightedSource(str(few)), WeightedSource(str(many))], "train")
    assert {tile.weight for tile in alike.tiles} == {1.0}


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf"])
def test_weights_that_no_source_can_have_are_refused(weight, tmp_path):
    with pytest.raises(ValueError, match="has the weight .*, which is not above 0"):
        TrainingConfig(f"{tmp_path}={weight}", str(tmp_path))


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("nothing")
    with pytest.raises(FileNotFoundError, match="holds no captions or conversations: --data_dir"):
        open_scenes(tmp_path, "train")
