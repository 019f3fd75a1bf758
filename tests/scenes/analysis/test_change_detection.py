"""What changed between two scenes of one place, and when that is doubtful."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from earthvlm.scenes.analysis.change_detection import (
    WATER_CHANGE_COLOURS,
    compare,
    draw_water_change,
    in_order_of_date,
)
from earthvlm.scenes.bands import BANDS as ALL_BANDS
from earthvlm.scenes.scene import Scene
from tests.support.made_spectra import BANDS, paint

HERE = {"longitude": 2.8, "latitude": 42.3}


def draw(before: Scene, after: Scene) -> Image.Image | None:
    return draw_water_change(compare(before, after), after)


def test_change_is_measured_and_drawn_where_scenes_align():
    before = paint("water", "water", "bare or built", date=datetime.date(2020, 1, 1))
    after = paint("water", "bare or built", "bare or built", date=datetime.date(2021, 6, 1))
    assert in_order_of_date([after, before]) == [before, after]
    comparison = compare(before, after)
    first, second = comparison.changes[:2]
    assert {first.cover, second.cover} == {"water", "bare or built"}
    assert abs(first.difference) == pytest.approx(100 / 3)
    assert first.is_certain and second.is_certain and not comparison.changes[-1].is_certain
    assert comparison.compared == 1
    pixels = np.asarray(draw_water_change(comparison, after))
    assert tuple(pixels[0, 0]) == WATER_CHANGE_COLOURS["water in both"]
    assert tuple(pixels[0, 8]) == WATER_CHANGE_COLOURS["water lost"]
    assert tuple(np.asarray(draw(after, before))[0, 8]) == (WATER_CHANGE_COLOURS["water gained"])


def test_other_places_and_sizes_are_not_laid_over_each_other():
    before, after = paint("water", "bare or built"), paint("bare or built", "water")
    assert draw(before, paint("water")) is None
    assert compare(before, paint("water")).compared is None
    there = replace(before, longitude=30.0, latitude=62.0)
    elsewhere = replace(after, longitude=31.0, latitude=62.0)
    assert draw(there, elsewhere) is None
    assert compare(there, elsewhere).compared is None
    assert draw(there, replace(after, longitude=30.0, latitude=62.0)) is not None


def test_water_below_a_cloud_is_neither_gained_nor_lost():
    before = paint("water", "water", "water", "dense vegetation")
    after = paint("cloud", "water", "water", "dense vegetation")
    comparison = compare(before, after)
    assert comparison.compared == (24 - 3) / 32  # pixels next to the cloud are left out
    changes = {change.cover: change.difference for change in comparison.changes}
    assert changes["water"] == 0 and "cloud" not in changes
    assert any("Cloud hides 25" in doubt for doubt in comparison.doubts)
    pixels = np.asarray(draw(before, after))
    assert tuple(pixels[0, 0]) == WATER_CHANGE_COLOURS["not seen in both"]
    assert tuple(pixels[0, 10]) == WATER_CHANGE_COLOURS["not seen in both"]
    assert tuple(pixels[0, 12]) == WATER_CHANGE_COLOURS["water in both"]
    overcast = paint("cloud", "cloud", "cloud", "dense vegetation")
    hidden = compare(before, overcast)
    assert hidden.changes == () and "too little to compare" in hidden.doubts[-1]
    assert draw(before, overcast) is None


def test_scenes_without_infrared_are_not_compared():
    photo = paint("water", bands=("B02", "B03", "B04"))
    assert compare(photo, photo).changes == ()


def test_doubts_about_a_comparison_are_said():
    first = paint("water", date=datetime.date(2020, 1, 1), **HERE)
    other = paint("cloud", "water", date=datetime.date(2020, 7, 1), longitude=9, latitude=42.3)
    doubts = compare(first, other).doubts
    for words in ("lie apart", "differ in size", "Cloud hides", "seasons differ"):
        assert any(words in doubt for doubt in doubts), (words, doubts)
    assert compare(first, first).doubts == ()
    assert "does not give its place" in compare(first, paint("water")).doubts[0]


@pytest.mark.parametrize(("months", "differ"), [((12, 2), False), ((1, 11), False), ((1, 4), True)])
def test_seasons_are_compared_over_the_turn_of_the_year(months, differ):
    first, second = (paint("water", date=datetime.date(2020, month, 1), **HERE) for month in months)
    assert any("seasons" in doubt for doubt in compare(first, second).doubts) == differ


def test_haze_gains_no_water_and_loses_no_forest():
    clear = paint("water", "dense vegetation", "dense vegetation", **HERE)
    values = clear.reflectance[:, :, [ALL_BANDS.index(band) for band in BANDS]]
    hazy = Scene.from_array(
        values + np.array((780, 772, 765, 975, 640), np.float32), BANDS, boa_offset=False, **HERE
    )
    comparison = compare(clear, hazy)
    assert all(abs(change.difference) < 1 for change in comparison.changes)
    assert any("Haze lies over" in doubt for doubt in comparison.doubts)


@pytest.mark.slow
def test_boadella_gains_little_water_after_a_hazy_day(practice_data: Path):
    hazy, later, low, cloudy = (
        Scene.open(practice_data / "scenes" / f"boadella_{date}_L2A.tif")
        for date in ("2020-01-13", "2020-09-14", "2022-03-08", "2020-01-18")
    )
    changes = {change.cover: change for change in compare(hazy, later).changes}
    assert abs(changes["water"].difference) < 2 and not changes["water"].is_certain
    assert abs(changes["dense vegetation"].difference) < 15
    pixels = np.asarray(draw(hazy, later)).reshape(-1, 3)
    gained = (pixels == WATER_CHANGE_COLOURS["water gained"]).all(1).mean()
    assert gained < 0.03
    fallen = {change.cover: change for change in compare(later, low).changes}
    assert compare(cloudy, later).changes == ()
    assert fallen["water"].is_certain and -6 < fallen["water"].difference < -3
