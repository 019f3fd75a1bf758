"""What a scene is called on the page: its place and date where they are known, else its file."""

from __future__ import annotations

from earthvlm.scenes.places.formatting import describe_date
from earthvlm.scenes.places.gazetteer import describe_nearest
from earthvlm.scenes.scene import Scene


def make_title(scene: Scene) -> str:
    """Return "Near Malmö, Sweden, 24 September 2017", as far as known, else the file's name."""
    place = describe_nearest(scene.longitude, scene.latitude)
    place = place[:1].upper() + place[1:]
    date = describe_date(scene.date) if scene.date else ""
    return ", ".join(part for part in (place, date) if part) or scene.name
