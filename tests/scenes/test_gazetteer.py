"""Names of places: the nearest town, a town by its name, and boxes around it."""

from __future__ import annotations

import numpy as np
import pytest

from earthvlm.scenes.places.gazetteer import (
    describe_nearest,
    find_place,
    largest_places,
    nearest_place,
)


def test_nearest_town_names_a_position():
    assert nearest_place(13.0, 55.6).title == "Malmö, Sweden"
    assert describe_nearest(13.0, 55.6) == "near Malmö, Sweden"
    assert describe_nearest(8, 23) == "250 km east of Tamanghasset, Algeria"
    assert describe_nearest(179.9, -16.4).endswith(", Fiji")  # across the date line
    assert describe_nearest(None, 55.6) == describe_nearest(13.0, None) == ""


def test_towns_are_found_by_their_names():
    names = {
        "Porto": "Porto, Portugal",
        " PORTO ": "Porto, Portugal",
        "sao paulo": "São Paulo, Brazil",
        "München": "Munich, Germany",
        "Lissabon": "Lisbon, Portugal",
        "Brandenburg": "Brandenburg an der Havel, Germany",
        "Santiago, Chile": "Santiago, Chile",
    }
    assert {name: find_place(name).title for name in names} == names
    for name in ("", "Nowhereville", "Porto, Sweden"):
        with pytest.raises(ValueError, match="no town of more than 15,000 inhabitants"):
            find_place(name)
    with pytest.raises(ValueError, match="101 characters"):
        find_place("x" * 101)


def test_boxes_and_distances_around_a_town():
    porto = find_place("Porto")
    west, _, east, north = porto.bbox(100)
    assert north - porto.latitude == pytest.approx(100 / 111.19, abs=0.001)
    assert porto.distance_km(porto.longitude, north) == pytest.approx(100, abs=0.1)
    assert 100 < porto.distance_km(east, porto.latitude) < 101
    assert porto.distances_km(np.array([west]), np.array([porto.latitude])) > 100
    west, _, east, _ = find_place("Suva").bbox(300)
    assert west > 170 > -170 > east
    populations = [place.population for place in largest_places(50)]
    assert populations == sorted(populations, reverse=True) and len(populations) == 50
