"""Days, places and boxes in words."""

import datetime

from earthvlm.scenes.places.formatting import (
    describe_area,
    describe_bbox,
    describe_climate,
    describe_count,
    describe_date,
    describe_place,
    season,
)


def test_a_day_and_a_place_have_one_form():
    assert describe_date(datetime.date(2020, 2, 2)) == "2 February 2020"
    assert describe_place(-2.8154, -42.35) == "42.350° S 2.815° W"
    assert describe_place(12.6, 52.5, decimals=1) == "52.5° N 12.6° E"
    assert describe_place(None, 52.5) == describe_place(12.6, None) == ""


def test_a_box_over_the_date_line_is_told_as_it_is():
    assert describe_bbox((170, -20, -170.5, 0)) == (
        "170.00° E to 170.50° W across the date line, 20.00° S to 0.00° N"
    )
    assert "date line" not in describe_bbox((-180, -20, 180, 0))


def test_seasons_are_turned_around_in_the_south():
    january, october = datetime.date(2020, 1, 3), datetime.date(2020, 10, 3)
    assert [season(january, 45), season(january, -45)] == ["winter", "summer"]
    assert [season(october, 45), season(october, -45)] == ["autumn", "spring"]
    assert season(datetime.date(2020, 12, 3), 45) == "winter"
    assert season(january, None) is None and season(january, -3) is None


def test_each_latitude_has_a_climate_belt():
    belts = [describe_climate(latitude) for latitude in (-3, 30, -42, 60, 90)]
    assert belts == ["tropical", "subtropical", "temperate", "boreal", "polar"]


def test_counts_have_the_noun_in_singular_or_plural():
    counts = [(0, "tile"), (1, "tile"), (1200, "tile"), (2, "search"), (2, "process"), (2, "entry")]
    assert [describe_count(*count) for count in counts] == [
        "0 tiles",
        "1 tile",
        "1,200 tiles",
        "2 searches",
        "2 processes",
        "2 entries",
    ]


def test_areas_have_two_digits_in_hectares_or_square_kilometres():
    areas = (600, 12_345, 994_000, 996_000, 1_234_567, 98_765_432)
    assert [describe_area(area) for area in areas] == [
        "0.06 ha",
        "1.2 ha",
        "99 ha",
        "1 km2",
        "1.2 km2",
        "99 km2",
    ]
