"""Open a STAC item: JSON that lists a scene's bands as assets, near it or behind addresses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthvlm.scenes.bands import BANDS, find_baseline
from earthvlm.scenes.products.addresses import (
    MAX_JSON_BYTES,
    fetch,
    is_address,
    join_address,
    remote_raster,
)
from earthvlm.scenes.products.band_folder import open_bands
from earthvlm.scenes.products.safe_metadata import SafeMetadata
from earthvlm.scenes.rasters.band_identification import MASK_LABELS, name_labels
from earthvlm.scenes.rasters.parallel import REMOTE_THREADS, map_in_threads
from earthvlm.scenes.rasters.raster_file import RasterFile
from earthvlm.scenes.rasters.sentinel2_image import Sentinel2Image, require_visible_bands
from earthvlm.scenes.rasters.value_rules import ValueTags

_RASTER_TYPES = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff", "image/x.geotiff")
_RASTER_NAME = re.compile(r"\.(tiff?|jp2)($|\?)", re.IGNORECASE)
# Assets that show the scene and are no measurements.
_PICTURE_ROLES = {"thumbnail", "overview", "visual"}
_PICTURE_KEYS = re.compile(r"^(visual|tci|true_color|preview|thumbnail|overview)", re.IGNORECASE)
_SIZE_IN_KEY = re.compile(r"[_-](10|20|60)m$", re.IGNORECASE)
# Keys such as "red-jp2" are copies of "red" in another format.
_COPY = re.compile(r"[_-](jp2|cog|geotiff)$", re.IGNORECASE)
# Keys of a pixel size in metres, the most telling first.
_SIZES = ("spatial_resolution", "raster:spatial_resolution", "gsd")


@dataclass(frozen=True)
class StacAsset:
    """A band in an asset of an item.

    Attributes:
        band: as in "B02", or "mask", "scl" or "clouds".
        href: of its file, as the item writes it.
        number: of the band in the file, from 1.
        metres: its pixel size, where the item tells it.
        scale, offset: of its values, where the item tells them.
        media_type: of its file, where the item tells it.
        is_copy: whether the key says that it is a copy in another format.
    """

    band: str
    href: str
    number: int = 1
    metres: float | None = None
    scale: float | None = None
    offset: float = 0.0
    media_type: str = ""
    is_copy: bool = False


def is_stac_item(path: Path) -> bool:
    """Return whether a file looks like JSON of a STAC item."""
    if path.suffix.lower() not in (".json", ".geojson"):
        return False
    return b'"assets"' in _read_start(path)[:MAX_JSON_BYTES]


@contextmanager
def open_stac_item(place: str | Path, boa_offset: bool | None = None) -> Iterator[Sentinel2Image]:
    """Open the bands of a STAC item, by its file or its address, for reading parts of them.

    Raises ValueError where it is no item of Sentinel-2, and FileNotFoundError or ConnectionError
    where it or an asset cannot be had.
    """
    item, base = _read_item(place)
    name = str(item.get("id") or base.rpartition("/")[2])
    source = f"'{name}'"
    properties: dict[str, Any] = item.get("properties") or {}
    _refuse_other_platforms(properties, source)
    assets = choose_assets(item, source)
    threads = REMOTE_THREADS if is_address(base) else 1
    located = map_in_threads(
        lambda asset: _locate(asset, base, source), list(assets.values()), threads
    )
    rasters = {
        band: (raster, asset.number)
        for (band, asset), raster in zip(assets.items(), located, strict=True)
    }
    metadata = _read_metadata(item, properties, name)
    tags = _read_tags(assets, properties)
    with ExitStack() as stack:
        yield open_bands(
            stack,
            rasters,
            source,
            name,
            metadata,
            tags=tags,
            boa_offset=boa_offset,
        )


def choose_assets(item: Mapping[str, Any], source: str) -> dict[str, StacAsset]:
    """Choose an asset for each band, the finest, and originals before copies.

    Raises ValueError where B02, B03 or B04 is missing.
    """
    found: dict[str, StacAsset] = {}
    for asset in list_assets(item.get("assets") or {}):
        other = found.get(asset.band)
        if other is None or _rank(asset) < _rank(other):
            found[asset.band] = asset
    bands = [band for band in BANDS if band in found]
    require_visible_bands(bands, source)
    masks = [kind for kind in ("mask", "scl", "clouds") if kind in found]
    return {band: found[band] for band in (*bands, *masks)}


def list_assets(assets: Mapping[str, Any]) -> list[StacAsset]:
    """List the bands in an item's assets, in the forms of STAC 1.0 and 1.1."""
    found = []
    for key, asset in assets.items():
        if not isinstance(asset, dict) or not _is_raster(key, asset):
            continue
        described = asset.get("bands") or _merge(asset.get("eo:bands"), asset.get("raster:bands"))
        labels = [_label(band) for band in described] or [None]
        if len(labels) == 1:
            bare = _COPY.sub("", _SIZE_IN_KEY.sub("", key))
            labels = [bare if _kind(bare) else labels[0]]
        size = _SIZE_IN_KEY.search(key)
        for number, label in enumerate(labels, start=1):
            kind = _kind(label)
            if kind is None:
                continue
            details = {**asset, **(described[number - 1] if described else {})}
            found.append(
                StacAsset(
                    kind,
                    _href(asset),
                    number,
                    metres=float(size[1]) if size else _number(_first(details, _SIZES)),
                    scale=_number(_first(details, ("scale", "raster:scale"))),
                    offset=_number(_first(details, ("offset", "raster:offset"))) or 0.0,
                    media_type=str(asset.get("type") or ""),
                    is_copy=bool(_COPY.search(key)),
                )
            )
    return found


