r"""Embed ChatEarthNet with a bridge: Parquet files to search in, and to publish.

    accelerate launch hub/embed_chatearthnet.py --data_dir D --bridge B --output O \\
      [--push_to_hub owner/chatearthnet-embeddings]

Each process takes its share of the files and writes them one by one. Existing files are kept, so
that the same command resumes an interrupted run. The rows do not depend on the number of processes.
"""

from __future__ import annotations

import argparse
import json
import string
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from torch.utils.data import ConcatDataset, DataLoader
from tqdm import tqdm

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.bridge.model_card import OLMOEARTH_LICENCE
from earthvlm.data.captioned_scenes import Tile
from earthvlm.data.chatearthnet import SPLITS, ChatEarthNet
from earthvlm.embeddings.dataset import (
    read_provenance,
    read_shard,
    write_embedding_dataset,
    write_table,
)
from earthvlm.embeddings.schema import PROVENANCE_KEY
from earthvlm.models.text_encoder import embed_sentences
from earthvlm.scenes.scene import Scene
from earthvlm.storage.hub import LOCAL_REVISION, check_push, push
from earthvlm.training.process import on_main_process

CARD_TEMPLATE = Path(__file__).with_name("chatearthnet_card.md")
THUMBNAIL_PIXELS = 96
SHARD_ROWS = 4096
CARD_FILE = "README.md"
# What a repository may hold of an earlier push, of other splits or in another number of files.
OWNED_FILES = [CARD_FILE, *(f"{split}-*-of-*.parquet" for split in SPLITS)]


@dataclass(frozen=True)
class Shard:
    """A file to write, of these rows of all splits together."""

    name: str
    split: str
    rows: range


