"""The card of an embedding dataset of captioned scenes."""

from __future__ import annotations

import json
import string
from pathlib import Path

from earthvlm.bridge.hub.model_card import OLMOEARTH_LICENCE
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.publishing.origin import CARD_FILE, Origin

CARD_TEMPLATE = Path(__file__).with_name("dataset_card.md")
THUMBNAIL_PIXELS = 96


def write_card(
    folder: Path,
    sizes: dict[str, int],
    bridge: OlmoEarthVLMBridge,
    origin: Origin,
    values: dict[str, str],
) -> None:
    """Write the dataset card.

    sizes: the number of rows of each split.
    values: of the template's fields `source` (the argument of `SceneIndex.from_pretrained`),
        `bridge_id`, `command` and `run`.
    """
    from huggingface_hub import DatasetCard

    released = not bridge.config.olmoearth_model_id.startswith("random-")
    card = string.Template(CARD_TEMPLATE.read_text("utf-8")).substitute(
        values,
        name=origin.name,
        title=json.dumps(f"Embeddings of {origin.name} by earthvlm", ensure_ascii=False),
        terms=origin.terms,
        source_datasets=_list_sources(origin),
        count=f"{sum(sizes.values()):,}",
        size_category=_size_category(sum(sizes.values())),
        splits="\n".join(f"| `{split}` | {size:,} |" for split, size in sizes.items()),
        configs="\n".join(f"  - split: {split}\n    path: {split}-*.parquet" for split in sizes),
        bridge_revision=bridge.revision,
        summary=bridge.summary.rstrip("."),
        limits=bridge.limits,
        thumbnail_pixels=THUMBNAIL_PIXELS,
        licence=(
            f"license: other\nlicense_name: {origin.licence}-and-olmoearth-artifact-license\n"
            f"license_link: {OLMOEARTH_LICENCE}"
            if released
            else f"license: {origin.licence}"
        ),
        encoder_licence=(
            "The scene embeddings were made with OlmoEarth by Ai2 and are under the [OlmoEarth "
            f"Artifact License]({OLMOEARTH_LICENCE}), whose use restrictions pass on to what is "
            "made from them."
            if released
            else "No released OlmoEarth weights had a part in the scene embeddings."
        ),
    )
    DatasetCard(card).save(folder / CARD_FILE)


def _list_sources(origin: Origin) -> str:
    """The front matter's entry on the datasets that the scenes are from."""
    names = "".join(f"- {json.dumps(name)}\n" for name in origin.hub_ids)
    return f"source_datasets:\n{names}" if names else ""


def _size_category(rows: int) -> str:
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
    return next((name for bound, name in bounds if rows < bound), "100K<n<1M")
