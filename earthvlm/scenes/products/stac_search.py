"""Search a STAC API for Sentinel-2 items by place, time and cloud; needs the extra `stac`."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from earthvlm.scenes.parts import check_bbox
from earthvlm.scenes.products.addresses import is_address

# Of Element 84: Sentinel-2 as COGs on public addresses. Others are in docs/data.md.
EARTH_SEARCH = "https://earth-search.aws.element84.com/v1"
COLLECTION = "sentinel-2-l2a"
MAX_ITEMS = 200  # looked through for one search
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class FoundItem:
    """An item that a search found.

    Attributes:
        item_id: its name.
        address: of its JSON.
        time: when it was taken, as the item writes it.
        cloud: in percent, None where it is not given.
    """

    item_id: str
    address: str
    time: str
    cloud: float | None


def search_items(
    api: str,
    bbox: Sequence[float],
    dates: tuple[datetime.date, datetime.date],
    cloud: float = 100,
    collection: str = COLLECTION,
) -> list[FoundItem]:
    """Return the items that cover a bounding box, those with the least cloud first.

    Args:
        api: the address of a STAC API.
        bbox: west, south, east, north in degrees.
        dates: the first and the last day.
        cloud: the largest cloud cover of an item, in percent.
        collection: the name of the collection in the API.

    Raises:
        ValueError: the address or the bounding box is none, or the extra is not installed.
        ConnectionError: the API cannot be reached, or refuses the search.
    """
    if not is_address(api):
        raise ValueError(f"'{api[:80]}' is no address of a STAC API; it starts with https://")
    west, south, east, north = check_bbox(bbox)
    try:
        import pystac_client
        from pystac_client.exceptions import APIError
    except ImportError as error:
        raise ValueError(
            "pystac-client is not installed, which this needs: pip install 'earthvlm[stac]'"
        ) from error
    import requests

    try:
        client = pystac_client.Client.open(api, timeout=TIMEOUT_SECONDS)
        search = client.search(
            collections=[collection],
            bbox=[west, south, east, north],
            datetime="/".join(day.isoformat() for day in dates),
            query={"eo:cloud_cover": {"lte": cloud}},
            max_items=MAX_ITEMS,
        )
        items = list(search.items_as_dicts())
    except (APIError, requests.RequestException, KeyError, TypeError, ValueError) as error:
        raise ConnectionError(
            f"The STAC API at {api} could not be searched: {str(error)[:200] or type(error)}"
        ) from error
    found = [_read(item) for item in items if _covers(item.get("bbox"), (west, south, east, north))]
    return sorted(found, key=lambda item: (100.0 if item.cloud is None else item.cloud, item.time))


def _read(item: dict[str, Any]) -> FoundItem:
    properties = item.get("properties") or {}
    links = item.get("links") or []
    address = next((link["href"] for link in links if link.get("rel") == "self"), "")
    return FoundItem(
        str(item.get("id")),
        str(address),
        str(properties.get("datetime") or ""),
        properties.get("eo:cloud_cover"),
    )


def _covers(found: Sequence[float] | None, bbox: tuple[float, float, float, float]) -> bool:
    """Whether an item covers all of a bounding box, by its own; unknown ones and 3D ones may."""
    if found is None or len(found) != 4 or bbox[0] > bbox[2]:
        return True
    west, south, east, north = found
    return west <= bbox[0] and south <= bbox[1] and east >= bbox[2] and north >= bbox[3]