def _rank(asset: StacAsset) -> tuple[bool, bool, float]:
    """The order of preference among assets of one band, the best first."""
    return not is_readable(asset.href), asset.is_copy, asset.metres or 0.0


def is_readable(href: str) -> bool:
    """Return whether a reference names a file, or an address that needs no account."""
    return "://" not in href or is_address(href) or href.startswith("file://")


def _merge(one: object, two: object) -> list[dict[str, Any]]:
    """Join the descriptions that STAC 1.0 keeps in two lists, band by band."""
    lists = [each for each in (one, two) if isinstance(each, list)]
    count = max((len(each) for each in lists), default=0)
    merged: list[dict[str, Any]] = [{} for _ in range(count)]
    for each in lists:
        for target, band in zip(merged, each, strict=False):
            target |= band if isinstance(band, dict) else {}
    return merged


def _label(band: Mapping[str, Any]) -> str | None:
    for key in ("name", "eo:common_name", "common_name"):
        if _kind(band.get(key)):
            return str(band[key])
    return None


def _kind(label: object) -> str | None:
    """Return the band or mask that a label names."""
    if not isinstance(label, str):
        return None
    return MASK_LABELS.get(label.lower()) or name_labels([label])[0]


def _is_raster(key: str, asset: Mapping[str, Any]) -> bool:
    if _PICTURE_KEYS.match(key) or _PICTURE_ROLES.intersection(asset.get("roles") or ()):
        return False
    kind, href = str(asset.get("type") or "").lower(), str(asset.get("href") or "")
    return kind.startswith(_RASTER_TYPES) or (not kind and bool(_RASTER_NAME.search(href)))


def _href(asset: Mapping[str, Any]) -> str:
    """Return an asset's reference, or one of its alternates that needs no account."""
    href = str(asset.get("href") or "")
    alternates = asset.get("alternate")
    if not is_readable(href) and isinstance(alternates, dict):
        others = [str(each.get("href") or "") for each in alternates.values()]
        href = next((other for other in others if other and is_readable(other)), href)
    return href


