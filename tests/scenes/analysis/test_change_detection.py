"""What changed between two scenes of one place, and when that is doubtful."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from earthvlm.scenes.analysis.change_detection import (
    CHANGE_COLOURS,
    UNCHANGED,
    compare,
    draw_change,
    in_order_of_date,
)
from earthvlm.scenes.bands import BANDS as ALL_BANDS
from earthvlm.scenes.scene import Scene
from tests.support.made_spectra import BANDS, paint

HERE = {"longitude": 2.8, "latitude": 42.3}


NAMES = [*CHANGE_COLOURS, "unchanged"]


def draw(before: Scene, after: Scene, cover: str = "water") -> np.ndarray:
    """The palette's numbers `[H, W]` of the change of a cover."""
    return np.asarray(draw_change(compare(before, after), cover))


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
    assert set(comparison.drawable) == {"water", "bare or built"}
    row = [NAMES[value] for value in draw(before, after)[0, ::8]]
    assert row == ["both times", "lost", "unchanged"]
    assert [NAMES[value] for value in draw(after, before)[0, ::8]][1] == "gained"
    row = [NAMES[value] for value in draw(before, after, "bare or built")[0, ::8]]
    assert row == ["unchanged", "gained", "both times"]
    picture = draw_change(comparison, "water")
    assert picture.info["transparency"] == UNCHANGED and picture.mode == "P"
    with pytest.raises(ValueError, match="'snow' cannot be drawn"):
        draw_change(comparison, "snow")


def test_other_places_and_sizes_are_not_laid_over_each_other():
    before, after = paint("water", "bare or built"), paint("bare or built", "water")
    assert compare(before, paint("water")).drawable == ()
    assert compare(before, paint("water")).compared is None
    there = replace(before, longitude=30.0, latitude=62.0)
    elsewhere = replace(after, longitude=31.0, latitude=62.0)
    refused = compare(there, elsewhere)
    assert refused.changes == refused.drawable == () and refused.compared is None
    assert "two places, 52 km apart (" in refused.doubts[0]
    assert compare(there, replace(after, longitude=30.0, latitude=62.0)).drawable


def test_water_below_a_cloud_is_neither_gained_nor_lost():
    before = paint("water", "water", "water", "dense vegetation")
    after = paint("cloud", "water", "water", "dense vegetation")
    comparison = compare(before, after)
    assert comparison.compared == (24 - 3) / 32  # pixels next to the cloud are left out
    changes = {change.cover: change.difference for change in comparison.changes}
    assert changes["water"] == 0 and "cloud" not in changes
    assert any("Cloud hides 25" in doubt for doubt in comparison.doubts)
    drawn = [NAMES[value] for value in draw(before, after)[0, [0, 10, 12]]]
    assert drawn == ["not seen in both", "not seen in both", "both times"]
    overcast = paint("cloud", "cloud", "cloud", "dense vegetation")
    hidden = compare(before, overcast)
    assert hidden.changes == () and "too little to compare" in hidden.doubts[-1]
    assert compare(before, overcast).drawable == ()


def test_scenes_without_infrared_are_not_compared():
    photo = paint("water", bands=("B02", "B03", "B04"))
    assert compare(photo, photo).changes == ()


def test_doubts_about_a_comparison_are_said():
    first = paint("water", date=datetime.date(2020, 1, 1), **HERE)
    other = paint("cloud", "water", date=datetime.date(2020, 7, 1), longitude=9, latitude=42.3)
    doubts = compare(first, other).doubts
    for words in ("two places", "differ in size", "Cloud hides", "seasons differ"):
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
    assert (draw(hazy, later) == NAMES.index("gained")).mean() < 0.03
    fallen = {change.cover: change for change in compare(later, low).changes}
    assert compare(cloudy, later).changes == ()
    assert fallen["water"].is_certain and -6 < fallen["water"].difference < -3
