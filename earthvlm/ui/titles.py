"""What a scene is called on the page: its place and date where they are known, else its file."""

from __future__ import annotations

from earthvlm.scenes.formatting import describe_date, describe_place
from earthvlm.scenes.scene import Scene


def make_title(scene: Scene) -> str:
    """Return a title as in "62.82° N 30.60° E, 24 September 2017"; the file's name without both."""
    place = describe_place(scene.longitude, scene.latitude, decimals=2)
    date = describe_date(scene.date) if scene.date else ""
    return ", ".join(part for part in (place, date) if part) or scene.name
