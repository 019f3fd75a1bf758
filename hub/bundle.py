"""Build the embedding dataset that earthvlm bundles, from a bridge and published scenes.

    python hub/bundle.py --bridge earthvlm/bundled/bridge --output earthvlm/bundled/embeddings

Downloads the scenes (see scenes.py), captions and embeds them, and writes Parquet, GeoTIFFs, the
licences and the dataset card. The old dataset is replaced once everything is written.
"""

from __future__ import annotations

import argparse
import string
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scenes import (
    PACKAGES,
    SourcedScene,
    download_packages,
    gather_scenes,
    read_licences,
    unpack_packages,
)

from earthvlm.bridge.hub.model_card import OLMOEARTH_LICENCE
from earthvlm.embeddings.rows import THUMBNAIL_SIZE
from earthvlm.embeddings.stac import write_collection
from earthvlm.scenes.places.formatting import describe_count
from earthvlm.search.index import SceneIndex
from earthvlm.storage.files import replace_folder

if TYPE_CHECKING:
    from earthvlm.bridge.model import OlmoEarthVLMBridge

CARD_TEMPLATE = Path(__file__).with_name("embeddings_card.md")
DEFAULT_BRIDGE = "earthvlm/bundled/bridge"
DEFAULT_OUTPUT = "earthvlm/bundled/embeddings"
COLLECTION_NAME = "earthvlm-bundled-scenes"
SPLIT_MEANINGS = {
    "examples": "scenes of five countries from summer to winter, one of them larger, to chat about",
    "tiles": "side by side from two larger scenes, named by row and column, to search among",
}
CDLA = (
    "BigEarthNet patches (Community Data License Agreement - Permissive, Version 1.0)",
    "Full text: https://cdla.dev/permissive-1-0/ (SPDX: CDLA-Permissive-1.0)\n\n"
    'G. Sumbul, M. Charfuelan, B. Demir, V. Markl, "BigEarthNet: A Large-Scale Benchmark Archive '
    'for Remote Sensing Image Understanding", IEEE International Geoscience and Remote Sensing '
    "Symposium, pp. 5901-5904, Yokohama, Japan, 2019. https://bigearth.net\n\n"
    "Changed here: the bands of each patch were brought to 10 m and written into one file.",
)
COPERNICUS = (
    "Copernicus Sentinel data",
    "Contains modified Copernicus Sentinel data 2017 and 2018. Use is governed by Commission "
    "Delegated Regulation (EU) No 1159/2013 and Regulation (EU) 2021/696; see the legal notice on "
    "the use of Copernicus Sentinel Data and Service Information: "
    "https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice",
)


def build_bundle(
    sourced: Sequence[SourcedScene],
    licences: dict[str, str],
    bridge: OlmoEarthVLMBridge,
    bridge_id: str,
    output: Path,
    command: str,
    batch_size: int = 16,
) -> SceneIndex:
    """Write the dataset into `output`, and replace the old one once everything is written.

    licences: the text of each source package's licence, by its description.
    """
    with replace_folder(output) as unfinished:
        index = SceneIndex.build(
            unfinished,
            [one.scene for one in sourced],
            bridge,
            bridge_id=bridge_id,
            splits=[one.split for one in sourced],
            sources=[one.source for one in sourced],
            batch_size=batch_size,
            report=_print_progress,
        )
        (unfinished / "README.md").write_text(write_card(index, bridge, command), "utf-8")
        (unfinished / "LICENSE.md").write_text(write_licences(licences), "utf-8")
        write_collection(unfinished, COLLECTION_NAME)
    return SceneIndex.from_pretrained(output)


