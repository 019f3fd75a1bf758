"""The card of an embedding dataset of ChatEarthNet."""

from __future__ import annotations

import string
from pathlib import Path

from earthvlm.bridge.hub.model_card import OLMOEARTH_LICENCE
from earthvlm.bridge.model import OlmoEarthVLMBridge

CARD_TEMPLATE = Path(__file__).with_name("chatearthnet_card.md")
CARD_FILE = "README.md"
THUMBNAIL_PIXELS = 96


def write_card(
    folder: Path, sizes: dict[str, int], bridge: OlmoEarthVLMBridge, values: dict[str, str]
) -> None:
    """Write the dataset card.

    values: of the template's fields `source` (the argument of `SceneIndex.from_pretrained`),
        `bridge_id`, `command` and `run`.
    """
    from huggingface_hub import DatasetCard

    released = not bridge.config.olmoearth_model_id.startswith("random-")
    card = string.Template(CARD_TEMPLATE.read_text("utf-8")).substitute(
        values,
        count=f"{sum(sizes.values()):,}",
        size_category=_size_category(sum(sizes.values())),
        splits="\n".join(f"| `{split}` | {size:,} |" for split, size in sizes.items()),
        configs="\n".join(f"  - split: {split}\n    path: {split}-*.parquet" for split in sizes),
        bridge_revision=bridge.revision,
        summary=bridge.summary.rstrip("."),
        limits=bridge.limits,
        thumbnail_pixels=THUMBNAIL_PIXELS,
        licence=(
            "license: other\nlicense_name: cc-by-4.0-and-olmoearth-artifact-license\n"
            f"license_link: {OLMOEARTH_LICENCE}"
            if released
            else "license: cc-by-4.0"
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


def _size_category(rows: int) -> str:
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
    return next((name for bound, name in bounds if rows < bound), "100K<n<1M")
