"""Embed ChatEarthNet with a bridge: Parquet files to search in, and to publish.

Each process takes its share of the files and writes them one by one. Existing files are kept, so
that the same call resumes an interrupted run. The rows do not depend on the number of processes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from accelerate import Accelerator
from torch.utils.data import ConcatDataset, DataLoader
from tqdm import tqdm

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.captioned_scenes import Tile
from earthvlm.data.chatearthnet.dataset import SPLITS, ChatEarthNet
from earthvlm.embeddings.dataset import (
    read_provenance,
    read_shard,
    write_embedding_dataset,
    write_table,
)
from earthvlm.embeddings.rows import describe_scene, embed_captions
from earthvlm.embeddings.schema import PROVENANCE_KEY
from earthvlm.embeddings.stac import COLLECTION_FILE, write_collection
from earthvlm.publishing.dataset_card import CARD_FILE, THUMBNAIL_PIXELS, write_card
from earthvlm.scenes.places.formatting import describe_count
from earthvlm.scenes.scene import Scene
from earthvlm.storage.hub import LOCAL_REVISION, check_push, push
from earthvlm.training.process import on_main_process

SHARD_ROWS = 4096
# What a repository may hold of an earlier push, of other splits or in another number of files.
OWNED_FILES = [CARD_FILE, COLLECTION_FILE, *(f"{split}-*-of-*.parquet" for split in SPLITS)]


@dataclass(frozen=True)
class EmbeddingArguments:
    """What to embed, with which bridge, and where the rows go.

    Attributes:
        data_dir: ChatEarthNet's folder.
        bridge: a folder, a Hub repository or "bundled".
        output: the folder of the Parquet files.
        splits: of ChatEarthNet.
        captions: "35" for those by ChatGPT-3.5, "4v" for those by GPT-4V.
        batch_size: scenes at once.
        shard_rows: scenes in a file.
        num_workers: processes that read, for each process that embeds.
        push_to_hub: the dataset repository to publish in, or None.
        hub_private_repo: True or False requires a private or a public one.
    """

    data_dir: Path
    bridge: str
    output: Path
    splits: Sequence[str] = SPLITS
    captions: str = "35"
    batch_size: int = 64
    shard_rows: int = SHARD_ROWS
    num_workers: int = 2
    push_to_hub: str | None = None
    hub_private_repo: bool | None = None


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
    scenes, tiles, described = zip(*batch, strict=True)
    captions = [tile.captions[0].strip() for tile in tiles]
    return [
        {
            **columns,
            "image_id": tile.name,
            "caption": caption,
            "split": split,
            "scene_embedding": scene_vector,
            "caption_embedding": caption_vector,
            "source": "ChatEarthNet (CC-BY-4.0)",
        }
        for tile, columns, caption, scene_vector, caption_vector in zip(
            tiles,
            described,
            captions,
            bridge.embed(scenes, len(scenes)),
            embed_captions(captions, str(bridge.device)),
            strict=True,
        )
    ]


def _describe_scenes(batch: Sequence[tuple[Scene, Tile]]) -> list[tuple[Scene, Tile, Any]]:
    return [(scene, tile, describe_scene(scene, THUMBNAIL_PIXELS)) for scene, tile in batch]


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
            tiles, batch_sampler=batches, num_workers=num_workers, collate_fn=_describe_scenes
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


def embed_chatearthnet(
    arguments: EmbeddingArguments, accelerator: Accelerator, report: Callable[[str], None]
) -> None:
    """Write the embedding dataset and its card, and publish them if asked to.

    report: called in the main process with what was written and where it was published.
    Raises ValueError or OSError for data, a bridge or a folder that does not fit, ConnectionError
    where the Hub cannot be reached.
    """
    started = time.time()
    repository = arguments.push_to_hub
    bridge_id = LOCAL_REVISION if Path(arguments.bridge).is_dir() else arguments.bridge
    if repository:
        _check_publishing(arguments, repository, bridge_id)
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
        f"{describe_count(accelerator.num_processes, 'process')} on {accelerator.device.type}",
    }
    write_card(arguments.output, sizes, bridge, values)
    write_collection(arguments.output, repository or "ChatEarthNet")
    report(_describe_files(arguments.output, sizes, shards))
    if repository:
        report(f"Published: {_push(arguments, repository, shards, bridge.revision)}")


def _describe_files(folder: Path, sizes: dict[str, int], shards: Sequence[Shard]) -> str:
    size = sum((folder / shard.name).stat().st_size for shard in shards)
    return f"{describe_count(sum(sizes.values()), 'scene')}, {size / 1e6:.1f} MB, in {folder}"


def _push(
    arguments: EmbeddingArguments, repository: str, shards: Sequence[Shard], revision: str
) -> str:
    return push(
        arguments.output,
        repository,
        [*(shard.name for shard in shards), CARD_FILE, COLLECTION_FILE],
        commit_message=f"Embed ChatEarthNet with bridge {revision}",
        owned=OWNED_FILES,
        repo_type="dataset",
        private=arguments.hub_private_repo,
    )


def _check_publishing(arguments: EmbeddingArguments, repository: str, bridge_id: str) -> None:
    """Raise ValueError, before anything is embedded, if the dataset could not be published."""
    if bridge_id == LOCAL_REVISION:
        raise ValueError(
            f"The bridge is in the local folder {arguments.bridge}, so nobody else could load it "
            f"to search these scenes: publish it with `earthvlm push {arguments.bridge} "
            "OWNER/NAME`, then give --bridge OWNER/NAME."
        )
    on_main_process(
        lambda: check_push(repository, repo_type="dataset", private=arguments.hub_private_repo)
    )


def _describe_command(arguments: EmbeddingArguments, bridge_id: str) -> str:
    """The command for the card, without paths of this machine."""
    bridge = "BRIDGE" if bridge_id == LOCAL_REVISION else bridge_id
    words = ["accelerate launch -m earthvlm embed-dataset --data_dir DATA --output OUTPUT"]
    words += [f"--bridge {bridge} --captions {arguments.captions}"]
    words += [f"--splits {' '.join(arguments.splits)} --shard_rows {arguments.shard_rows}"]
    return " ".join(words)