def write_card(index: SceneIndex, bridge: OlmoEarthVLMBridge, command: str) -> str:
    """Return the dataset card: YAML front matter and Markdown."""
    from earthvlm.generation.sampling import DEFAULT_PROMPT

    results = index.browse()
    provenance = index.provenance
    trained_here = bridge.config.olmoearth_model_id.startswith("random-")
    by_source = defaultdict(list)
    for result in results:
        by_source[result.source].append(result.image_id)
    values = {
        "licence_name": "see-license-md" if trained_here else "olmoearth-artifact-license",
        "count": len(results),
        "prompt": DEFAULT_PROMPT,
        "thumbnail_size": THUMBNAIL_SIZE,
        "splits": "\n".join(
            f"| `{split}` | {sum(r.split == split for r in results)} | {SPLIT_MEANINGS[split]} |"
            for split in index.splits
        ),
        "bridge_id": provenance.bridge_id,
        "bridge_revision": provenance.bridge_revision,
        "bridge_summary": bridge.summary.rstrip("."),
        "bridge_limits": bridge.limits,
        "sentence_model": provenance.sentence_model,
        "sentence_revision": provenance.sentence_revision,
        "command": command,
        "sources": "\n".join(
            f"- {source} ({', '.join(f'`{name}`' for name in names[:1])}"
            f"{f' and {len(names) - 1} more' if names[1:] else ''})"
            for source, names in by_source.items()
        ),
        "encoder_licence": (
            "The captions and embeddings are under Apache-2.0, as earthvlm is. The encoder has the "
            "architecture of OlmoEarth by Ai2; its weights were trained from random numbers, and "
            "no released OlmoEarth weights had a part in this dataset."
            if trained_here
            else "The embeddings and captions were made with OlmoEarth by Ai2 and are under the "
            f"[OlmoEarth Artifact License]({OLMOEARTH_LICENCE}), whose use restrictions pass on to "
            "whatever is made from them."
        ),
    }
    return string.Template(CARD_TEMPLATE.read_text("utf-8")).substitute(values)


def write_licences(licences: dict[str, str]) -> str:
    """Return one Markdown text with the licences and notices of everything in the dataset."""
    parts = [COPERNICUS, CDLA, *licences.items()]
    return (
        "# Licences and notices\n\n"
        + "\n\n".join(f"## {title}\n\n{text.strip()}" for title, text in parts)
        + "\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 2 after one sentence on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bridge", default=DEFAULT_BRIDGE, help="a saved bridge (%(default)s)")
    parser.add_argument(
        "--output", default=DEFAULT_OUTPUT, help="the folder to write (%(default)s)"
    )
    parser.add_argument(
        "--packages",
        help="a folder that holds the wheels of "
        + ", ".join(f"{p.name} {p.version}" for p in PACKAGES)
        + "; without it they are downloaded",
    )
    parser.add_argument("--batch_size", type=int, default=16, help="scenes at once (%(default)s)")
    parser.add_argument("--device", help="cpu, cuda, ...; the fastest there is by default")
    options = parser.parse_args(arguments)
    try:
        from earthvlm.bridge.model import OlmoEarthVLMBridge
        from earthvlm.storage.tensors import check_device

        check_device(options.device)
        bridge = OlmoEarthVLMBridge.from_pretrained(options.bridge, device=options.device)
        with tempfile.TemporaryDirectory(prefix="earthvlm-scenes-") as folder:
            wheels = Path(options.packages or Path(folder) / "wheels")
            if not options.packages:
                download_packages(wheels)
            unpack_packages(wheels, Path(folder))
            index = build_bundle(
                gather_scenes(Path(folder)),
                read_licences(Path(folder)),
                bridge,
                options.bridge,
                Path(options.output),
                f"python hub/bundle.py --bridge {options.bridge} --output {options.output}",
                options.batch_size,
            )
    except (ConnectionError, FileNotFoundError, ValueError) as error:
        print(f"bundle.py: {error}", file=sys.stderr)
        return 2
    size = sum(path.stat().st_size for path in index.folder.rglob("*") if path.is_file())
    print(f"{describe_count(len(index), 'scene')}, {size / 1e6:.1f} MB, in {options.output}")
    return 0


def _print_progress(done: int, total: int) -> None:
    print(f"{done} of {total} scenes captioned and embedded", end="\r\n"[done == total], flush=True)


if __name__ == "__main__":
    sys.exit(main())
