"""An online map below the scenes of the Map tab, where the server's owner names one.

Without it the page loads nothing from other servers. With it, visitors' browsers ask that server
for pictures of the part of the world they look at, and the page's policy allows that server alone.
"""

from __future__ import annotations

import html
import os
import re
from dataclasses import dataclass

VARIABLE = "EARTHVLM_BASEMAP"
EXAMPLE = (
    "https://tile.openstreetmap.org/{z}/{x}/{y}.png © OpenStreetMap contributors "
    "https://www.openstreetmap.org/copyright"
)
# Nothing of it can leave the image sources of a Content-Security-Policy.
_ORIGIN = r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::\d+)?"
_SETTING = re.compile(rf"(({_ORIGIN})/\S+)\s+(.*?)\s*(https?://\S+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Basemap:
    """Square pictures of the world, 256 pixels wide, in Web Mercator.

    address: with {z}, {x} and {y} in place of the zoom level, the column and the row. origin: of
    the address. credit: HTML that names whom the map is from.
    """

    address: str
    origin: str
    credit: str


def read_basemap() -> Basemap | None:
    """Return the online map that the environment names, or None.

    Raises:
        ValueError: the variable has no address with {z}, {x} and {y}, or nothing to credit.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    found = _SETTING.fullmatch(text)
    address, origin, words, link = found.groups() if found else ("", "", "", None)
    if sorted(re.findall(r"\{.*?\}", address)) != ["{x}", "{y}", "{z}"] or not words:
        raise ValueError(
            f"{VARIABLE} is {text!r}; give the address of map tiles with {{z}}, {{x}} and {{y}}, "
            f"then a space and the words that credit the map, then a link if there is one: "
            f"{EXAMPLE}"
        )
    credit = html.escape(words)
    if link:
        credit = f'<a href="{html.escape(link)}" target="_blank" rel="noopener">{credit}</a>'
    return Basemap(address, origin, credit)
