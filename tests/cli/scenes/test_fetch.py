"""`earthvlm fetch`: the least cloudy scene of a place and time, from a STAC API on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from earthvlm import Scene
from earthvlm.cli import main
from tests.cli.support import assert_one_sentence
from tests.support.made_items import write_item
from tests.support.stac_server import serve_stac

APPLIED = {"earthsearch:boa_offset_applied": True}
PLACE = "42.3595 2.7620"
DATES = "2023-07-01/2023-07-31"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue")
    for name, day, cloud in (
        ("cloudy", "2023-07-06T10:56:29Z", 15),
        ("clear", "2023-07-16T10:56:29Z", 3),
        ("august", "2023-08-16T10:56:29Z", 0),
    ):
        properties = {**APPLIED, "datetime": day, "eo:cloud_cover": cloud}
        write_item(folder, name=name, properties=properties, raster={"scale": 0.0001})
    with serve_stac(folder) as running:
        yield running


def fetch(server, *arguments: str) -> int:
    return main(["fetch", "--api", server.address, "--date", DATES, *arguments])


def test_the_least_cloudy_scene_is_saved(server, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fetch(server, "--place", PLACE, "--size", "32") == 0
    captured = capsys.readouterr()
    assert captured.out == "clear.tif\n"
    assert "cloud cover 3 %, the least of 2 scenes" in captured.err
    scene = Scene.open("clear.tif")
    assert str(scene.date) == "2023-07-16" and len(scene.bands) == 12
    assert scene.latitude == pytest.approx(42.3595, abs=2e-4)
    assert scene.longitude == pytest.approx(2.7620, abs=2e-4)
    assert scene.width in (32, 33, 34) and scene.pixel_metres == pytest.approx(10, rel=0.01)
    whole = Scene.open(server.folder / "clear.json")
    left = round((scene.grid.transform[2] - whole.grid.transform[2]) / 10)
    top = round((whole.grid.transform[5] - scene.grid.transform[5]) / 10)
    same = whole.reflectance[top : top + scene.height, left : left + scene.width]
    assert np.abs(scene.reflectance - same).max() <= 1

    saved = Path("clear.tif").read_bytes()
    assert fetch(server, "--place", PLACE, "--size", "16") == 2  # another part, of the same name
    assert "clear.tif exists already: name another file with --output" in capsys.readouterr().err
    assert Path("clear.tif").read_bytes() == saved
    assert fetch(server, "--place", PLACE, "--size", "16", "--output", "clear.tif") == 0
    assert "earthvlm: clear.tif exists and will be replaced.\n" in capsys.readouterr().err
    assert Scene.open("clear.tif").width < 20


def test_what_fits_is_listed(server, capsys):
    assert fetch(server, "--place", PLACE, "--size", "32", "--list", "--cloud", "10") == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["id"] == "clear" and found["cloud"] == 3
    assert found["address"] == f"{server.address}/clear.json"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--place", "48.1"], "is not latitude and longitude as in '48.1 11.6'"),
        (["--place", "148.1 11.6"], "is not latitude and longitude"),
        (["--place", "48.1 11.6"], "No scene of 2023-07-01 to 2023-07-31 with at most 20 % cloud"),
        (["--place", PLACE, "--date", "June"], "is not a day or two as in 2024-06-01/2024-06-30"),
        (["--place", PLACE, "--date", "2023-07-02/2023-07-01"], "ends before it begins"),
        (["--place", PLACE, "--api", "file:///etc"], "is no address of a STAC API"),
        (["--place", PLACE, "--api", "http://127.0.0.1:1"], "could not be searched"),
        (["--place", PLACE, "--output", "scene.png"], "--output ends in .tif or .tiff, not"),
        (["--bbox", "3", "43", "3", "42"], "is no bounding box"),
    ],
)
def test_wrong_searches_get_one_sentence(server, capsys, arguments, words):
    assert_one_sentence(fetch(server, *arguments), capsys.readouterr(), words)


def test_a_catalogue_that_fails_is_named(server, capsys):
    server.failing = 50
    code = fetch(server, "--place", PLACE)
    server.failing = 0
    assert_one_sentence(code, capsys.readouterr(), "The STAC API at", "could not be searched")