def _first(details: Mapping[str, Any], keys: tuple[str, ...]) -> object:
    return next((details[key] for key in keys if key in details), None)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _read_start(path: Path) -> bytes:
    """Read at most a byte more than an item may have."""
    with path.open("rb") as file:
        return file.read(MAX_JSON_BYTES + 1)


def _read_item(place: str | Path) -> tuple[dict[str, Any], str]:
    """Read an item's JSON; also return where it is, to which its references are relative."""
    if isinstance(place, str) and is_address(place):
        data, base, name = fetch(place, MAX_JSON_BYTES), place, place
    else:
        path = Path(place)
        data, base, name = _read_start(path), str(path.absolute()), path.name
        if len(data) > MAX_JSON_BYTES:
            raise ValueError(f"'{name}' is larger than {MAX_JSON_BYTES // 2**20} MB")
    try:
        item = json.loads(data)
    except ValueError as error:
        raise ValueError(f"'{name}' is damaged: it is no JSON") from error
    if not isinstance(item, dict) or not isinstance(item.get("assets"), dict):
        raise ValueError(
            f"'{name}' is no STAC item, as it lists no assets; give an item, not a catalogue, a "
            "collection or a list of items"
        )
    if item.get("type") == "Collection":
        raise ValueError(f"'{name}' is a STAC collection; give one of its items")
    return item, base


def _locate(asset: StacAsset, base: str, source: str) -> RasterFile:
    """Return the raster of an asset, whose reference is relative to the item's place."""
    href = join_address(base, asset.href) if is_address(base) else asset.href
    if is_address(href):
        return remote_raster(href, asset.media_type)
    if not is_readable(href) or is_address(base):
        raise ValueError(
            f"{source} has its bands at '{href[:60]}', which cannot be read without an account; "
            "give an item whose assets have http addresses"
        )
    path = Path(base).parent / href.removeprefix("file://")
    if not path.is_file():
        raise FileNotFoundError(f"{source} names the file '{path}', which does not exist")
    return RasterFile.on_disk(path)


def _refuse_other_platforms(properties: Mapping[str, Any], source: str) -> None:
    texts = [str(properties.get(key) or "") for key in ("platform", "constellation")]
    known = any("sentinel-2" in text.lower() or "s2" in text.lower() for text in texts)
    if any(texts) and not known:
        raise ValueError(f"{source} is of {next(filter(None, texts))}, not of Sentinel-2")


def _read_metadata(
    item: Mapping[str, Any], properties: Mapping[str, Any], name: str
) -> SafeMetadata:
    collection = str(item.get("collection") or "").lower()
    level = str(properties.get("processing:level") or "")
    is_1c = "1c" in collection or "1C" in level or "MSIL1C" in name.upper()
    uri = str(properties.get("s2:product_uri") or "")
    versions = (properties.get(key) for key in ("s2:processing_baseline", "processing:version"))
    tile = str(properties.get("s2:mgrs_tile") or properties.get("grid:code") or "")
    return SafeMetadata(
        product_uri=uri.removesuffix(".SAFE") or None,
        level="1C" if is_1c else "2A",
        baseline=find_baseline(*(str(version or "") for version in versions)),
        sensing_time=str(properties.get("datetime") or "") or None,
        tile=tile.removeprefix("MGRS-") or None,
    )


def _read_tags(assets: Mapping[str, StacAsset], properties: Mapping[str, Any]) -> ValueTags | None:
    """Return scale and offset of the bands as the item gives them, or None.

    Catalogues that subtract the offset themselves say so, and some list it all the same.
    """
    bands = [asset for band, asset in assets.items() if band in BANDS]
    if any(asset.scale is None for asset in bands):
        return None
    applied = properties.get("earthsearch:boa_offset_applied")
    offsets = tuple(0.0 if applied else asset.offset for asset in bands)
    scales = tuple(asset.scale or 1.0 for asset in bands)
    return ValueTags(scales, offsets, trusted=bool(applied))