def plan_shards(sizes: dict[str, int], shard_rows: int) -> list[Shard]:
    """Cut each split into files of at most `shard_rows` rows, named as `datasets` names them."""
    shards, first = [], 0
    for split, size in sizes.items():
        count = -(-size // shard_rows)
        for number in range(count):
            start = number * shard_rows
            rows = range(first + start, first + min(start + shard_rows, size))
            shards.append(Shard(f"{split}-{number:05d}-of-{count:05d}.parquet", split, rows))
        first += size
    return shards


def find_missing(shards: Sequence[Shard], folder: Path, bridge: OlmoEarthVLMBridge) -> list[Shard]:
    """The shards without a file. Raises ValueError for files of another dataset or bridge."""
    names = {shard.name for shard in shards}
    for path in sorted(folder.glob("*.parquet")):
        if path.name not in names:
            raise ValueError(
                f"{path} does not belong to this dataset: give another --output, or remove it."
            )
        made_by = read_provenance(path).bridge_revision
        if made_by != bridge.revision:
            raise ValueError(
                f"{path} was made by bridge {made_by}, not {bridge.revision}: give another "
                "--output."
            )
    return [shard for shard in shards if not (folder / shard.name).is_file()]


def name_bridge(folder: Path, shards: Sequence[Shard], bridge_id: str) -> None:
    """Write one bridge id into all shards; earlier runs may have loaded the bridge elsewhere."""
    for shard in shards:
        path = folder / shard.name
        if read_provenance(path).bridge_id == bridge_id:
            continue
        table, _ = read_shard(path)
        written = json.loads(pq.read_schema(path).metadata[PROVENANCE_KEY])
        written = json.dumps(written | {"bridge_id": bridge_id})
        write_table(
            table.replace_schema_metadata({**table.schema.metadata, PROVENANCE_KEY: written}), path
        )


def embed_batch(
    bridge: OlmoEarthVLMBridge, batch: Sequence[tuple[Scene, Tile, Any]], split: str
) -> list[dict[str, Any]]:
    """Return rows of the embedding dataset for tiles, with each tile's first caption."""
    scenes, tiles, thumbnails = zip(*batch, strict=True)
    captions = [tile.captions[0].strip() for tile in tiles]
    return [
        {
            "image_id": tile.name,
            "caption": caption,
            "split": split,
            "longitude": scene.longitude,
            "latitude": scene.latitude,
            "thumbnail": thumbnail,
            "scene_embedding": scene_vector,
            "caption_embedding": caption_vector,
            "source": "ChatEarthNet (CC-BY-4.0)",
            "date": scene.date,
        }
        for scene, tile, thumbnail, caption, scene_vector, caption_vector in zip(
            scenes,
            tiles,
            thumbnails,
            captions,
            bridge.embed(scenes, len(scenes)),
            embed_sentences(captions, str(bridge.device)),
            strict=True,
        )
    ]


def _add_thumbnails(batch: Sequence[tuple[Scene, Tile]]) -> list[tuple[Scene, Tile, Any]]:
    return [(scene, tile, scene.thumbnail(THUMBNAIL_PIXELS)) for scene, tile in batch]


def embed_shards(
    bridge: OlmoEarthVLMBridge,
    bridge_id: str,
    tiles: ConcatDataset,
    shards: Sequence[Shard],
    folder: Path,
    *,
    batch_size: int,
    num_workers: int,
    progress: partial[tqdm],
) -> None:
    """Write shards in order, while workers read ahead."""
    batches = [
        list(shard.rows[start : start + batch_size])
        for shard in shards
        for start in range(0, len(shard.rows), batch_size)
    ]
    loader = iter(
        DataLoader(
            tiles, batch_sampler=batches, num_workers=num_workers, collate_fn=_add_thumbnails
        )
    )
    with progress(total=sum(len(shard.rows) for shard in shards), unit="scene") as bar:
        for shard in shards:
            rows: list[dict[str, Any]] = []
            while len(rows) < len(shard.rows):
                embedded = embed_batch(bridge, next(loader), shard.split)
                rows += embedded
                bar.update(len(embedded))
            write_embedding_dataset(folder, rows, bridge_id, bridge.revision, name=shard.name)


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 2 after one sentence on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data_dir", required=True, help="ChatEarthNet, as `earthvlm download` leaves it")
    add("--bridge", required=True, help="a saved bridge's folder or Hub repository, or 'bundled'")
    add(
        "--output",
        required=True,
        type=Path,
        help="the folder to write to; existing shards are kept",
    )
    add("--push_to_hub", metavar="REPO", help="publish the finished dataset in this repository")
    add(
        "--hub_private_repo",
        action=argparse.BooleanOptionalAction,
        help="make the repository private (with --no-: public) and refuse one that is not "
        "(default: keep an existing one as it is)",
    )
    add(
        "--splits", nargs="+", choices=SPLITS, default=SPLITS, help="splits to embed (default: all)"
    )
    add(
        "--captions",
        choices=("35", "4v"),
        default="35",
        help="written by ChatGPT-3.5 or GPT-4V (%(default)s)",
    )
    add("--batch_size", type=int, default=64, help="scenes at once (%(default)s)")
    add("--shard_rows", type=int, default=SHARD_ROWS, help="scenes per file (%(default)s)")
    add(
        "--num_workers", type=int, default=2, help="reading processes of each process (%(default)s)"
    )
    arguments = parser.parse_args(argv)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    try:
        _run(arguments, accelerator)
    except (ConnectionError, OSError, ValueError) as error:
        print(f"embed_chatearthnet.py: {error}", file=sys.stderr)
        return 2
    finally:
        accelerator.end_training()
    return 0


def _run(arguments: argparse.Namespace, accelerator: Accelerator) -> None:
    started = time.time()
    repository = arguments.push_to_hub
    bridge_id = LOCAL_REVISION if Path(arguments.bridge).is_dir() else arguments.bridge
    if repository:
        _check_publishing(arguments, bridge_id)
    datasets = {
        split: ChatEarthNet(arguments.data_dir, split, arguments.captions)
        for split in arguments.splits
    }
    sizes = {split: len(dataset) for split, dataset in datasets.items()}
    with accelerator.main_process_first():  # the first may download or convert models
        bridge = OlmoEarthVLMBridge.from_pretrained(arguments.bridge, accelerator.device)
    shards = plan_shards(sizes, arguments.shard_rows)
    missing = find_missing(shards, arguments.output, bridge)
    accelerator.wait_for_everyone()  # all list the missing shards before any is written
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    embed_shards(
        bridge,
        bridge_id,
        ConcatDataset([*datasets.values()]),  # type: ignore[list-item]
        mine,
        arguments.output,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        progress=partial(tqdm, desc="embedding", disable=not accelerator.is_main_process),
    )
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return
    name_bridge(arguments.output, shards, bridge_id)
    embedded = sum(len(shard.rows) for shard in missing)
    values = {
        "source": repository or ".",
        "bridge_id": bridge_id,
        "command": _describe_command(arguments, bridge_id),
        "run": f"{embedded:,} of them in {(time.time() - started) / 60:.1f} minutes by "
        f"{accelerator.num_processes} processes on {accelerator.device.type}",
    }
    write_card(arguments.output, sizes, bridge, values)
    files = [shard.name for shard in shards]
    size = sum((arguments.output / name).stat().st_size for name in files)
    print(f"{sum(sizes.values()):,} scenes, {size / 1e6:.1f} MB, in {arguments.output}")
    if repository:
        address = push(
            arguments.output,
            repository,
            [*files, CARD_FILE],
            commit_message=f"Embed ChatEarthNet with bridge {bridge.revision}",
            owned=OWNED_FILES,
            repo_type="dataset",
            private=arguments.hub_private_repo,
        )
        print(f"Published: {address}")


def _check_publishing(arguments: argparse.Namespace, bridge_id: str) -> None:
    """Raise ValueError, before anything is embedded, if the dataset could not be published."""
    if bridge_id == LOCAL_REVISION:
        raise ValueError(
            f"The bridge is in the local folder {arguments.bridge}, so nobody else could load it "
            f"to search these scenes: publish it with `earthvlm push {arguments.bridge} "
            "OWNER/NAME`, then give --bridge OWNER/NAME."
        )
    on_main_process(
        lambda: check_push(
            arguments.push_to_hub, repo_type="dataset", private=arguments.hub_private_repo
        )
    )


def _describe_command(arguments: argparse.Namespace, bridge_id: str) -> str:
    """The command for the card, without paths of this machine."""
    bridge = "BRIDGE" if bridge_id == LOCAL_REVISION else bridge_id
    words = ["accelerate launch hub/embed_chatearthnet.py --data_dir DATA --output OUTPUT"]
    words += [f"--bridge {bridge} --captions {arguments.captions}"]
    words += [f"--splits {' '.join(arguments.splits)} --shard_rows {arguments.shard_rows}"]
    return " ".join(words)


if __name__ == "__main__":
    sys.exit(main())
