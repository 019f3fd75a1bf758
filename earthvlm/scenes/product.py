"""Which Sentinel-2 product an image was cut from, as its name and tags tell."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass

_PRODUCT = re.compile(
    r"S2[A-D]_MSIL[12][AC]_\d{8}T\d{6}_N\d{4}_R\d{3}_T\d\d[A-Z]{3}_\d{8}T\d{6}(?!\d)"
)
# The letters of a zone's latitude band and of its 100 km square, without I and O.
_TILE = r"\d\d[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V]"
# "_T33UUU_" as ESA writes it, "S2A_33UUU_" as Earth Search does.
_TILES = (re.compile(rf"(?<![A-Z0-9])T({_TILE})(?![A-Z0-9])"), re.compile(rf"S2[A-D]_({_TILE})_"))
# The first that is found counts: in a product's name, the time after its tile is another.
_SENSED = (
    re.compile(r"S2[A-D]_MSIL[12][AC]_(\d{8}T\d{6})(?!\d)"),
    re.compile(r"(?<![A-Z0-9])T\d\d[A-Z]{3}_(\d{8}T\d{6})(?!\d)"),
)
# Written by Scene.save; the first is ESA's.
PRODUCT_TAG, TILE_TAG, TIME_TAG = "PRODUCT_URI", "MGRS_TILE", "SENSING_TIME"
_PRODUCT_KEYS = ("product_uri", "product_id", "s2:product_uri", "identifier", "title")
_TILE_KEYS = ("mgrs_tile", "s2:mgrs_tile", "tile_id", "tile")
_TIME_KEYS = ("sensing_time", "datatake_1_datatake_sensing_start", "datetime")


@dataclass(frozen=True)
class Product:
    """The Sentinel-2 product that a scene was cut from.

    Attributes:
        product_id: its name, as in S2A_MSIL2A_20170613T101031_N0205_R022_T33UUP_20170613T101608.
        mgrs_tile: the tile of the Military Grid Reference System, as in 33UUP.
        sensing_time: when it was taken, in UTC.
    """

    product_id: str | None = None
    mgrs_tile: str | None = None
    sensing_time: datetime.datetime | None = None


def read_product(tags: Mapping[str, str], stem: str) -> Product | None:
    """Read the product from a file's tags and from its name without suffix.

    None where they tell nothing. A file that names several products comes from none of them alone.
    """
    values = {key.lower(): value for key, value in tags.items()}
    texts = [stem, *(values[key] for key in _PRODUCT_KEYS if key in values)]
    products = {match[0] for text in texts for match in _PRODUCT.finditer(text)}
    product_id = products.pop() if len(products) == 1 else None
    named = [product_id] if product_id else texts
    tiles = {match[1] for text in named for pattern in _TILES for match in pattern.finditer(text)}
    if not tiles:
        own = (values[key].strip().upper() for key in _TILE_KEYS if key in values)
        tiles = {text.removeprefix("T") for text in own if re.fullmatch(f"T?{_TILE}", text)}
    found = ({match[1] for text in named for match in each.finditer(text)} for each in _SENSED)
    times = next(filter(None, found), set())
    sensed = [time for text in sorted(times) if (time := _parse_time(text))]
    if not sensed:
        tagged = (_parse_time(values[key]) for key in _TIME_KEYS if key in values)
        sensed = [time for time in tagged if time][:1]
    product = Product(
        product_id,
        tiles.pop() if len(tiles) == 1 else None,
        sensed[0] if len(sensed) == 1 else None,
    )
    return None if product == Product() else product


def product_tags(product: Product | None) -> dict[str, str]:
    """Return the tags from which `read_product` reads a product again."""
    if product is None:
        return {}
    time = product.sensing_time
    tags = {
        PRODUCT_TAG: product.product_id,
        TILE_TAG: product.mgrs_tile,
        TIME_TAG: time.isoformat() if time else None,
    }
    return {key: value for key, value in tags.items() if value}


def _parse_time(text: str) -> datetime.datetime | None:
    """Parse an ISO time of a day; None for a date alone, whose time is not known."""
    text = text.strip()
    if "T" not in text and " " not in text:
        return None
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    if time.tzinfo is None:
        return time.replace(tzinfo=datetime.UTC)
    return time.astimezone(datetime.UTC)
