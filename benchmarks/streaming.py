"""Measure what training from a dataset on the Hub costs over training from a folder.

python -m benchmarks.streaming --data_dir DATA [--tiles 400] [--rounds 3]

Both have the same tiles as GeoTIFFs, with captions and labels: a folder with metadata.jsonl, and
Parquet files that `datasets` wrote, on a Hub on this machine. An epoch of each is read in turn, by
two workers with empty caches, which includes fetching. Processor seconds are counted, not the
Hub's own, nor the time that a network takes. Training is that of a LoRA in SmolLM2 and of the
queries, in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from benchmarks.report import report
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.labels import FACTS_FILE, LABELS_FILE, read_entries
from earthvlm.data.sources.opening import open_scenes
from earthvlm.training.batches.samples import Batch
from earthvlm.training.config import TrainingConfig
from earthvlm.training.dataloaders import StageLoaders
from earthvlm.training.losses.training_model import TrainingModel
from earthvlm.training.step import read_batches, train_step
from tests.conftest import hub_environment
from tests.support.hub_server import LocalHub, serve

REPOSITORY = "jane/tiles"
SHARDS = 8  # of the training split; training draws from four at a time
VALIDATION = 1  # tiles
BATCH = 4
STEPS = 3  # of training, each round


def write_folder(data: Path, folder: Path, count: int) -> dict[str, list[dict[str, Any]]]:
    """Write tiles as GeoTIFFs with metadata.jsonl; return the rows of each split."""
    labels = read_entries(data / LABELS_FILE) or read_entries(data / FACTS_FILE)
    rows: dict[str, list[dict[str, Any]]] = {}
    for split, size in (("train", count), ("val", VALIDATION)):
        dataset = open_scenes(data, split)
        (folder / split).mkdir(parents=True)
        for tile in dataset.tiles[:size]:
            name = f"{split}/{Path(tile.name).stem}.tif"
            dataset.read(tile).save(folder / name)
            row = {"file_name": name, "text": list(tile.captions), "split": split}
            row["labels"] = json.dumps(labels.get(tile.name))
            rows.setdefault(split, []).append(row)
    lines = [json.dumps(row) for each in rows.values() for row in each]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return rows


def commit_shards(hub: LocalHub, folder: Path, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Put the same tiles on the Hub, as Parquet files with the images in them."""
    from datasets import Dataset, Image

    files: dict[str, bytes] = {}
    for split, each in rows.items():
        columns = {name: [row[name] for row in each] for name in ("text", "labels")}
        images = [{"bytes": (folder / row["file_name"]).read_bytes(), "path": None} for row in each]
        table = Dataset.from_dict({"image": images, **columns})
        table = table.cast_column("image", Image(decode=False))
        count = SHARDS if split == "train" else 1
        for number in range(count):
            name = f"data/{split}-{number:05d}-of-{count:05d}.parquet"
            with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
                table.shard(count, number).to_parquet(file.name)
                files[name] = Path(file.name).read_bytes()
    hub.repository(f"datasets/{REPOSITORY}").commit(files)


def read_epoch(bridge: OlmoEarthVLMBridge, source: str, number: int) -> tuple[list[Batch], float]:
    """Read one epoch of batches with empty caches; return them, and processor seconds."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EARTHVLM_CACHE"] = folder
        started = _processor_seconds()
        config = TrainingConfig(source, folder, batch_size=BATCH, num_workers=2, seed=number)
        loaders = StageLoaders(bridge, config, Accelerator(cpu=True), open_scenes(source, "train"))
        batches = list(read_batches(loaders.bridge(bridge)))
        return batches, _processor_seconds() - started


def _processor_seconds() -> float:
    """Of this process and of the data loader's workers that have ended."""
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + workers.ru_utime + workers.ru_stime


def measure(sources: dict[str, str], rounds: int) -> None:
    """Print the processor seconds a tile of reading and of training, and what streaming costs."""
    bridge = OlmoEarthVLMBridge("random-v1.2-nano", "embedded", device="cpu", dtype=torch.float32)
    model, accelerator = TrainingModel(bridge).train(), Accelerator(cpu=True)
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    seconds: dict[str, list[float]] = {way: [] for way in (*sources, "training")}
    for number in range(rounds):
        for way, source in sources.items():
            batches, used = read_epoch(bridge, source, number)
            seconds[way].append(used / sum(batch.size for batch in batches))
        for step, batch in enumerate(batches[:STEPS]):
            started = time.process_time()
            train_step(accelerator, model, [batch], optimizer, parameters, step)
            seconds["training"].append((time.process_time() - started) / batch.size)
    report(
        "streaming", {way: [1000 * s for s in each] for way, each in seconds.items()}, "ms a tile"
    )
    folder, hub, training = (statistics.median(each) for each in seconds.values())
    print(f"streaming costs {(hub - folder) / (folder + training):+.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, help="in ChatEarthNet's layout")
    parser.add_argument("--tiles", type=int, default=400, help="of the epoch that is read")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure({"folder": arguments.measure, "Hub": REPOSITORY}, arguments.rounds)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder, hub_folder = Path(temporary, "tiles"), Path(temporary, "hub")
        hub_folder.mkdir()
        rows = write_folder(arguments.data_dir, folder, arguments.tiles)
        with serve(hub_folder) as hub:
            commit_shards(hub, folder, rows)
            # In a process of its own, whose client asks this Hub and which does not do its work.
            options = ["--measure", str(folder), "--rounds", str(arguments.rounds)]
            subprocess.run(
                [sys.executable, "-m", "benchmarks.streaming", *options],
                env=hub_environment(hub.url, Path(temporary, "home")),
                check=True,
            )


if __name__ == "__main__":
    main()
