"""Large datasets are mapped from files, which are made again when they do not fit."""

import json
import multiprocessing

import numpy as np
import pytest

import earthvlm.embeddings.mmap_store as stores
from earthvlm.embeddings.dataset import write_embedding_dataset
from earthvlm.search.index import SceneFilter, SceneIndex
from tests.support.made_scenes import PROVENANCE, get_ids, make_rows, make_vectors


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """A dataset of two files, large enough to be mapped."""
    monkeypatch.setattr("earthvlm.search.index.MAPPED_FROM", 10)
    monkeypatch.setenv("EARTHVLM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    rows = make_rows(30)
    rows[4]["scene_embedding"] = None
    rows[5]["caption"] = rows[5]["caption_embedding"] = rows[5]["thumbnail"] = None
    write_embedding_dataset(folder, rows[:20], *PROVENANCE, name="a.parquet")
    write_embedding_dataset(folder, rows[20:], *PROVENANCE, name="b.parquet")
    return folder


def store_of(tmp_path):
    (store,) = [p for p in (tmp_path / "cache" / "indexes").iterdir() if p.is_dir()]
    return store


def test_a_mapped_dataset_is_the_one_in_memory(dataset, tmp_path, monkeypatch):
    mapped = SceneIndex.from_pretrained(dataset)
    assert mapped.table.present("scene").sum() == 29
    monkeypatch.setattr("earthvlm.search.index.MAPPED_FROM", 100)
    memory = SceneIndex.from_pretrained(dataset)
    assert mapped.table.folder == store_of(tmp_path) and memory.table.folder is None
    assert isinstance(mapped.table.vectors("scene").base, np.memmap)
    query = make_vectors(1, 9)[0]
    where = SceneFilter(split="examples")
    for one, other in zip(
        mapped.search(query, k=30, where=where) + mapped.browse(),
        memory.search(query, k=30, where=where) + memory.browse(),
        strict=True,
    ):
        assert (one.thumbnail is None) == (other.thumbnail is None)
        assert {**vars(one), "thumbnail": None} == {**vars(other), "thumbnail": None}
    assert mapped.table.digest("scene") == memory.table.digest("scene")


def test_a_store_is_made_once_and_again_when_the_dataset_changes(dataset, tmp_path, monkeypatch):
    made = []
    write = stores.write_store
    monkeypatch.setattr(stores, "write_store", lambda *a: made.append(a) or write(*a))
    for _ in range(2):
        assert len(SceneIndex.from_pretrained(dataset)) == 30
    assert len(made) == 1
    write_embedding_dataset(dataset, make_rows(32)[30:], *PROVENANCE, name="c.parquet")
    index = SceneIndex.from_pretrained(dataset)
    assert (len(made), len(index)) == (2, 32)
    assert get_ids(index.search(index.table.vectors("scene")[31], k=1)) == ["tile_31"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda store: (store / "scene-vectors.npy").write_bytes(b""),
        lambda store: cut(store / "caption-present.npy"),
        lambda store: flip(store / "scene-vectors.npy", 5_000),
        lambda store: flip(store / "scene-present.npy", -1),
        lambda store: flip(store / "rows.arrow", 600),
        lambda store: cut(store / "thumbnails.arrow"),
        lambda store: (store / "rows.arrow").unlink(),
        lambda store: (store / "manifest.json").write_text("{"),
        lambda store: (store / "manifest.json").write_text("[]"),
    ],
)
def test_a_damaged_store_is_found_and_made_again(dataset, tmp_path, damage):
    query = make_vectors(1, 9)[0]
    expected = get_ids(SceneIndex.from_pretrained(dataset).search(query))
    store = store_of(tmp_path)
    whole = json.loads((store / "manifest.json").read_text())
    damage(store)
    fingerprint = whole["fingerprint"]
    assert not stores.is_intact(store, fingerprint)
    assert get_ids(SceneIndex.from_pretrained(dataset).search(query)) == expected
    assert stores.is_intact(store, fingerprint)
    assert json.loads((store / "manifest.json").read_text()) == whole


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


def test_a_store_that_cannot_be_made_leaves_nothing(dataset, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="disk is full"):
        SceneIndex.from_pretrained(dataset)
    assert not [p for p in (tmp_path / "cache" / "indexes").iterdir() if p.is_dir()]


def test_a_name_in_two_files_is_refused(dataset):
    write_embedding_dataset(dataset, make_rows(3), *PROVENANCE, name="c.parquet")
    with pytest.raises(ValueError, match="c.parquet has the image_id 'tile_00', as another file"):
        SceneIndex.from_pretrained(dataset)


def _open(folder):
    import earthvlm.search.index

    earthvlm.search.index.MAPPED_FROM = 10
    return get_ids(SceneIndex.from_pretrained(folder).search(make_vectors(1, 9)[0], k=3))


def test_processes_that_open_it_at_once_agree(dataset):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.map(_open, [dataset] * 6)
    assert all(each == found[0] for each in found)


def test_a_saved_index_brings_its_store(dataset, tmp_path, monkeypatch):
    index = SceneIndex.from_pretrained(dataset)
    index.save(tmp_path / "copy")
    assert (tmp_path / "copy" / "index" / "manifest.json").is_file()
    monkeypatch.setenv("EARTHVLM_CACHE", str(tmp_path / "another"))
    again = SceneIndex.from_pretrained(tmp_path / "copy")
    assert again.table.folder == tmp_path / "copy" / "index"
    query = make_vectors(1, 9)[0]
    assert get_ids(again.search(query, k=30)) == get_ids(index.search(query, k=30))
    assert again.provenance == index.provenance
    assert not (tmp_path / "another").exists()
