"""What is measured in scenes, by hand-made spectra and by the Boadella reservoir's dates."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from earthvlm.scenes.change_detection import (
    WATER_CHANGE_COLOURS,
    compare,
    draw_water_change,
    in_order_of_date,
    warn_before_comparing,
)
from earthvlm.scenes.scene import Scene
from earthvlm.scenes.spectral_indices import (
    COVER_CLASSES,
    classify,
    measure,
    percent,
)
from tests.support.made_spectra import BANDS, SPECTRA, paint


def test_each_cover_is_told_by_its_spectrum():
    covers = classify(paint(*COVER_CLASSES))
    assert covers[0, ::8].tolist() == list(range(len(COVER_CLASSES)))
    measured = measure(paint("water", "water", "dense vegetation", "bare or built"))
    assert measured.share("water") == 0.5 and measured.vegetation == 0.25
    assert sum(measured.shares.values()) == pytest.approx(1)
    assert measured.water_index == "MNDWI"


def test_black_water_is_water_though_its_index_is_noise():
    values = np.full((16, 16, 5), (130, 105, 88, 145, 115), np.float32)
    values[:, :8] = SPECTRA["dense vegetation"]
    assert measure(Scene.from_array(values, BANDS)).share("water") == 0.5


def test_what_cannot_be_measured_is_not():
    assert measure(paint("water", bands=("B02", "B03", "B04"))) is None
    without_short_wave = measure(paint("water", bands=("B02", "B03", "B04", "B08")))
    assert without_short_wave.water_index == "NDWI"
    assert without_short_wave.share("water") == 1
    assert "cloud" not in without_short_wave.shares


def test_percent_is_readable():
    assert [percent(0), percent(0.001), percent(0.123)] == ["none", "under 1\u00a0%", "12\u00a0%"]


def test_change_is_measured_and_drawn_where_scenes_align():
    before = paint("water", "water", "bare or built", date=datetime.date(2020, 1, 1))
    after = paint("water", "bare or built", "bare or built", date=datetime.date(2021, 6, 1))
    assert in_order_of_date([after, before]) == [before, after]
    first, second = compare(measure(before), measure(after))[:2]
    assert {first.cover, second.cover} == {"water", "bare or built"}
    assert abs(first.difference) == pytest.approx(100 / 3)
    pixels = np.asarray(draw_water_change(before, after))
    assert tuple(pixels[0, 0]) == WATER_CHANGE_COLOURS["water in both"]
    assert tuple(pixels[0, 8]) == WATER_CHANGE_COLOURS["water lost"]
    assert (
        tuple(np.asarray(draw_water_change(after, before))[0, 8])
        == (WATER_CHANGE_COLOURS["water gained"])
    )
    assert draw_water_change(before, paint("water")) is None
    there = replace(before, longitude=30.0, latitude=62.0)
    elsewhere = replace(after, longitude=31.0, latitude=62.0)
    assert draw_water_change(there, elsewhere) is None
    assert draw_water_change(there, replace(after, longitude=30.0, latitude=62.0)) is not None


def test_doubts_about_a_comparison_are_said():
    here = {"longitude": 2.8, "latitude": 42.3}
    first = paint("water", date=datetime.date(2020, 1, 1), **here)
    doubts = warn_before_comparing(
        first, paint("cloud", "water", date=datetime.date(2020, 7, 1), longitude=9, latitude=42.3)
    )
    for words in ("lie apart", "differ in size", "Thick cloud hides", "seasons differ"):
        assert any(words in doubt for doubt in doubts), (words, doubts)
    assert warn_before_comparing(first, first) == []
    assert "does not give its place" in warn_before_comparing(first, paint("water"))[0]


def test_the_boadella_reservoir_falls(practice_data: Path):
    full, low, cloudy = (
        measure(Scene.open(practice_data / "scenes" / f"boadella_{date}_L2A.tif"))
        for date in ("2020-02-02", "2022-03-08", "2020-01-18")
    )
    assert full.share("water") > 0.19 and low.share("water") < 0.13
    assert compare(full, low)[0].cover == "water"
    assert cloudy.share("cloud") > 0.9
