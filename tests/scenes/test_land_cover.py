"""Shares, places and connected parts of a land-cover map."""

import numpy as np
import pytest

from earthvlm.scenes.land_cover import (
    COVER_COLOURS,
    COVERS,
    NO_DATA,
    CoverMap,
    rounded_percent,
)

WATER, TREES = COVERS.index("water"), COVERS.index("tree cover")


def forest(side: int = 30) -> np.ndarray:
    return np.full((side, side), TREES, np.uint8)


def test_shares_leave_out_pixels_without_data():
    classes = forest()
    classes[:15] = NO_DATA
    classes[15:, :15] = WATER
    shares = CoverMap(classes).shares
    assert shares["water"] == pytest.approx(0.5)
    assert shares["tree cover"] == pytest.approx(0.5)
    assert sum(shares.values()) == pytest.approx(1)


def test_map_without_any_data_has_no_shares():
    assert set(CoverMap(np.full((4, 4), NO_DATA, np.uint8)).shares.values()) == {0.0}


def test_fields_are_named_from_the_top_left():
    classes = forest()
    classes[:10, 20:] = WATER
    fields = CoverMap(classes).fields
    assert [name for name, field in fields.items() if field.shares["water"]] == ["top right"]


def test_river_is_elongated_and_lake_compact():
    classes = forest(60)
    classes[9:21, 10:22] = WATER
    classes[np.arange(60), np.clip(np.arange(60) // 3 + 35, 0, 59)] = WATER
    classes[np.arange(60), np.clip(np.arange(60) // 3 + 36, 0, 59)] = WATER
    lake, river = CoverMap(classes).parts("water")
    assert (lake.elongated, river.elongated) == (False, True)
    assert lake.row == pytest.approx(0.25)
    assert lake.column == pytest.approx(16 / 60)


def test_parts_below_the_smallest_size_are_left_out():
    classes = forest()
    classes[3, 3:6] = WATER
    assert CoverMap(classes).parts("water") == []
    assert len(CoverMap(classes).parts("water", smallest=3)) == 1


def test_every_cover_has_a_colour():
    assert tuple(COVER_COLOURS) == COVERS


def test_small_lakes_are_in_view_and_scattered_pixels_are_not():
    classes = forest(256)
    classes[20:32, 20:32] = WATER
    assert CoverMap(classes).shares["water"] < 0.003
    assert CoverMap(classes).shows("water")
    classes = forest(256)
    classes[::16, ::16] = WATER
    assert not CoverMap(classes).shows("water")


def test_shares_of_the_ground_leave_out_clouds():
    classes = forest()
    classes[:15] = COVERS.index("cloud")
    classes[15:, :10] = WATER
    assert CoverMap(classes).ground_shares["water"] == pytest.approx(1 / 3)
    assert CoverMap(classes).shows("cloud")


@pytest.mark.parametrize(
    ("drow", "dcolumn", "ends"),
    [
        (0, 1, ("left", "right")),
        (1, 0, ("top", "bottom")),
        (1, 1, ("top left", "bottom right")),
        (1, -1, ("bottom left", "top right")),
    ],
)
def test_rivers_run_between_two_sides(drow, dcolumn, ends):
    classes = forest(60)
    steps = np.arange(-25, 26)
    for width in range(3):
        classes[30 + drow * steps + width, 30 + dcolumn * steps] = WATER
        classes[30 + drow * steps, 30 + dcolumn * steps + width] = WATER
    assert CoverMap(classes).parts("water")[0].ends == ends


def test_surroundings_are_what_lies_next_to_a_cover():
    classes = forest()
    classes[10:20, 10:20] = WATER
    classes[20:] = COVERS.index("bare soil")
    around = CoverMap(classes).surroundings("water")
    assert list(around)[:2] == ["tree cover", "bare soil"]
    assert around["water"] == 0 and around["tree cover"] == pytest.approx(0.75, abs=0.08)


def test_percents_are_whole_where_small_and_steps_of_five_above():
    assert [rounded_percent(share) for share in (0.002, 0.034, 0.08, 0.33, 1)] == [
        0,
        3,
        10,
        35,
        100,
    ]
