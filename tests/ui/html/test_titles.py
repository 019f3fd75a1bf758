"""Titles of scenes, made of their place and date."""

from __future__ import annotations

import datetime
from dataclasses import replace

from earthvlm.ui.html.titles import make_title
from tests.conftest import random_scene

DATE = datetime.date(2017, 9, 24)


def test_titles_are_made_of_place_and_date():
    scene = replace(random_scene(), name="patch_12", date=None, longitude=None, latitude=None)
    assert make_title(scene) == "patch_12"
    assert make_title(replace(scene, date=DATE)) == "24 September 2017"
    placed = replace(scene, date=DATE, longitude=13.0, latitude=55.6)
    assert make_title(placed) == "Near Malmö, Sweden, 24 September 2017"
