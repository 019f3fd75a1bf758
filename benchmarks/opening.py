"""Measure the seconds and memory of opening a dataset, for `benchmarks.search --opening`."""

from __future__ import annotations

import io
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image


def draw_pictures(count: int) -> list[bytes]:
    """Pictures of 96 x 96 pixels in about the 3,000 bytes that a tile's thumbnail takes."""
    rng, drawn = np.random.default_rng(2), []
    for _ in range(count):
        picture = Image.fromarray(rng.integers(0, 256, (28, 28, 3), np.uint8))
        buffer = io.BytesIO()
        picture.resize((96, 96), Image.Resampling.BICUBIC).save(buffer, "WEBP", quality=85)
        drawn.append(buffer.getvalue())
    return drawn


def measure_opening(rows: int, folder: Path, vectors: np.ndarray) -> dict[str, float]:
    """Seconds and memory of opening a dataset of `rows` scenes, the first time and again."""
    from earthvlm.embeddings.dataset import write_embedding_dataset

    dataset, shard = folder / "dataset", 4096
    pictures = draw_pictures(shard)
    for start in range(0, rows, shard):
        made = [
            {
                "image_id": f"tile_{row}",
                "split": "val",
                "caption": f"Scene {row} of fields, a river and trees, with a village beside it.",
                "longitude": row % 360 - 180.0,
                "latitude": row % 180 - 90.0,
                "thumbnail": pictures[row % len(pictures)],
                "scene_embedding": vectors[row],
                "caption_embedding": vectors[-1 - row],
            }
            for row in range(start, min(start + shard, rows))
        ]
        name = f"part-{start // shard + 1:05d}.parquet"
        write_embedding_dataset(dataset, made, "benchmark", "0", name=name)
    os.environ["EARTHVLM_CACHE"] = str(folder / "cache")
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    for _ in range(2):
        process = spawn.Process(target=open_dataset, args=(dataset, np.array(vectors[5]), queue))
        process.start()
        process.join()
    (first, _, _), (again, searched, memory) = queue.get(), queue.get()
    return {
        "first_s": first,
        "again_s": again,
        "first_search_s": searched,
        "memory_mb": memory,
        "vectors_mb": 2 * vectors[:rows].nbytes / 1e6,
    }


def open_dataset(dataset: Path, query: np.ndarray, queue: multiprocessing.Queue) -> None:
    """Put into the queue how long opening and a search take, and the memory both need."""
    import torch  # noqa: F401, what every command loads counts for none

    from earthvlm.search.index import SceneIndex

    before = psutil.Process().memory_full_info().uss
    start = time.perf_counter()
    index = SceneIndex.from_pretrained(dataset)
    opened = time.perf_counter()
    index.search(query, k=12)
    searched = time.perf_counter()
    memory = (psutil.Process().memory_full_info().uss - before) / 1e6
    queue.put((opened - start, searched - opened, memory))
