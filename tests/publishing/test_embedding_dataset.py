"""Embedding datasets of captioned scenes: written by processes, broken off, gone on with, read."""

from __future__ import annotations

import base64
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from earthvlm.bridge.hub.model_card import OLMOEARTH_LICENCE
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.cli import main
from earthvlm.data.chatearthnet.dataset import HUB_ID as CHATEARTHNET
from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.embeddings.dataset import write_embedding_dataset
from earthvlm.publishing.dataset_card import THUMBNAIL_PIXELS, write_card
from earthvlm.publishing.origin import find_origin
from earthvlm.scenes.scene import Scene
from earthvlm.search.index import SceneIndex
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.hub_server import TOKEN
from tests.support.training_runs import start_two_processes

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

CHATEARTHNET_ROWS = 163_488
FILES = [f"train-{n:05d}-of-00003.parquet" for n in range(3)] + ["val-00000-of-00001.parquet"]


@pytest.fixture
def bridge(tiny_bridge: OlmoEarthVLMBridge, tmp_path: Path) -> Path:
    tiny_bridge.save_pretrained(tmp_path / "bridge")
    return tmp_path / "bridge"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_generated_chatearthnet(tmp_path / "data", train=10, val=3)
    return tmp_path / "data"


def options(data: Path, bridge: Path, output: Path) -> list[str]:
    return [
        *(f"--data_dir={data}", f"--bridge={bridge}", f"--output={output}", "--num_workers=0"),
        *("--splits", "train", "val", "--shard_rows=4", "--batch_size=2"),
    ]


def embed(arguments: list[str]) -> int:
    return main(["embed-dataset", *arguments])


def read(folder: Path) -> dict[str, list]:
    return {path.name: pq.read_table(path).to_pylist() for path in sorted(folder.glob("*.parquet"))}


def test_every_tile_becomes_a_row_that_can_be_found(data, bridge, tmp_path, capsys):
    assert embed(options(data, bridge, tmp_path / "out")) == 0
    assert "13 scenes" in capsys.readouterr().out
    assert sorted(read(tmp_path / "out")) == FILES
    index = SceneIndex.from_pretrained(tmp_path / "out")
    tiles = ChatEarthNet(data, "val")
    assert [r.image_id for r in index.browse("val")] == [tile.name for tile in tiles]
    loaded = OlmoEarthVLMBridge.from_pretrained(bridge, device="cpu")
    for scene, tile in (tiles[0], tiles[2]):
        best = index.search(scene, k=1, bridge=loaded)[0]
        assert (best.image_id, best.caption) == (tile.name, tile.captions[0])
        assert best.scene_similarity == pytest.approx(1, abs=1e-5)
        assert max(best.thumbnail.size) == 64  # these tiles are smaller than a thumbnail may be
    said = tiles.tiles[1].captions[0]
    found = index.search(said, k=len(index))  # scenes mean nothing to this untrained bridge
    assert max(found, key=lambda result: result.caption_similarity).caption == said


def test_the_card_tells_the_run_and_is_valid(data, bridge, tmp_path, hub):
    embed(options(data, bridge, tmp_path / "out"))
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    card.validate()
    assert card.data.license == "unknown" and "ChatEarthNet" not in card.text
    assert "| `train` | 10 |" in card.text and "13 of them in" in card.text
    assert SceneIndex.from_pretrained(tmp_path / "out").provenance.bridge_revision in card.text
    assert card.data.size_categories == ["n<1K"]


def test_a_card_of_released_weights_carries_their_licence(tiny_bridge, tmp_path, hub):
    released = replace(tiny_bridge.config, olmoearth_model_id="OlmoEarth-v1-Nano")
    tiny_bridge.config = released
    values = {"bridge_id": "owner/bridge", "command": "accelerate launch", "run": "13 of them"}
    values["source"] = "owner/embeddings"
    write_card(tmp_path, {"train": 13}, tiny_bridge, find_origin([], True), values)
    card = DatasetCard.load(tmp_path / "README.md")
    card.validate()
    assert card.data.license == "other" and card.data.license_link == OLMOEARTH_LICENCE
    assert card.data.license_name == "cc-by-4.0-and-olmoearth-artifact-license"
    assert card.data.source_datasets == [CHATEARTHNET] and "(Yuan et al., 2024" in card.text
    assert "use restrictions pass on" in " ".join(card.text.split())


