"""Where the images and captions of a dataset are from, and under which licence: for its card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthvlm.data.chatearthnet.dataset import HUB_ID as CHATEARTHNET
from earthvlm.data.sources.files import HubFiles
from earthvlm.data.sources.weighted_source import WeightedSource

CARD_FILE = "README.md"
UNKNOWN = "unknown"  # the Hub's name of a licence that nobody names
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")  # as the Hub names them


@dataclass(frozen=True)
class Origin:
    """What a card says of the images and captions.

    Attributes:
        name: of their dataset.
        licence: as the Hub names it, "unknown" where nobody says so.
        source: their owner and licence, for the column `source` and for the card.
        terms: sentences on what their licence asks for.
        hub_ids: the datasets on the Hub that they are from.
    """

    name: str
    licence: str
    source: str
    terms: str
    hub_ids: tuple[str, ...] = ()


def find_origin(
    sources: Sequence[WeightedSource],
    is_chatearthnet: bool,
    *,
    name: str | None = None,
    licence: str | None = None,
    source: str | None = None,
) -> Origin:
    """Find what a card says of sources: as given here, else as their own cards on the Hub say.

    is_chatearthnet: whether all tiles are ChatEarthNet's.
    Raises ValueError for a licence in another form, and as `HubFiles.find` and its `fetch` do.
    """
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise ValueError(
            f"--licence {licence!r} is no licence as the Hub names it: cc-by-4.0, for instance, or "
            "other."
        )
    if is_chatearthnet and not (name or licence or source):
        return Origin(
            "ChatEarthNet",
            "cc-by-4.0",
            "ChatEarthNet (CC-BY-4.0)",
            "Captions and pictures are from ChatEarthNet (Yuan et al., 2024, CC-BY-4.0), unchanged "
            "except for the pictures' size: name its authors. Contains modified Copernicus "
            "Sentinel data.",
            (CHATEARTHNET,),
        )
    on_hub = [each.name for each in sources if each.is_on_hub]
    if licence is None and len(on_hub) == len(sources):
        licences = {_read_licence(each) for each in on_hub}
        licence = licences.pop() if len(licences) == 1 else "other"
    licence = licence or UNKNOWN
    name = name or " and ".join(_name_source(each) for each in sources)
    known = f"{name} ({licence})" if licence != UNKNOWN else name
    return Origin(
        name,
        licence,
        source or known,
        _write_terms(source or known, licence),
        tuple(each.partition("@")[0] for each in on_hub),
    )


def _name_source(source: WeightedSource) -> str:
    """A source's id on the Hub, or the name of its file or folder, without the path to it."""
    return source.name if source.is_on_hub else Path(source.name).resolve().stem


def _read_licence(name: str) -> str:
    """The licence in a Hub dataset's card."""
    from huggingface_hub import DatasetCard

    repo_id, _, revision = name.partition("@")
    files = HubFiles.find(repo_id, revision or None)
    if not files.has(CARD_FILE):
        return UNKNOWN
    licence: Any = DatasetCard.load(files.fetch(CARD_FILE)).data.license
    first = licence[0] if isinstance(licence, list) and len(licence) == 1 else licence
    if first is None:
        return UNKNOWN
    return first if isinstance(first, str) and _LICENCE.fullmatch(first) else "other"


def _write_terms(source: str, licence: str) -> str:
    terms = (
        f"Captions and pictures are from {source}, unchanged except for the pictures' size. "
        "Pictures of Sentinel-2 contain modified Copernicus Sentinel data."
    )
    if licence == UNKNOWN:
        terms += " Their licence is not named here: ask their owner before you use them."
    if licence == "other":
        terms += " Their source says what its licence allows."
    return terms
