"""Embed captioned scenes with a bridge: Parquet files to search in, and to publish.

Each process takes its share of the files and writes them one by one. Existing files are kept, so
that the same call resumes an interrupted run. The rows do not depend on the number of processes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.chatearthnet.dataset import HUB_ID as CHATEARTHNET
from earthvlm.data.chatearthnet.dataset import SPLITS
from earthvlm.data.sources.mixture import open_mixture
from earthvlm.data.sources.opening import list_splits
from earthvlm.data.sources.weighted_source import WeightedSource
from earthvlm.data.tile_dataset import TileDataset, list_entries
from earthvlm.embeddings.dataset import count_rows
from earthvlm.embeddings.stac import COLLECTION_FILE, write_collection
from earthvlm.publishing.dataset_card import write_card
from earthvlm.publishing.embedding_shards import (
    Shard,
    TilesToEmbed,
    embed_shards,
    find_missing,
    name_bridge,
    plan_shards,
)
from earthvlm.publishing.origin import CARD_FILE, UNKNOWN, Origin, find_origin
from earthvlm.scenes.places.formatting import describe_count
from earthvlm.storage.hub import LOCAL_REVISION, check_push, push
from earthvlm.training.process import on_main_process

SHARD_ROWS = 4096
_SPLIT = re.compile(r"\w+(\.\w+)*")  # as `datasets` takes them


@dataclass(frozen=True)
class EmbeddingArguments:
    """What to embed, with which bridge, and where the rows go.

    Attributes:
        data_dir: what `--data_dir` of the training takes; of several, weights say nothing.
        bridge: a folder, a Hub repository or "bundled".
        output: the folder of the Parquet files.
        splits: those to embed; all by default.
        captions: of ChatEarthNet, "35" for those by ChatGPT-3.5, "4v" for those by GPT-4V.
        batch_size: scenes at once.
        shard_rows: scenes in a file.
        num_workers: processes that read, for each process that embeds.
        push_to_hub: the dataset repository to publish in, or None.
        hub_private_repo: True or False requires a private or a public one.
        name, licence, source: of the images and captions; see `Origin`.
    """

    data_dir: Sequence[str]
    bridge: str
    output: Path
    splits: Sequence[str] = ()
    captions: str = "35"
    batch_size: int = 64
    shard_rows: int = SHARD_ROWS
    num_workers: int = 2
    push_to_hub: str | None = None
    hub_private_repo: bool | None = None
    name: str | None = None
    licence: str | None = None
    source: str | None = None

    @property
    def sources(self) -> list[WeightedSource]:
        """The sources; ValueError for a weight that is no number above 0."""
        return [WeightedSource.parse(each) for each in self.data_dir]


def open_splits(arguments: EmbeddingArguments) -> dict[str, TileDataset]:
    """Open the splits to embed. An image of several splits stays in the last of them alone.

    Raises ValueError or OSError where a source or a split cannot be opened.
    """
    splits = list(arguments.splits)
    if not splits:
        found = [
            s for each in arguments.sources for s in list_splits(each.name, arguments.captions)
        ]
        splits = list(dict.fromkeys(found))
    for split in splits:
        if not _SPLIT.fullmatch(split):
            raise ValueError(f"the split {split!r} cannot be part of a file's name; rename it")
    datasets = {s: open_mixture(arguments.sources, s, arguments.captions) for s in splits}
    seen: set[str] = set()
    for split in reversed(splits):
        dataset = datasets[split]
        repeated = [tile.name for tile in dataset.tiles if tile.name in seen]
        if repeated:
            dataset = dataset.with_tiles([t for t in dataset.tiles if t.name not in seen])
            dataset.left_out.append(list_entries(split, "also in another split", repeated, "tile"))
            datasets[split] = dataset
        seen.update(tile.name for tile in dataset.tiles)
    return datasets


def embed_dataset(
    arguments: EmbeddingArguments, accelerator: Accelerator, report: Callable[[str], None]
) -> None:
    """Write the embedding dataset and its card, and publish them if asked to.

    report: called in the main process with what was left out, written and published.
    Raises ValueError or OSError for data, a bridge or a folder that does not fit, ConnectionError
    where the Hub cannot be reached.
    """
    started = time.time()
    repository = arguments.push_to_hub
    bridge_id = LOCAL_REVISION if Path(arguments.bridge).is_dir() else arguments.bridge
    if repository:
        _check_publishing(arguments, repository, bridge_id)
    datasets = open_splits(arguments)
    origin = _find_origin(arguments, datasets)
    if accelerator.is_main_process:
        _report_data(datasets, origin, report)
    with accelerator.main_process_first():  # the first may download or convert models
        bridge = OlmoEarthVLMBridge.from_pretrained(arguments.bridge, accelerator.device)
    planned = {split: len(dataset) for split, dataset in datasets.items()}
    shards = plan_shards(planned, arguments.shard_rows)
    missing = find_missing(shards, arguments.output, bridge)
    accelerator.wait_for_everyone()  # all list the missing shards before any is written
    faults = embed_shards(
        bridge,
        bridge_id,
        TilesToEmbed([*datasets.values()]),
        missing[accelerator.process_index :: accelerator.num_processes],
        arguments.output,
        source=origin.source,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        progress=partial(tqdm, desc="embedding", disable=not accelerator.is_main_process),
    )
    faults = gather_object(faults)  # and waits for all processes
    if not accelerator.is_main_process:
        return
    if faults:
        report(f"Left out: {list_entries(origin.name, 'that cannot be read', faults, 'tile')}.")
    name_bridge(arguments.output, shards, bridge_id)
    written = dict.fromkeys(shard.split for shard in shards)  # a split may have no tile of its own
    sizes = {s: _count(arguments.output, [x for x in shards if x.split == s]) for s in written}
    values = {
        "source": repository or ".",
        "bridge_id": bridge_id,
        "command": _describe_command(arguments, bridge_id, list(datasets)),
        "run": f"{_count(arguments.output, missing):,} of them in "
        f"{(time.time() - started) / 60:.1f} minutes by "
        f"{describe_count(accelerator.num_processes, 'process')} on {accelerator.device.type}",
    }
    write_card(arguments.output, sizes, bridge, origin, values)
    write_collection(arguments.output, repository or origin.name)
    report(_describe_files(arguments.output, sizes, shards))
    if repository:
        report(f"Published: {_push(arguments, repository, shards, origin, bridge.revision)}")


def _find_origin(arguments: EmbeddingArguments, datasets: dict[str, TileDataset]) -> Origin:
    return find_origin(
        arguments.sources,
        all(dataset.hub_id == CHATEARTHNET for dataset in datasets.values()),
        name=arguments.name,
        licence=arguments.licence,
        source=arguments.source,
    )


def _report_data(
    datasets: dict[str, TileDataset], origin: Origin, report: Callable[[str], None]
) -> None:
    """Report what was assumed of the data, and left out."""
    notes = [note for dataset in datasets.values() for note in dataset.notes]
    notes += [f"Left out: {line}." for each in datasets.values() for line in each.left_out]
    if origin.licence == UNKNOWN:
        notes.append(
            f"The card will say that the licence of {origin.name} is unknown: --licence names it."
        )
    for note in dict.fromkeys(notes):
        report(note)


def _count(folder: Path, shards: Sequence[Shard]) -> int:
    return count_rows([folder / shard.name for shard in shards])


def _describe_files(folder: Path, sizes: dict[str, int], shards: Sequence[Shard]) -> str:
    size = sum((folder / shard.name).stat().st_size for shard in shards)
    return f"{describe_count(sum(sizes.values()), 'scene')}, {size / 1e6:.1f} MB, in {folder}"


def _push(
    arguments: EmbeddingArguments,
    repository: str,
    shards: Sequence[Shard],
    origin: Origin,
    revision: str,
) -> str:
    # What the repository may hold of an earlier push, of other splits or in another number of files
    splits = dict.fromkeys((*SPLITS, *(shard.split for shard in shards)))
    return push(
        arguments.output,
        repository,
        [*(shard.name for shard in shards), CARD_FILE, COLLECTION_FILE],
        commit_message=f"Embed {origin.name} with bridge {revision}",
        owned=[CARD_FILE, COLLECTION_FILE, *(f"{split}-*-of-*.parquet" for split in splits)],
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


def _describe_command(arguments: EmbeddingArguments, bridge_id: str, splits: Sequence[str]) -> str:
    """The command for the card, without paths of this machine."""
    bridge = "BRIDGE" if bridge_id == LOCAL_REVISION else bridge_id
    data = [each.name if each.is_on_hub else "DATA" for each in arguments.sources]
    words = ["accelerate launch -m earthvlm embed-dataset"]
    words += [f"--data_dir {each}" for each in data]
    words += [f"--output OUTPUT --bridge {bridge} --captions {arguments.captions}"]
    words += [f"--splits {' '.join(splits)} --shard_rows {arguments.shard_rows}"]
    return " ".join(words)
