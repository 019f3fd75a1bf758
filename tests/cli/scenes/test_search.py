"""`earthvlm search`: what it prints."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace

import pytest

from earthvlm.cli import main
from earthvlm.embeddings.filters import SceneFilter
from tests.cli.support import needs_bundled_bridge, needs_bundled_index


def test_search_prints_rank_similarities_place_and_caption(monkeypatch, capsys):
    from earthvlm.search.index import SceneResult, SearchResults

    searched = {}
    found = SceneResult(
        *("lake", "A lake\nbeside forest.", "val", -12.5, 52.47, "ESA", None, None),
        caption_similarity=0.61234,
        caption_rank=4,
        date=datetime.date(2020, 6, 30),
    )

    class FakeIndex:
        def get(self, image_id):
            return found

        def search(self, queries, **options):
            searched.update(options, queries=queries)
            return SearchResults([found, replace(found, longitude=None, caption=None, date=None)])

    monkeypatch.setattr(
        "earthvlm.search.index.SceneIndex.from_pretrained", lambda *_, **__: FakeIndex()
    )
    options = "--top_k 2 --split val --bbox -4 -5 3 5 --from_date 2020-01-01 --source ESA".split()
    assert main(["search", "a lake", *options]) == 0
    where = SceneFilter("val", (-4, -5, 3, 5), datetime.date(2020, 1, 1), source="ESA")
    expected = {"queries": ["a lake"], "k": 2, "where": where, "bridge": None, "unlike": []}
    expected["left_out"] = []
    assert searched == expected
    assert capsys.readouterr().out == (
        "  1  lake  caption 0.612 (#4)  52.4700° N 12.5000° W  2020-06-30\n"
        "     A lake beside forest.\n"
        "  2  lake  caption 0.612 (#4)\n"
    )
    assert main(["search", "a lake", "--like", "lake", "--json"]) == 0
    assert searched["queries"] == ["a lake", found]
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["rank"] == 1
    assert first["caption_similarity"] == 0.61234
    assert first["scene_similarity"] is None
    assert first["date"] == "2020-06-30"


@needs_bundled_index
def test_the_bundled_index_is_searched(capfd):
    assert main(["search", "a lake beside forest", "--top_k", "3", "--json"]) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    results = [json.loads(line) for line in captured.out.splitlines()]
    assert [r["rank"] for r in results] == [1, 2, 3]
    assert all(-1 <= r["scene_similarity"] <= 1 for r in results)


@needs_bundled_index
def test_found_scenes_are_written_to_a_file(tmp_path, capfd):
    path = tmp_path / "lakes.geojson"
    command = ["search", "a lake", "--top_k", "4", "--json", "--output"]
    assert main([*command, str(path)]) == 0
    captured = capfd.readouterr()
    assert captured.err == f"earthvlm: 4 scenes were written to {path}.\n"
    printed = [json.loads(line) for line in captured.out.splitlines()]
    features = json.loads(path.read_text("utf-8"))["features"]
    assert [feature["id"] for feature in features] == [result["image_id"] for result in printed]
    for feature, result in zip(features, printed, strict=True):
        values = feature["properties"]
        assert values["caption_similarity"] == result["caption_similarity"]
        assert values["scene_file"] == result["scene_file"]
    assert main([*command, str(path)]) == 0
    assert capfd.readouterr().err.startswith(f"earthvlm: {path} exists and will be replaced.\n")
    nothing = ["--from_date", "2030-01-01", "--output", str(tmp_path / "none.csv")]
    assert main(["search", "a lake", *nothing]) == 0
    assert not (tmp_path / "none.csv").exists()


@needs_bundled_index
def test_an_area_without_scenes_is_said_in_words(capfd):
    assert main(["search", "a lake", *"--bbox 47 4 55 16".split()]) == 0  # latitudes first
    said = capfd.readouterr().err
    assert "--bbox was 47.00° E to 55.00° E, 4.00° N to 16.00° N; its order is west" in said


@pytest.mark.parametrize(
    ("output", "message"), [("lakes.shp", "end its name with"), ("no/where.csv", "no folder")]
)
def test_an_output_that_cannot_be_written_is_refused_first(output, message, monkeypatch, capfd):
    monkeypatch.setattr("earthvlm.search.index.SceneIndex.from_pretrained", None)
    assert main(["search", "a lake", "--output", output]) == 2
    captured = capfd.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1


@needs_bundled_bridge
@needs_bundled_index
@pytest.mark.slow
def test_the_bundled_index_is_searched_by_a_scene(scene_file, capfd):
    assert main(["search", "--scene", scene_file, "--top_k", "2", "--json"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 2
