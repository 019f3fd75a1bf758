"""The tiles of a run, checked before any model is loaded."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from earthvlm.data.sources.mixture import open_mixture
from earthvlm.data.tile_dataset import TileDataset, list_entries
from earthvlm.training.config import TrainingConfig


def open_training_tiles(
    config: TrainingConfig, accelerator: Accelerator
) -> tuple[TileDataset, TileDataset]:
    """Open the training and the validation tiles, and report those that are left out.

    Training leaves out tiles that are in another split too. Validation takes `max_eval_samples`
    tiles, spread over its split, and leaves out unreadable ones. All processes call this together.

    Raises FileNotFoundError if a caption file is missing, ValueError if one is damaged or no tile
    is left.
    """
    train, val = (open_mixture(config.sources, s, config.captions) for s in ("train", "val"))
    others = {"val": val}
    with suppress(FileNotFoundError):  # training does not need it
        others["test"] = open_mixture(config.sources, "test", config.captions)
    for line in dict.fromkeys([*train.notes, *val.notes]):
        accelerator.print(line)
    for line in dict.fromkeys([*train.left_out, *val.left_out]):
        accelerator.print(f"Left out: {line}.")
    for name, other in others.items():
        train = _without_tiles_of(train, other, name, accelerator)
    val = _readable(val, config.max_eval_samples, accelerator)
    for tiles, purpose in ((train, "train"), (val, "validate")):
        if not len(tiles):
            raise ValueError(
                f"{tiles.origin} has no tile to {purpose} on: add tiles, or see what "
                f"`earthvlm validate-data {config.sources[0].name}` reports."
            )
    return train, val


def _without_tiles_of(
    train: TileDataset, other: TileDataset, name: str, accelerator: Accelerator
) -> TileDataset:
    names = {tile.name for tile in other.tiles}
    both = [tile.name for tile in train.tiles if tile.name in names]
    if both:
        listed = list_entries(Path(train.origin).name, f"also in {name}", both, "tile")
        accelerator.print(f"Left out: {listed}.")
    return train.with_tiles([tile for tile in train.tiles if tile.name not in names])


def _readable(tiles: TileDataset, count: int, accelerator: Accelerator) -> TileDataset:
    """The readable ones of `count` tiles, spread evenly; a count of 0 takes all tiles."""
    count = min(count or len(tiles), len(tiles))
    spread = np.linspace(0, len(tiles) - 1, count).astype(int)
    chosen = [tiles.tiles[index] for index in spread]
    names = [tile.name for tile in chosen]
    faults: list[list[str | None]] = [[]]
    if accelerator.is_main_process:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            faults = [list(threads.map(tiles.find_fault, chosen))]
    (found,) = broadcast_object_list(faults)
    bad = [f"{name}: {fault}" for name, fault in zip(names, found, strict=True) if fault]
    if bad:
        reason = "that cannot be validated on"
        listed = list_entries(Path(tiles.origin).name, reason, bad, "tile")
        accelerator.print(f"Left out: {listed}.")
    return tiles.with_tiles(
        [tile for tile, fault in zip(chosen, found, strict=True) if fault is None]
    )
