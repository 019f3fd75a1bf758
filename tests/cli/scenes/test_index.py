"""`earthvlm index`: what it prints, and searches by a file that the index holds."""

from __future__ import annotations

import shutil

import pytest

from earthvlm.cli import main
from earthvlm.search.index import SceneIndex
from tests.embeddings.test_folder_index import write_image
from tests.support.made_scenes import TinyBridge


@pytest.fixture
def images(tmp_path, monkeypatch):
    for command in ("index", "search"):
        monkeypatch.setattr(f"earthvlm.cli.scenes.{command}.load_bridge", lambda *_: TinyBridge())
    folder = tmp_path / "images"
    write_image(folder / "dated.tif", 64, 64, seed=1, ACQUISITION_DATE="2020-06-30")
    write_image(folder / "undated.tif", 64, 64, seed=2)
    write_image(folder / "large.tif", 64, 128, seed=3, ACQUISITION_DATE="2020-07-30")
    return folder


def index(images) -> str:
    output = images.with_name("my_index")
    assert main(["index", str(images), "--output", str(output), "--tile_size", "64"]) == 0
    return str(output)


def test_index_says_what_filters_will_leave_out(images, capsys):
    output = index(images)
    captured = capsys.readouterr()
    assert captured.out.startswith("3 images embedded (4 tiles, 0 of them cloudy;")
    assert "earthvlm: dated.tif: 1 tile (1 of 3 images).\n" in captured.err
    sentence = "1 of 4 tiles in the index without a date: searches with --from_date and --to_date"
    assert sentence in captured.err and "without a place" not in captured.err
    (images / "undated.tif").unlink()
    index(images)
    assert "without a date" not in capsys.readouterr().err
    assert len(SceneIndex.from_pretrained(output)) == 3


def test_search_says_what_a_filter_left_out(images, capsys):
    output = index(images)
    capsys.readouterr()
    like = ["--like", "dated", "--index", output]
    assert main(["search", *like, "--from_date", "2020-01-01"]) == 0
    assert capsys.readouterr().err == "earthvlm: 1 scene without a date was left out.\n"
    assert main(["search", *like]) == 0
    assert capsys.readouterr().err == ""


def test_a_file_of_the_index_does_not_find_itself(images, capsys):
    output = index(images)
    copy = images.with_name("copy.tif")  # the same content, by another name
    shutil.copy(images / "large.tif", copy)
    tile = f"{output}/scenes/undated.tif"
    capsys.readouterr()
    assert main(["search", "--like", str(copy), "--like", tile, "--index", output]) == 0
    captured = capsys.readouterr()
    assert [line.split()[1] for line in captured.out.splitlines()] == ["dated"]
    assert f"{copy} is in this index, so its 2 tiles are left out of the results." in captured.err
    assert f"{tile} is in this index, so it is left out of the results." in captured.err
    stranger = images.with_name("stranger.tif")
    write_image(stranger, 64, 64, seed=9)
    assert main(["search", "--like", str(stranger), "--index", output]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 4 and "left out" not in captured.err