def test_datasets_reads_it_whole_and_streaming(data, bridge, tmp_path):
    from datasets import load_dataset

    embed(options(data, bridge, tmp_path / "out"))
    whole = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in whole.items()} == {"train": 10, "val": 3}
    first = next(iter(load_dataset(str(tmp_path / "out"), split="val", streaming=True)))
    assert first["image_id"] == whole["val"][0]["image_id"]
    assert first["thumbnail"].size == (64, 64)
    assert np.linalg.norm(first["scene_embedding"]) == pytest.approx(1, abs=1e-4)


def test_what_is_there_is_kept_and_what_is_missing_is_made(data, bridge, tmp_path):
    out = tmp_path / "out"
    embed(options(data, bridge, out))
    before = read(out)
    (out / FILES[1]).unlink()
    kept = {name: (out / name).stat().st_mtime_ns for name in FILES if name != FILES[1]}
    embed(options(data, bridge, out))
    assert read(out) == before
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept


def test_files_of_another_bridge_or_dataset_are_not_mixed_in(data, bridge, tmp_path, capsys):
    out = tmp_path / "out"
    embed(options(data, bridge, out))
    other = OlmoEarthVLMBridge.from_pretrained(bridge, device="cpu", trainable=True)
    other.fusion.queries.data += 1
    other.save_pretrained(tmp_path / "other")
    assert embed(options(data, tmp_path / "other", out)) == 2
    assert "was made by bridge" in capsys.readouterr().err
    assert embed([*options(data, bridge, out), "--shard_rows=5"]) == 2
    assert "does not belong to this dataset" in capsys.readouterr().err


@pytest.fixture
def published(tiny_bridge: OlmoEarthVLMBridge) -> str:
    """That bridge on the Hub, for a dataset to name."""
    tiny_bridge.push_to_hub("owner/bridge")
    return "owner/bridge"


def pushed(data: Path, bridge: str, output: Path) -> list[str]:
    return [*options(data, bridge, output), "--push_to_hub=owner/embeddings"]


def test_it_is_published_and_opened_from_there(hub, data, published, tmp_path, capsys):
    out = tmp_path / "out"
    assert embed(pushed(data, published, out)) == 0
    assert f"Published: {hub.url}/datasets/owner/embeddings/commit/" in capsys.readouterr().out
    repository = hub.repositories["datasets/owner/embeddings"]
    assert set(repository.files) == {*FILES, "README.md", "collection.json"}
    assert not any(TOKEN.encode() in content for content in repository.files.values())
    index = SceneIndex.from_pretrained("owner/embeddings")
    assert len(index) == 13 and index.commit == repository.refs["main"]
    assert index.commit[:7] in index.summary

    hub.renamed["datasets/owner/before"] = "datasets/owner/embeddings"
    assert SceneIndex.from_pretrained("owner/before").commit == index.commit
    again = [*options(data, published, out), "--push_to_hub=owner/before"]
    assert embed(again) == 0  # whose card says that no rows were embedded
    assert f"Published: {hub.url}/datasets/owner/embeddings/commit/" in capsys.readouterr().out
    assert [name for name in hub.repositories if name.startswith("datasets/")] == [
        "datasets/owner/embeddings"
    ]
    newest = SceneIndex.from_pretrained("owner/before")
    assert newest.commit == repository.refs["main"] != index.commit and len(newest) == 13


def test_a_push_replaces_all_shards_of_the_last(hub, data, published, tmp_path):
    embed(pushed(data, published, tmp_path / "first"))
    repository = hub.repositories["datasets/owner/embeddings"]
    others = {".gitattributes": b"a", "notes.csv": b"b", "more/rows.parquet": b"c"}
    repository.commit({**repository.files, **others})
    fewer = [*pushed(data, published, tmp_path / "fewer"), "--shard_rows=20", "--splits", "val"]
    assert embed(fewer) == 0
    assert set(repository.files) == {
        *("val-00000-of-00001.parquet", "README.md", "collection.json", *others)
    }
    assert len(SceneIndex.from_pretrained("owner/embeddings")) == 3


