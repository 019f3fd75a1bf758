"""Embedding datasets of one's own data: every form that training takes, with the right terms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.cli import main
from earthvlm.publishing.origin import find_origin
from earthvlm.search.index import SceneIndex
from tests.conftest import random_scene
from tests.support.own_data import write_parquet

pytestmark = pytest.mark.slow
REPOSITORY = "jane/lakes-embeddings"


@pytest.fixture
def published(hub, tiny_bridge: OlmoEarthVLMBridge) -> str:
    tiny_bridge.push_to_hub("jane/bridge")
    return "jane/bridge"


def write_scenes(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        random_scene(16, 16, seed=number).save(folder / name)


def write_lakes(folder: Path) -> Path:
    """A folder of form (a): a place in the entry, questions alone, two broken images."""
    write_scenes(folder, "a.tif", "2021/b.tif", "c.tif", "d.tif")
    (folder / "broken.tif").write_bytes(b"II*\0 and no more")
    rows = [
        {"file_name": "a.tif", "text": ["A lake.", "Water."], "longitude": 13.5, "latitude": 55},
        {"file_name": "2021/b.tif", "question": "Is there water?", "answer": True},
        {"file_name": "c.tif", "text": "A town.", "split": "holdout"},
        {"file_name": "d.tif", "text": "A bay.", "split": "val"},
        {"file_name": "d.tif", "text": "A bay.", "split": "train"},
        {"file_name": "broken.tif", "text": "Nothing."},
        {"file_name": "missing.tif", "text": "Nothing."},
        {"file_name": "c.tif", "text": "A town.", "split": "again"},
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def embed(data: str | Path, output: Path, *options: str) -> int:
    common = [f"--data_dir={data}", f"--output={output}", "--num_workers=0", "--batch_size=2"]
    return main(["embed-dataset", *common, "--bridge=jane/bridge", *options])


def read_card(folder: Path) -> DatasetCard:
    card = DatasetCard.load(folder / "README.md")
    card.validate()
    return card


def test_a_folder_with_metadata_is_published(hub, published, tmp_path, capsys):
    data = write_lakes(tmp_path / "private" / "Swedish lakes")
    terms = ["--licence=cc-by-sa-4.0", "--source=Jane Doe (CC-BY-SA-4.0)"]
    assert embed(data, tmp_path / "out", *terms, f"--push_to_hub={REPOSITORY}") == 0
    said = capsys.readouterr().out
    assert "2 tiles that cannot be read: broken.tif" in said and "missing.tif" in said
    assert "train: 1 tile also in another split: d.tif" in said
    index = SceneIndex.from_pretrained(REPOSITORY)
    found = {result.image_id: result for result in index.browse()}
    assert sorted(found) == ["2021/b.tif", "a.tif", "c.tif", "d.tif"]
    lake = found["a.tif"]
    assert (lake.caption, lake.longitude, lake.latitude) == ("A lake.", 13.5, 55)
    assert found["2021/b.tif"].caption is None and found["c.tif"].split == "holdout"
    assert {result.source for result in found.values()} == {"Jane Doe (CC-BY-SA-4.0)"}
    scene = random_scene(16, 16, seed=1)
    bridge = OlmoEarthVLMBridge.from_pretrained(published, device="cpu")
    assert index.search(scene, k=1, bridge=bridge)[0].image_id == "2021/b.tif"
    assert index.search("A lake.", k=1)[0].caption_similarity == pytest.approx(1, abs=1e-4)

    card = read_card(tmp_path / "out")
    assert card.data.license == "cc-by-sa-4.0"
    assert card.data.pretty_name == "Embeddings of Swedish lakes by earthvlm"
    assert "from Jane Doe (CC-BY-SA-4.0), unchanged" in card.text and "private" not in card.text
    assert "ChatEarthNet" not in card.text and "| `holdout` | 1 |" in card.text
    assert [each["split"] for each in card.data.configs[0]["data_files"]] == [
        *("train", "val", "holdout"),
    ]  # and not "again", whose only image is in another split


def test_a_conversation_file_is_published(hub, published, tmp_path, capsys):
    write_scenes(tmp_path / "data" / "images", "a.tif", "b.tif")
    talks = [
        ("a.tif", "<image>\nDescribe this image.", "A lake."),
        ("b.tif", "<image>\nHow many ships are there?", "Two."),
    ]
    entries = [
        {
            "image": name,
            "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": said}],
        }
        for name, asked, said in talks
    ]
    data = tmp_path / "data" / "talks_train.json"
    data.write_text(json.dumps(entries))
    assert embed(data, tmp_path / "out", f"--push_to_hub={REPOSITORY}") == 0
    assert "the licence of talks_train is unknown: --licence names it" in capsys.readouterr().out
    found = {r.image_id: r.caption for r in SceneIndex.from_pretrained(REPOSITORY).browse()}
    assert sorted(found.values(), key=str) == ["A lake.", None]
    card = read_card(tmp_path / "out")
    assert card.data.license == "unknown" and "ask their owner" in card.text


def test_a_hub_dataset_keeps_its_licence(hub, published, tmp_path, monkeypatch):
    monkeypatch.setenv("EARTHVLM_CACHE", str(tmp_path / "cache"))
    write_scenes(tmp_path, "a.tif", "b.tif")
    images = [(tmp_path / name).read_bytes() for name in ("a.tif", "b.tif")]
    shard = write_parquet([{"text": "A lake."}, {"text": "A town."}], images)
    card = b"---\nlicense: odbl\n---\n# Lakes\n"
    files = {"data/test-00000-of-00001.parquet": shard, "README.md": card}
    hub.repository("datasets/jane/lakes").commit(files)
    write_scenes(tmp_path / "own", "c.tif")
    (tmp_path / "own" / "metadata.jsonl").write_text('{"file_name": "c.tif", "text": "A bay."}')
    assert embed("jane/lakes", tmp_path / "out") == 0
    written = read_card(tmp_path / "out")
    assert written.data.license == "odbl" and written.data.source_datasets == ["jane/lakes"]
    assert "--data_dir jane/lakes" in written.text
    both = f"--data_dir={tmp_path / 'own'}"
    assert embed("jane/lakes=3", tmp_path / "both", both, "--licence=odbl") == 0
    index = SceneIndex.from_pretrained(tmp_path / "both")
    assert sorted(r.caption for r in index.browse()) == ["A bay.", "A lake.", "A town."]
    assert read_card(tmp_path / "both").data.pretty_name.startswith("Embeddings of jane/lakes and")


def test_a_licence_the_hub_does_not_know_is_refused():
    with pytest.raises(
        ValueError, match="'CC BY 4.0' is no licence as the Hub names it: cc-by-4.0"
    ):
        find_origin([], False, name="lakes", licence="CC BY 4.0")


def test_no_tile_that_can_be_read_is_an_error(hub, published, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    (data / "metadata.jsonl").write_text('{"file_name": "a.tif", "text": "A lake."}')
    assert embed(data, tmp_path / "out") == 2
    assert (
        "none of the tiles of train-00000-of-00001.parquet can be read" in capsys.readouterr().err
    )
