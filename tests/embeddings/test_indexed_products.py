"""An index of products: one image each, its notes reported, and bad ones left out by name."""

from __future__ import annotations

import os

import numpy as np
import pytest

from earthvlm.embeddings.folder_index import find_images, index_folder
from earthvlm.embeddings.indexed_images import IndexSettings, list_parts, read_images
from earthvlm.embeddings.note_counter import NoteCounter
from earthvlm.scenes.bands import FILE_ORDER_12
from earthvlm.search.index import SceneIndex
from tests.scenes.products.test_band_folders import write_folder
from tests.support.made_products import NAME, OLD_NAME, make_tile, pack, write_safe
from tests.support.made_rasters import make_values, write_tiff
from tests.support.made_scenes import TinyBridge, get_ids


@pytest.fixture
def folder(tmp_path):
    """A product in each form, a raster, and files that are none."""
    images = tmp_path / "images"
    safe = write_safe(images, make_tile())
    old = write_safe(tmp_path / "elsewhere", make_tile(), OLD_NAME, offset=0)
    (images / "archives").mkdir()
    pack(old, images / "archives" / f"{OLD_NAME}.SAFE.zip")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("no product")
    pack(tmp_path / "letters", images / "archives" / "letters.zip")
    write_folder(images / "patch", {band: f"patch_{band}.tif" for band in FILE_ORDER_12})
    write_tiff(images / "plain.tif", make_values(side=64), FILE_ORDER_12)
    return images, safe


def run(images, output, report=lambda _: None):
    settings = IndexSettings(tile_size=48)
    return index_folder(images, output, TinyBridge(), "owner/bridge", settings, report=report)


def test_products_are_found_as_one_image_each(folder, tmp_path):
    found = find_images(folder[0], tmp_path / "index")
    assert set(found) == {
        f"{NAME}.SAFE",
        f"archives/{OLD_NAME}.SAFE.zip",
        "patch",
        "plain.tif",
    }
    assert find_images(folder[1], tmp_path / "index") == {f"{NAME}.SAFE": folder[1]}


def test_products_are_cut_into_tiles_and_followed(folder, tmp_path):
    images, safe = folder
    report = run(images, tmp_path / "index")
    assert (report.embedded, report.refused, report.tiles) == (4, 0, 4 + 4 + 4 + 4)
    ids = get_ids(SceneIndex.from_pretrained(tmp_path / "index").browse(k=20))
    assert f"{NAME}_r001_c000" in ids and f"archives__{OLD_NAME}_r000_c001" in ids
    again = run(images, tmp_path / "index")
    assert (again.embedded, again.kept) == (0, 4)
    for path in safe.rglob("*.jp2"):
        os.utime(path)  # touched, and with the same content
    assert run(images, tmp_path / "index").kept == 4
    metadata = safe / "MTD_MSIL2A.xml"
    metadata.write_text(metadata.read_text().replace("10:56:29", "10:56:30"))
    assert run(images, tmp_path / "index").embedded == 1


def test_notes_are_reported_and_recorded(tmp_path):
    values = make_values(side=96, offset=1000)
    values[:20, :30] = 0
    (tmp_path / "images").mkdir()
    write_tiff(tmp_path / "images" / "noted.tif", values, FILE_ORDER_12)
    lines: list[str] = []
    run(tmp_path / "images", tmp_path / "index", lines.append)
    notes = [line.removeprefix("noted.tif: ") for line in lines[1:]]
    assert any("+1000 offset of newer products was taken off" in note for note in notes)
    filled = next(note for note in notes if "hold no data" in note)
    assert filled.endswith("(so in 1 of 4 tiles)")
    (part,) = list_parts(tmp_path / "index")
    assert list(read_images(part)[0].notes) == notes


def test_bad_images_are_left_out_by_name(folder, tmp_path):
    images, safe = folder
    (red,) = safe.rglob("*B04_10m.jp2")
    red.write_bytes(red.read_bytes()[:400])
    (images / "text.tif").write_text("no raster")
    filled = make_values(side=64).astype(np.float32)
    filled[:] = 9.96921e36
    write_tiff(images / "filled.tif", filled, FILE_ORDER_12)
    partly = make_values(side=64).astype(np.float32)
    partly[:20, :20] = np.inf
    write_tiff(images / "partly.tif", partly, FILE_ORDER_12)
    lines: list[str] = []
    report = run(images, tmp_path / "index", lines.append)
    refused = [line for line in lines if "was left out" in line]
    assert report.embedded == 5 and report.refused == 2
    assert any(
        line.startswith(f"{NAME}.SAFE") and "B04_10m.jp2' is damaged" in line for line in refused
    )
    assert any(line.startswith("text.tif") for line in refused)
    assert any("partly.tif: " in line and "hold no data" in line for line in lines)


def test_an_unreadable_file_does_not_end_the_run(folder, tmp_path, monkeypatch):
    images, _ = folder
    gone = images / "gone.tif"
    write_tiff(gone, make_values(side=64), FILE_ORDER_12)
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        gone.unlink(missing_ok=True)  # while the run goes on

    assert run(images, tmp_path / "index", report).embedded == 4
    assert any(line.startswith("gone.tif was left out: ") for line in lines)


def test_notes_that_differ_in_numbers_are_one():
    counter = NoteCounter()
    for notes in (
        ["A note.", "12% are missing."],
        ["A note.", "Less than 1% are missing."],
        ["A note."],
    ):
        counter.add(notes)
    assert counter.summarize() == (
        "A note.",
        "12% are missing. (so or with other numbers in 2 of 3 tiles)",
    )
