"""The land-cover map over a scene's picture: an overlay, its legend and its opacity."""

from __future__ import annotations

import base64
import html
import io

import numpy as np
from PIL import Image

from earthvlm.scenes.analysis.spectral_indices import percent
from earthvlm.scenes.land_cover import COVER_COLOURS, COVERS, NO_DATA, CoverMap

MAX_SIDE = 1024  # larger maps are shrunk for the page alone
OPACITY = 60  # percent, at the start
LEAST_LISTED = 0.0005  # covers of less are left out of the legend


def show_overlay(cover_map: CoverMap) -> str:
    """Return HTML of the map as a picture over the scene's, transparent where there are no data."""
    picture = Image.fromarray(cover_map.classes)
    if max(picture.size) > MAX_SIDE:
        picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.NEAREST)
    colours = np.zeros((NO_DATA + 1, 3), np.uint8)
    colours[: len(COVERS)] = [COVER_COLOURS[cover] for cover in COVERS]
    picture.putpalette(colours.tobytes())
    data = io.BytesIO()
    picture.save(data, format="PNG", transparency=NO_DATA)
    source = base64.b64encode(data.getvalue()).decode()
    return (
        f'<img class="covers" src="data:image/png;base64,{source}" alt="Land-cover map" '
        f'style="opacity: {OPACITY / 100}" draggable="false">'
    )


def show_legend(cover_map: CoverMap) -> str:
    """Return HTML of the colours of the map with the covers' shares, and of its opacity."""
    items = "".join(
        f'<li><i style="background: rgb{COVER_COLOURS[cover]}"></i>{html.escape(cover)} '
        f"<b>{percent(share)}</b></li>"
        for cover, share in cover_map.shares.items()
        if share > LEAST_LISTED
    )
    return (
        '<div class="covers-key" role="group" aria-label="Land-cover map">'
        '<label><span class="mark model">model</span> Land-cover map '
        f'<input type="range" class="opacity" min="0" max="100" value="{OPACITY}" '
        'aria-label="Opacity of the land-cover map"></label>'
        f"<ul>{items}</ul></div>"
    )
