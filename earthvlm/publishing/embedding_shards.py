"""The files of an embedding dataset: planned, written one by one, and gone on with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.captioned_scenes import Tile
from earthvlm.data.tile_dataset import TileDataset
from earthvlm.embeddings.dataset import (
    read_provenance,
    read_shard,
    write_embedding_dataset,
    write_table,
)
from earthvlm.embeddings.rows import describe_scene, embed_captions
from earthvlm.embeddings.schema import PROVENANCE_KEY
from earthvlm.publishing.dataset_card import THUMBNAIL_PIXELS
from earthvlm.scenes.scene import Scene


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


class TilesToEmbed(Dataset):
    """The tiles of some datasets one after another, each read once.

    An item is a tile, and its scene with the columns known from it, or why it cannot be read.
    """

    def __init__(self, datasets: Sequence[TileDataset]) -> None:
        self.tiles = [(dataset, tile) for dataset in datasets for tile in dataset.tiles]

    def __getitem__(self, index: int) -> tuple[Tile, tuple[Scene, Any] | Exception]:
        dataset, tile = self.tiles[index]
        try:
            scene = dataset.open(tile)
        except (ValueError, OSError) as error:
            return tile, error
        return tile, (scene, describe_scene(scene, THUMBNAIL_PIXELS))


def embed_batch(
    bridge: OlmoEarthVLMBridge,
    batch: Sequence[tuple[Tile, tuple[Scene, Any]]],
    split: str,
    source: str,
) -> list[dict[str, Any]]:
    """Return rows of the embedding dataset for tiles, with each tile's first caption if any."""
    scenes = [scene for _, (scene, _) in batch]
    captions = [tile.captions[0].strip() if tile.captions else None for tile, _ in batch]
    vectors = iter(embed_captions([c for c in captions if c is not None], str(bridge.device)))
    return [
        {
            **columns,
            "image_id": tile.name,
            "caption": caption,
            "split": split,
            "scene_embedding": scene_vector,
            "caption_embedding": None if caption is None else next(vectors),
            "source": source,
        }
        for (tile, (_, columns)), caption, scene_vector in zip(
            batch, captions, bridge.embed(scenes, len(scenes)), strict=True
        )
    ]


def embed_shards(
    bridge: OlmoEarthVLMBridge,
    bridge_id: str,
    tiles: TilesToEmbed,
    shards: Sequence[Shard],
    folder: Path,
    *,
    source: str,
    batch_size: int,
    num_workers: int,
    progress: partial[tqdm],
) -> list[str]:
    """Write shards in order, while workers read ahead; return tiles that cannot be read, and why.

    Raises ValueError where no tile of a shard can be read.
    """
    starts = [range(0, len(shard.rows), batch_size) for shard in shards]
    batches = [
        list(shard.rows[start : start + batch_size])
        for shard, each in zip(shards, starts, strict=True)
        for start in each
    ]
    loader = iter(
        DataLoader(tiles, batch_sampler=batches, num_workers=num_workers, collate_fn=list)
    )
    faults: list[str] = []
    with progress(total=sum(len(shard.rows) for shard in shards), unit="scene") as bar:
        for shard, each in zip(shards, starts, strict=True):
            rows: list[dict[str, Any]] = []
            for _ in each:
                batch = next(loader)
                readable = _take_readable(batch, faults)
                if readable:
                    rows += embed_batch(bridge, readable, shard.split, source)
                bar.update(len(batch))
            if not rows:
                raise ValueError(f"none of the tiles of {shard.name} can be read: {faults[-1]}")
            write_embedding_dataset(folder, rows, bridge_id, bridge.revision, name=shard.name)
    return faults


def _take_readable(
    batch: Sequence[tuple[Tile, tuple[Scene, Any] | Exception]], faults: list[str]
) -> list[tuple[Tile, tuple[Scene, Any]]]:
    """The tiles that could be read; a sentence on each other is added to `faults`."""
    readable = []
    for tile, read in batch:
        if isinstance(read, ConnectionError):
            raise read
        if isinstance(read, Exception):
            faults.append(f"{tile.name}: {read}")
        else:
            readable.append((tile, read))
    return readable
