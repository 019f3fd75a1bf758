"""Datasets on the Hub: their texts are read first, their images when they are needed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from accelerate import Accelerator

from earthvlm.data.sources.opening import open_scenes
from earthvlm.training.arguments import render_command
from earthvlm.training.config import TrainingConfig
from earthvlm.training.dataloaders import StageLoaders
from earthvlm.training.step import read_batches
from earthvlm.training.training_tiles import open_training_tiles
from tests.conftest import random_scene
from tests.support.own_data import write_parquet


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EARTHVLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images(tmp_path) -> list[bytes]:
    contents = []
    for number in range(8):
        random_scene(16, 16, seed=number).save(tmp_path / "scene.tif")
        contents.append((tmp_path / "scene.tif").read_bytes())
    return contents


def commit_folder(hub, images: list[bytes], name: str = "jane/scenes") -> str:
    """Commit metadata and images, the last two for validation; return the commit."""
    rows = [
        {"file_name": f"{n}.tif", "text": f"scene {n}", "split": "train" if n < 6 else "val"}
        for n in range(len(images))
    ]
    files = {f"data/{n}.tif": image for n, image in enumerate(images)}
    files["data/metadata.jsonl"] = "\n".join(map(json.dumps, rows)).encode()
    return hub.repository(f"datasets/{name}").commit(files)


def test_images_are_fetched_when_they_are_read(hub, images, cache):
    commit = commit_folder(hub, images)
    dataset = open_scenes("jane/scenes", "train")
    assert [tile.captions for tile in dataset.tiles] == [(f"scene {n}",) for n in range(6)]
    assert not list(cache.rglob("*.tif"))
    scene = dataset.read(dataset.tiles[2])
    np.testing.assert_allclose(scene.reflectance, random_scene(16, 16, 2).reflectance, atol=0.5)
    (fetched,) = cache.rglob("*.tif")
    assert fetched.name == "2.tif" and commit in str(fetched)
    before = hub.requests
    dataset.with_tiles(dataset.tiles).read(dataset.tiles[2])
    assert hub.requests == before  # it is kept
    assert dataset.hub_id == "jane/scenes"


def test_workers_stream_a_dataset(hub, images, cache, tiny_bridge, tmp_path):
    commit_folder(hub, images)
    config = TrainingConfig("jane/scenes", str(tmp_path / "run"), batch_size=2, num_workers=2)
    accelerator = Accelerator(cpu=True)
    train, val = open_training_tiles(config, accelerator)
    assert (len(train), len(val)) == (6, 2)
    batches = list(read_batches(StageLoaders(tiny_bridge, config, accelerator, train).bridge(None)))
    assert sorted(name for batch in batches for name in batch.names) == [
        f"data/{n}.tif" for n in range(6)
    ]
    assert "--data_dir jane/scenes" in render_command(config, number=1)


def commit_shards(hub, images: list[bytes]) -> None:
    """Commit two Parquet files to train on and one for validation."""
    shards = {}
    for split, first in (("train", 0), ("train", 3), ("validation", 6)):
        chosen = images[first : first + 3]
        rows = [{"question": "Which?", "answer": first + n} for n in range(len(chosen))]
        name = f"data/{split}-{first:05d}-of-00006.parquet"
        shards[name] = write_parquet(rows, chosen)
    hub.repository("datasets/jane/table").commit(shards)


def test_parquet_files_are_fetched_one_after_another(hub, images, cache):
    commit_shards(hub, images)
    train = open_scenes("jane/table", "train")
    assert [tile.shard for tile in train.tiles] == [0] * 3 + [1] * 3
    answers = [tile.conversations[0][1]["content"] for tile in train.tiles]
    assert (
        answers == [str(n) for n in range(6)]
        and [t.shard for t in train.tiles] == [0] * 3 + [1] * 3
    )
    assert not list(cache.rglob("*.arrow"))
    scene = train.read(train.tiles[4])
    np.testing.assert_allclose(scene.reflectance, random_scene(16, 16, 4).reflectance, atol=0.5)
    assert [path.stem for path in cache.rglob("*.arrow")] == ["train-00003-of-00006.parquet"]
    assert not list(cache.rglob("*.parquet"))  # its images are unpacked
    assert len(open_scenes("jane/table", "val")) == 2


def test_workers_fetch_a_parquet_file_once(hub, images, cache, tiny_bridge, tmp_path):
    commit_shards(hub, images)
    config = TrainingConfig("jane/table", str(tmp_path / "run"), batch_size=1, num_workers=2)
    accelerator = Accelerator(cpu=True)
    train, _ = open_training_tiles(config, accelerator)
    hub.sent.clear()
    loader = StageLoaders(tiny_bridge, config, accelerator, train).bridge(None)
    assert len(list(read_batches(loader))) == 6
    whole = [path for path, *_ in hub.sent if path.endswith("-of-00006.parquet")]
    assert sorted(whole) == sorted(set(whole)) and len(whole) == 2


def test_a_revision_stays_as_it_was(hub, images, cache):
    commit = commit_folder(hub, images)
    hub.repository("datasets/jane/scenes").commit({"data/metadata.jsonl": b""})
    assert len(open_scenes(f"jane/scenes@{commit}", "train")) == 6
    with pytest.raises(FileNotFoundError, match="has no split 'train'"):
        open_scenes("jane/scenes", "train")


def test_what_the_hub_converted_is_taken(hub, images, cache):
    repository = hub.repository("datasets/jane/odd")
    converted = write_parquet([{"text": f"scene {n}"} for n in range(4)], images[:4])
    repository.commit({"default/train/0000.parquet": converted}, "refs/convert/parquet")
    repository.commit({"images.tar": b"a web dataset"})
    assert len(open_scenes("jane/odd", "train")) == 3  # and one held out


def test_a_missing_dataset_is_named(hub, cache):
    with pytest.raises(ValueError, match="no folder jane/nothing, and no Hub repository"):
        open_scenes("jane/nothing", "train")


def test_a_hub_that_fails_while_reading_is_named(hub, images, cache):
    commit_folder(hub, images)
    dataset = open_scenes("jane/scenes", "train")
    hub.failing = 403
    with pytest.raises(ValueError, match="The Hub does not let you read jane/scenes"):
        dataset.read(dataset.tiles[0])
    assert dataset.find_fault(dataset.tiles[0]).startswith("unreadable: The Hub does not let")
