"""Shares, places and connected parts of a land-cover map."""

import numpy as np
import pytest

from earthvlm.scenes.land_cover import COVER_COLOURS, COVERS, NO_DATA, CoverMap

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
