"""Several sources as one dataset, drawn from with weights: `--data_dir a=3 --data_dir b=1`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from earthvlm.data.captioned_scenes import Tile
from earthvlm.data.sources.opening import open_scenes
from earthvlm.data.sources.weighted_source import WeightedSource
from earthvlm.data.tile_dataset import TileDataset
from earthvlm.scenes.scene import Scene


def open_mixture(
    sources: Sequence[WeightedSource], split: str, captions: str = "35"
) -> TileDataset:
    """Open one split of each source, and join them where there are several.

    A tile's name then begins with its source's. Sources without that split are left out. Raises
    what `open_scenes` does.
    """
    if len(sources) == 1:
        return open_scenes(sources[0].name, split, captions)
    parts: list[tuple[str, float | None, TileDataset]] = []
    missing: FileNotFoundError | None = None
    for source in sources:
        try:
            dataset = open_scenes(source.name, split, captions)
        except FileNotFoundError as error:
            missing = error
            continue
        parts.append(
            (_label(source.name, [label for label, _, _ in parts]), source.weight, dataset)
        )
    if not parts and missing is not None:
        raise missing
    return _join(parts)


def _label(name: str, taken: Sequence[str]) -> str:
    label = PurePosixPath(Path(name).as_posix()).name
    return label if label not in taken else f"{label}-{len(taken) + 1}"


def _join(parts: Sequence[tuple[str, float | None, TileDataset]]) -> TileDataset:
    origins: dict[str, tuple[TileDataset, Tile]] = {}
    tiles: list[Tile] = []
    shards = 0
    weighted = any(weight is not None for _, weight, _ in parts)
    for label, weight, dataset in parts:
        share = (1.0 if weight is None else weight) / max(len(dataset), 1) if weighted else 1.0
        for tile in dataset.tiles:
            joined = replace(
                tile, name=f"{label}/{tile.name}", weight=share, shard=shards + tile.shard
            )
            origins[joined.name] = dataset, tile
            tiles.append(joined)
        shards += 1 + max((tile.shard for tile in dataset.tiles), default=0)

    def open_tile(tile: Tile) -> Scene:
        dataset, own = origins[tile.name]
        return dataset.open(own)

    hub_ids = sorted({dataset.hub_id for _, _, dataset in parts if dataset.hub_id})
    return TileDataset(
        ", ".join(dataset.origin for _, _, dataset in parts),
        tiles,
        open_tile,
        left_out=[line for _, _, dataset in parts for line in dataset.left_out],
        notes=[line for _, _, dataset in parts for line in dataset.notes],
        hub_id=", ".join(hub_ids) or None,
    )
