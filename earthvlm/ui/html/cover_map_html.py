"""Land cover over a scene's picture: the model's map or what was measured, pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageColor

from earthvlm.scenes import land_cover
from earthvlm.scenes.analysis.spectral_indices import (
    COVER_CLASSES,
    NO_DATA,
    classify_pixels,
    percent,
)
from earthvlm.scenes.land_cover import CoverMap
from earthvlm.scenes.scene import Scene
from earthvlm.ui.html.data_uris import make_data_uri
from earthvlm.ui.html.scene_html import COVER_COLOURS

MAX_SIDE = 1024  # larger maps are shrunk for the page alone
OPACITY = 60  # percent, at the start
LEAST_LISTED = 0.0005  # covers of less are left out of the legend
# The measured classes in which the covers that the model names are found.
MEASURED_IN = {
    "water": ("water",),
    "snow or ice": ("snow",),
    "cloud": ("cloud",),
    "tree cover": ("dense vegetation",),
    "cropland or grass": ("dense vegetation", "sparse vegetation"),
    "sparse vegetation": ("sparse vegetation",),
    **dict.fromkeys(("bare soil", "built-up land", "burnt land"), ("bare or built",)),
}
ABOUT_MAP = "The model's map can be wrong. Choose a cover to hide or show it."
ABOUT_MEASURED = "By spectral indices, without the model. Choose a cover to hide or show it."


@dataclass(frozen=True, eq=False)
class CoverOverlay:
    """Land cover to be laid over a picture.

    Attributes:
        classes: uint8 `[H, W]`, an index in `colours`, or NO_DATA.
        colours: by cover: red, green and blue.
        source: "model" or "measured".
        asked: the covers that are shown at first; all where it is empty.
    """

    classes: np.ndarray
    colours: Mapping[str, tuple[int, ...]]
    source: str
    asked: tuple[str, ...] = ()


def overlay_map(cover_map: CoverMap, asked: Sequence[str] = ()) -> CoverOverlay:
    """Return the model's map as an overlay.

    asked: covers of which a question asks where they are.
    """
    colours = {cover: land_cover.COVER_COLOURS[cover] for cover in land_cover.COVERS}
    return CoverOverlay(cover_map.classes, colours, "model", tuple(asked))


def overlay_measured(scene: Scene, asked: Sequence[str] = ()) -> CoverOverlay | None:
    """Return what spectral indices measure as an overlay; None where they cannot.

    asked: covers, as the model names them, of which a question asks where they are.
    """
    classified = classify_pixels(scene)
    if classified is None:
        return None
    colours = {cover: ImageColor.getrgb(COVER_COLOURS[cover]) for cover in COVER_CLASSES}
    found = (measured for cover in asked for measured in MEASURED_IN.get(cover, ()))
    return CoverOverlay(classified.covers, colours, "measured", tuple(dict.fromkeys(found)))


def show_overlay(overlay: CoverOverlay) -> dict[str, Any]:
    """Return an overlay for the viewer: its classes as a grey picture, and the covers to list."""
    counts = np.bincount(overlay.classes.ravel(), minlength=NO_DATA + 1)[: len(overlay.colours)]
    shares = counts / max(counts.sum(), 1)
    names = list(overlay.colours)
    asked = [name for name in overlay.asked if shares[names.index(name)]]
    listed = [
        number
        for number in np.argsort(-shares, kind="stable").tolist()
        if shares[number] > LEAST_LISTED or names[number] in overlay.asked
    ]
    return {
        "picture": _encode(overlay.classes),
        "source": overlay.source,
        "note": ABOUT_MAP if overlay.source == "model" else ABOUT_MEASURED,
        "opacity": OPACITY,
        "covers": [
            {
                "number": number,
                "name": names[number],
                "colour": list(overlay.colours[names[number]]),
                "share": percent(float(shares[number])),
            }
            for number in listed
        ],
        "shown": [number for number in listed if not asked or names[number] in asked],
    }


def _encode(classes: np.ndarray) -> str:
    """Return classes as a PNG whose grey values are the classes, in a data URI."""
    picture = Image.fromarray(classes)
    if max(picture.size) > MAX_SIDE:
        picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.NEAREST)
    return make_data_uri(picture, "png")