def test_a_dataset_of_a_local_bridge_is_not_published(hub, data, bridge, tmp_path, capsys):
    assert embed(pushed(data, bridge, tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert f"earthvlm push {bridge} OWNER/NAME" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists() and "datasets/owner/embeddings" not in hub.repositories


def test_shards_of_a_local_bridge_name_the_published_one(hub, data, published, bridge, tmp_path):
    out = tmp_path / "out"
    assert embed(options(data, bridge, out)) == 0
    rows = read(out)
    assert SceneIndex.from_pretrained(out).provenance.bridge_id == "local"
    assert embed(pushed(data, published, out)) == 0
    assert SceneIndex.from_pretrained("owner/embeddings").provenance.bridge_id == published
    assert read(out) == rows


def test_a_private_push_to_a_public_dataset_is_refused(hub, data, published, tmp_path, capsys):
    hub.repository("datasets/owner/embeddings").commit({})
    asked = [*pushed(data, published, tmp_path / "out"), "--hub_private_repo"]
    assert embed(asked) == 2
    said = capsys.readouterr().err
    assert "owner/embeddings is public on the Hub, and a private repository was asked for" in said
    assert not (tmp_path / "out").exists()  # refused before hours of embedding


@pytest.mark.one_setting
@pytest.mark.parametrize("repository", ["owner/embeddings", None])
def test_the_code_in_the_card_runs(hub, data, published, tmp_path, repository, capsys, monkeypatch):
    out = tmp_path / "out"
    asked = pushed(data, published, out) if repository else options(data, published, out)
    assert embed(asked) == 0
    capsys.readouterr()
    card = (out / "README.md").read_text()
    assert str(tmp_path) not in card
    assert f'from_pretrained("{repository or "."}")' in card
    monkeypatch.chdir(out)
    exec(compile(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], "README.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_datasets_streams_it_from_the_hub(hub, data, published, tmp_path, monkeypatch):
    from datasets import load_dataset

    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.url)
    embed(pushed(data, published, tmp_path / "out"))
    rows = list(load_dataset("owner/embeddings", split="train", streaming=True))
    assert [row["image_id"] for row in rows] == [tile.name for tile in ChatEarthNet(data, "train")]
    assert rows[0]["thumbnail"].size == (64, 64) and len(rows[0]["scene_embedding"]) == 384
    asked = {path for path, _, _ in hub.sent}
    assert "train-00002-of-00003.parquet" in asked and "val-00000-of-00001.parquet" not in asked


def test_what_is_no_embedding_dataset_is_said_in_one_sentence(hub, tiny_bridge):
    tiny_bridge.push_to_hub("owner/bridge")
    with pytest.raises(ValueError, match="^There is no folder owner/bridge, and no Hub repository"):
        SceneIndex.from_pretrained("owner/bridge")  # of another kind
    hub.repository("datasets/owner/texts").commit({"data.csv": b"a,b"})
    with pytest.raises(FileNotFoundError, match="^there is no embedding dataset in") as caught:
        SceneIndex.from_pretrained("owner/texts")
    assert "\n" not in str(caught.value)


def test_all_of_chatearthnet_fits_in_two_gigabytes(tmp_path):
    """By rows of real scenes: the bundled ones', their embeddings, and captions as long as its."""
    bundled = SceneIndex.from_pretrained("bundled").folder
    rows = pq.read_table(bundled / "embeddings.parquet").to_pylist()
    rng = np.random.default_rng(0)
    for row in rows:
        scene = Scene.open(bundled / row["scene_file"])
        row["thumbnail"] = scene.thumbnail(THUMBNAIL_PIXELS)
        row["caption"] = base64.b64encode(rng.bytes(750)).decode()  # which hardly compresses
        row |= {"source": "ChatEarthNet (CC-BY-4.0)", "scene_file": None}
    path = write_embedding_dataset(tmp_path, rows, "bundled", "revision")
    assert path.stat().st_size / len(rows) * CHATEARTHNET_ROWS < 2e9


@pytest.mark.end_to_end
def test_one_process_resumes_what_two_began_with_equal_rows(data, bridge, tmp_path):
    embed(options(data, bridge, tmp_path / "one"))
    out = tmp_path / "two"
    command = ["-m", "earthvlm", "embed-dataset", *options(data, bridge, out)]
    programs = start_two_processes("ddp", command, tmp_path / "log", "--mixed_precision=no")
    while not list(out.glob("*.parquet")):
        assert all(program.is_running for program in programs), programs[0].finish()
        time.sleep(0.01)
    for program in programs:
        program.kill()
    done = len(list(out.glob("*.parquet")))
    assert done
    embed(options(data, bridge, out))  # by one process
    one, two = read(tmp_path / "one"), read(out)
    assert one.keys() == two.keys()
    for rows, others in zip(one.values(), two.values(), strict=True):
        for row, other in zip(rows, others, strict=True):
            assert np.allclose(row.pop("scene_embedding"), other.pop("scene_embedding"), atol=1e-6)
            assert np.allclose(
                row.pop("caption_embedding"), other.pop("caption_embedding"), atol=1e-6
            )
            assert row == other
