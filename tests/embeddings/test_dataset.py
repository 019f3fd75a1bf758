"""The embedding dataset on disk: written whole or not at all, and refused when damaged."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from earthvlm.embeddings.dataset import read_embedding_dataset, write_embedding_dataset
from earthvlm.embeddings.schema import EMBEDDING_SCHEMA
from earthvlm.models.text_encoder import SENTENCE_DIM
from earthvlm.search.index import SceneIndex
from tests.support.made_scenes import PROVENANCE, get_ids, make_rows, make_vectors


def test_a_dataset_comes_back_as_it_was_written(tmp_path):
    rows = make_rows(4)
    rows[1]["caption"] = rows[1]["caption_embedding"] = None
    rows[2]["scene_embedding"] = rows[2]["thumbnail"] = rows[2]["longitude"] = None
    write_embedding_dataset(tmp_path, rows, *PROVENANCE)

    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.parquet"]
    table, provenance = read_embedding_dataset(tmp_path)
    assert (
        provenance.bridge_id,
        provenance.bridge_revision,
        provenance.sentence_model,
        provenance.sentence_revision,
    ) == PROVENANCE
    assert table.schema.field("scene_embedding").type == pa.list_(pa.float32(), 384)
    read = table.to_pylist()
    for row, original in zip(read, rows, strict=True):
        for name in ("image_id", "caption", "split", "longitude", "latitude", "source"):
            assert row[name] == original[name]
        for name in ("scene_embedding", "caption_embedding"):
            if original[name] is None:
                assert row[name] is None
            else:
                np.testing.assert_array_equal(np.float32(row[name]), original[name])

    first, second, third, _ = SceneIndex.from_pretrained(tmp_path).browse()
    assert first.thumbnail.size == (24, 24)
    assert np.abs(np.asarray(first.thumbnail)[0, 0].astype(int) - (0, 100, 200)).max() < 8
    assert third.thumbnail is None and third.longitude is None and second.caption is None


def test_datasets_shows_the_thumbnails_as_images(tmp_path, monkeypatch):
    from datasets import Image as ImageFeature
    from datasets import load_dataset

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_embedding_dataset(tmp_path / "data", make_rows(3), *PROVENANCE)
    dataset = load_dataset(str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))["train"]
    assert isinstance(dataset.features["thumbnail"], ImageFeature)
    assert dataset[1]["thumbnail"].size == (24, 24)
    assert len(dataset[1]["scene_embedding"]) == SENTENCE_DIM
    assert set(dataset.column_names) == set(EMBEDDING_SCHEMA.names)


def test_several_files_make_one_dataset_if_one_bridge_made_them(tmp_path):
    rows = make_rows(6)
    write_embedding_dataset(tmp_path, rows[:4], *PROVENANCE).rename(tmp_path / "a.parquet")
    write_embedding_dataset(tmp_path, rows[4:], *PROVENANCE)
    index = SceneIndex.from_pretrained(tmp_path)
    assert get_ids(index.browse()) == [row["image_id"] for row in rows]
    assert get_ids(index.search(rows[1]["scene_embedding"], k=1)) == ["tile_01"]
    assert get_ids(index.search(rows[5]["scene_embedding"], k=1)) == ["tile_05"]

    write_embedding_dataset(tmp_path, rows[4:], "owner/bridge", "another")
    with pytest.raises(ValueError, match="made by owner/bridge .another.*abc123"):
        SceneIndex.from_pretrained(tmp_path)


def test_a_failed_write_leaves_the_old_dataset(tmp_path, monkeypatch):
    write_embedding_dataset(tmp_path, make_rows(2), *PROVENANCE)

    def fail(table, path, **_):
        Path(path).write_bytes(b"half a file")
        raise OSError("the disk is full")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="disk is full"):
        write_embedding_dataset(tmp_path, make_rows(3), *PROVENANCE)
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.parquet"]
    assert len(SceneIndex.from_pretrained(tmp_path)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "tile_01"}, "image_id 'tile_01' 2 times"),
        ({"image_id": None}, "row without image_id"),
        ({"split": ""}, "row without split"),
        ({"scene_embedding": np.zeros(SENTENCE_DIM)}, "scene_embedding of length 0"),
        ({"caption_embedding": np.full(SENTENCE_DIM, np.nan)}, "caption_embedding of length nan"),
        ({"scene_embedding": make_vectors(1)[0][:256]}, r"shape \(256,\); it must have \(384,\)"),
        ({"scene_file": "../secret.tif"}, "inside the dataset's folder"),
        ({"scene_file": "/etc/passwd"}, "inside the dataset's folder"),
        ({"scene_file": "C:/secret.tif"}, "inside the dataset's folder"),
        ({"scene_file": "..\\secret.tif"}, "inside the dataset's folder"),
        ({"colour": "green"}, "no column 'colour'"),
    ],
)
def test_rows_that_break_the_format_are_not_written(tmp_path, change, message):
    rows = make_rows(3)
    rows[0] |= change
    with pytest.raises(ValueError, match=message):
        write_embedding_dataset(tmp_path, rows, *PROVENANCE)
    assert not list(tmp_path.iterdir())


def rewrite(path: Path, table: pa.Table, **metadata) -> None:
    written = json.loads(table.schema.metadata[b"earthvlm"]) | metadata
    pq.write_table(table.replace_schema_metadata({"earthvlm": json.dumps(written)}), path)


def swap_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda p, t: rewrite(p, t.drop_columns(["caption"])),
            "no column 'caption'; build it again with `earthvlm",
        ),
        (
            lambda p, t: rewrite(
                p,
                swap_column(
                    t,
                    "scene_embedding",
                    pa.array([np.ones(256)] * 3, pa.list_(pa.float32(), 256)),
                ),
            ),
            r"'scene_embedding' of .*\[256\].* must be .*\[384\]",
        ),
        (
            lambda p, t: rewrite(p, swap_column(t, "scene_file", pa.array(["../x.tif"] * 3))),
            "inside the dataset's folder",
        ),
        (lambda p, t: rewrite(p, pa.concat_tables([t, t])), "'tile_00' 2 times"),
        (lambda p, t: rewrite(p, t, format_version=99), "format version 99"),
        (lambda p, t: pq.write_table(t.replace_schema_metadata(None), p), "does not record which"),
        (lambda p, t: p.write_bytes(p.read_bytes()[:2000]), "cannot be read as Parquet"),
        (lambda p, t: p.write_text("not a Parquet file"), "cannot be read as Parquet"),
        (lambda p, t: p.write_bytes(b""), "cannot be read as Parquet"),
    ],
)
def test_a_damaged_dataset_is_refused_in_one_sentence(tmp_path, damage, message):
    path = write_embedding_dataset(tmp_path, make_rows(3), *PROVENANCE)
    damage(path, pq.read_table(path))
    with pytest.raises(ValueError, match=message) as refusal:
        SceneIndex.from_pretrained(tmp_path)
    assert "\n" not in str(refusal.value)


def zero(block: bytes) -> bytes:
    return bytes(len(block))


def flip_a_bit(block: bytes) -> bytes:
    return bytes([block[0] ^ 1]) + block[1:]


@pytest.mark.parametrize("damage", [zero, flip_a_bit])
def test_every_damaged_page_is_refused_or_read_whole(tmp_path, damage):
    path = write_embedding_dataset(tmp_path, make_rows(12), *PROVENANCE)
    whole = path.read_bytes()
    refused = 0
    for position in range(4, len(whole), len(whole) // 60):
        end = position + 16
        path.write_bytes(whole[:position] + damage(whole[position:end]) + whole[end:])
        try:
            SceneIndex.from_pretrained(tmp_path)
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017  not every damage is refused
    assert refused > 50


def test_a_folder_without_a_dataset_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no embedding dataset"):
        SceneIndex.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="neither a folder nor the id of a Hub repository"):
        SceneIndex.from_pretrained(tmp_path / "nowhere")


def test_a_damaged_thumbnail_is_refused_by_name(tmp_path):
    rows = make_rows(2)
    rows[1]["thumbnail"] = b"not an image"
    write_embedding_dataset(tmp_path, rows, *PROVENANCE)
    index = SceneIndex.from_pretrained(tmp_path)
    assert len(index.search(rows[0]["scene_embedding"], k=1)) == 1  # the other is not decoded
    with pytest.raises(ValueError, match="thumbnail of tile_01 is damaged"):
        index.browse()
