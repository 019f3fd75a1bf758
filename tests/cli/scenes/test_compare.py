"""`earthvlm compare`: the changes between two dates, as a table, as JSON and as a map."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio

from earthvlm.cli import main
from earthvlm.scenes.analysis.change_detection import CHANGE_COLOURS
from earthvlm.scenes.grid import Grid
from tests.cli.support import assert_one_sentence
from tests.support.made_spectra import paint

GRID = Grid("EPSG:32633", (10.0, 0.0, 330_000.0, 0.0, -10.0, 5_822_040.0))
WINTER, SUMMER = datetime.date(2020, 1, 5), datetime.date(2021, 7, 6)


@pytest.fixture
def pair(tmp_path) -> list[str]:
    """Two dates of one place, the later one first."""
    before = paint("water", "water", "bare or built", date=WINTER, grid=GRID, boa_offset=False)
    after = paint("water", "bare or built", "bare or built", date=SUMMER, grid=GRID)
    after.save(tmp_path / "after.tif")
    before.save(tmp_path / "before.tif")
    return [str(tmp_path / "after.tif"), str(tmp_path / "before.tif")]


def test_changes_are_a_table_in_the_order_of_dates(pair, capsys):
    assert main(["compare", *pair]) == 0
    captured = capsys.readouterr()
    head, first, second, *others = captured.out.splitlines()
    assert head.split()[2:4] == ["2020-01-05", "2021-07-06"] and "percentage points" in head
    assert {first.split("  ")[0], second.split("  ")[0]} == {"water", "bare or built"}
    water = first if first.startswith("water") else second
    assert "67 %" in water and "33 %" in water and "-33.3 ± " in water
    assert others and all(line.endswith("(within its error)") for line in others)
    assert "earthvlm: The seasons differ, so vegetation differs" in captured.err


def test_changes_are_shares_in_json(pair, capsys):
    assert main(["compare", *pair, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["before"] == {"path": pair[1], "date": "2020-01-05"}
    assert found["after"] == {"path": pair[0], "date": "2021-07-06"} and found["compared"] == 1
    water = next(change for change in found["changes"] if change["cover"] == "water")
    assert (water["before"], water["after"]) == (0.6667, 0.3333)
    assert water["difference"] == -0.3333 and water["certain"] and 0 < water["error"] < 0.1
    assert len(found["doubts"]) == 1


def test_change_of_a_cover_is_a_map_on_the_grid(pair, tmp_path, capsys):
    output = tmp_path / "change.tif"
    assert main(["compare", *pair, "--output", str(output), "--cover", "water"]) == 0
    assert f"{output} shows where water was gained and lost." in capsys.readouterr().err
    with rasterio.open(output) as file:
        assert tuple(file.transform)[:6] == GRID.transform and file.crs.to_epsg() == 32633
        values, colours, tags = file.read(1), file.colormap(1), file.tags()
    lost = list(CHANGE_COLOURS).index("lost")
    assert values[0, ::8].tolist() == [0, lost, 255]  # water both times, lost, and neither time
    assert colours[lost][:3] == CHANGE_COLOURS["lost"] and tags[f"CLASS_{lost}"] == "lost"
    assert tags["ACQUISITION_DATE"] == "2021-07-06"
    code = main(["compare", *pair, "--output", str(tmp_path / "b.tif"), "--cover", "snow"])
    assert code == 2 and "--cover snow is in neither scene; those are" in capsys.readouterr().err
    assert not (tmp_path / "b.tif").exists()


def test_what_cannot_be_compared_is_one_sentence(pair, tmp_path, capsys):
    assert_one_sentence(main(["compare", *pair, "--cover", "water"]), capsys.readouterr(), "give a")
    code = main(["compare", *pair, "--output", pair[0]])
    assert_one_sentence(code, capsys.readouterr(), "would overwrite")
    bands = ("B02", "B03", "B04")
    paint("water", bands=bands, date=WINTER, grid=GRID).save(tmp_path / "photo.tif")
    assert main(["compare", pair[0], str(tmp_path / "photo.tif")]) == 2
    assert "cannot be measured, because a scene has no near-infrared" in capsys.readouterr().err
    moved = Grid(GRID.crs, (10.0, 0.0, 430_000.0, 0.0, -10.0, 5_822_040.0))
    paint("water", date=WINTER, grid=moved).save(tmp_path / "elsewhere.tif")
    assert main(["compare", pair[0], str(tmp_path / "elsewhere.tif")]) == 2
    captured = capsys.readouterr()
    assert "These are two places, 100 km apart" in captured.err and not captured.out
    paint("water", date=WINTER, grid=GRID).save(tmp_path / "small.tif")
    small = [pair[0], str(tmp_path / "small.tif")]
    assert main(["compare", *small]) == 0 and "water" in capsys.readouterr().out
    assert main(["compare", *small, "-o", str(tmp_path / "c.tif")]) == 2
    assert "No map was written: The scenes differ in size" in capsys.readouterr().err


def test_no_model_is_loaded(pair):
    """Spectral indices need neither torch nor the app."""
    program = (
        "import sys; from earthvlm.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or any(name in sys.modules for name in ('torch', 'gradio')))"
    )
    done = subprocess.run([sys.executable, "-c", program, "compare", *pair], check=False)
    assert done.returncode == 0


@pytest.mark.slow
def test_boadella_reservoir_has_lost_water(practice_data: Path, capsys):
    files = [
        str(practice_data / "scenes" / f"boadella_{date}_L2A.tif")
        for date in ("2020-09-14", "2022-03-08")
    ]
    assert main(["compare", *files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    water = next(change for change in found["changes"] if change["cover"] == "water")
    assert water["certain"] and -0.06 < water["difference"] < -0.03
    cloudy = str(practice_data / "scenes" / "boadella_2020-01-18_L2A.tif")
    assert main(["compare", cloudy, files[0]]) == 2
    assert "too little to compare" in capsys.readouterr().err
