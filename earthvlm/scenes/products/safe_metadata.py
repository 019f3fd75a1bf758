"""ESA's metadata of a product (MTD_MSIL2A.xml, MTD_MSIL1C.xml): offset, scale, time, baseline."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from earthvlm.scenes.bands import BOA_OFFSET_FROM_BASELINE, find_baseline, find_date
from earthvlm.scenes.products.band_files import band_by_index
from earthvlm.scenes.rasters.value_rules import ValueTags

METADATA_NAME = re.compile(r"(^|/)MTD_MSIL(1C|2A)\.xml$|(^|/)S2[A-D]_\w*MTD_SAFL(1C|2A)\w*\.xml$")
UNREADABLE_NOTE = (
    "The product's metadata file cannot be read, so date and offset were taken from its name."
)


@dataclass(frozen=True)
class SafeMetadata:
    """What a product's metadata file tells; None for what it does not.

    Attributes:
        product_uri: its name.
        level: "1C" or "2A".
        baseline: of its processing, as in 510 for 05.10.
        sensing_time: when it was taken, as written.
        quantification: the number that means a reflectance of 1.
        tile: of the Military Grid Reference System, as in 31TDG.
        offsets: added to a band's numbers before that, by band.
    """

    product_uri: str | None = None
    level: str | None = None
    baseline: int | None = None
    sensing_time: str | None = None
    quantification: float | None = None
    tile: str | None = None
    offsets: dict[str, float] = field(default_factory=dict)

    @property
    def date(self) -> datetime.date | None:
        """The day on which it was taken."""
        return find_date(self.sensing_time or "")

    def value_tags(self, bands: Sequence[str]) -> ValueTags | None:
        """Return what the values of these bands mean, or None where the file does not tell.

        Products of baseline 04.00 and later list their offsets; older ones have none.
        """
        if not self.quantification:
            return None
        listed = all(band in self.offsets for band in bands)
        old = self.baseline is not None and self.baseline < BOA_OFFSET_FROM_BASELINE
        if not listed and not old:
            return None
        scale = 1 / self.quantification
        offsets = tuple(scale * self.offsets.get(band, 0.0) for band in bands)
        return ValueTags((scale,) * len(bands), offsets, trusted=True)


def read_safe_metadata(text: bytes) -> SafeMetadata | None:
    """Read a product's metadata file; None where it is none, or damaged."""
    if b"<!ENTITY" in text:
        return None
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None
    texts: dict[str, str] = {}
    offsets: dict[str, float] = {}
    for element in root.iter():
        name, value = element.tag.rpartition("}")[2], (element.text or "").strip()
        texts.setdefault(name, value)
        if name in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET"):
            index, number = element.get("band_id", ""), _number(value)
            band = band_by_index(int(index)) if index.isdigit() else None
            if band and number is not None:
                offsets[band] = number
    level = re.search(r"[12][AC]", texts.get("PROCESSING_LEVEL", ""))
    quantification = texts.get("BOA_QUANTIFICATION_VALUE") or texts.get("QUANTIFICATION_VALUE")
    return SafeMetadata(
        product_uri=texts.get("PRODUCT_URI") or None,
        level=level[0] if level else None,
        baseline=find_baseline(texts.get("PROCESSING_BASELINE", "")),
        sensing_time=texts.get("PRODUCT_START_TIME") or texts.get("DATATAKE_SENSING_START") or None,
        quantification=_number(quantification or ""),
        offsets=offsets,
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
