"""Measure each search engine's speed, recall, memory and disk.

python -m benchmarks.search [--rows 163488] [--data_dir DATA] [--captions] [--engines exact ...]

Vectors are drawn around the embeddings of real scenes (the bundled ones, the tiles in DATA, or
their captions), so that they are spread as unevenly; queries are drawn likewise. Each engine
returns 10. Recall is against float64 arithmetic, and measured again for words, which are farther
from all scenes. Each engine runs in its own process, for its own memory, and takes turns there with
"numpy", a plain float32 matrix product. "faiss-flat" and "faiss-ivf1000" (50 lists probed) are for
comparison. --opening also measures how long a dataset of that size takes to open.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from benchmarks.drawn_vectors import (
    DIMENSIONS,
    draw_vectors,
    embed_captions,
    embed_scenes,
    embed_words,
    find_reference,
)
from benchmarks.opening import measure_opening
from benchmarks.report import RESULTS
from earthvlm.embeddings.schema import EMBEDDING_SCHEMA
from earthvlm.embeddings.table import SPACES, SceneTable

ROWS = 163_488  # of ChatEarthNet
ENGINES = (
    "numpy",
    "exact",
    "faiss-flat",
    "faiss-ivf1000",
    "faiss-sq8",
    "faiss-ivf",
    "faiss-hnsw",
    "milvus",
)
QUERIES = ("queries", "words")
FOUND = 10
BATCH = 64
TURNS = 8
CLIENTS = 16
CLIENT_SECONDS = 3


def make_table(vectors: np.ndarray, folder: Path) -> SceneTable:
    """A table of these vectors, whose captions have none."""
    count = len(vectors)
    values = {
        "image_id": pa.array([f"tile_{n}" for n in range(count)]),
        "split": pa.array(np.where(np.arange(count) % 10, "train", "val")),
    }
    fields = [field for field in EMBEDDING_SCHEMA if field.name not in SPACES.values()]
    columns = [values.get(f.name, pa.nulls(count, f.type)).cast(f.type) for f in fields]
    rows = pa.table(columns, schema=pa.schema(fields))
    none = np.broadcast_to(np.float32(np.nan), vectors.shape)
    return SceneTable(rows, {"scene": vectors, "caption": none}, folder=folder)


def search_plainly(vectors: np.ndarray, queries: np.ndarray) -> list[np.ndarray]:
    """The nearest rows by a float32 matrix product."""
    found = queries @ vectors.T if len(queries) > 1 else (vectors @ queries[0])[None]
    return list(np.argpartition(found, found.shape[1] - FOUND, axis=1)[:, -FOUND:])


def build(name: str, vectors: np.ndarray, folder: Path) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A function from queries `[Q, 384]` to the rows found for each."""
    if name == "numpy":
        return partial(search_plainly, vectors)
    if name in ("faiss-flat", "faiss-ivf1000"):
        import faiss

        index = faiss.IndexFlatIP(DIMENSIONS)
        if name == "faiss-ivf1000":
            index = faiss.IndexIVFFlat(index, DIMENSIONS, 1000, faiss.METRIC_INNER_PRODUCT)
            index.train(vectors[:: max(1, len(vectors) // 50_000)])
            index.nprobe = 50
        index.add(vectors)
        faiss.write_index(index, str(folder / "reference.index"))
        return lambda queries: list(index.search(queries, FOUND)[1])
    from earthvlm.embeddings.filters import SceneFilter
    from earthvlm.search.engines.factory import make_engine

    table = make_table(vectors, folder)
    engine = make_engine(f"milvus:{folder / 'scenes.db'}" if name == "milvus" else name, table)
    everything = SceneFilter()
    return lambda queries: [
        hits.rows[:FOUND] for hits in engine.search("scene", queries, FOUND, everything)
    ]


def measure(name: str, drawn: Path, queue: multiprocessing.Queue) -> None:
    """Measure one engine and put what was found into the queue."""
    vectors = np.asarray(np.load(drawn / "vectors.npy", mmap_mode="r"))
    queries, words = (np.load(drawn / f"{name}.npy") for name in QUERIES)
    with tempfile.TemporaryDirectory(dir=drawn) as folder:
        before = psutil.Process().memory_full_info().uss
        start = time.perf_counter()
        search = build(name, vectors, Path(folder))
        search(queries[:1])
        seconds = time.perf_counter() - start
        single, ratios, found = [], [], []
        for some in np.array_split(queries, TURNS):  # so that what else goes on slows both
            seconds_each, rows = take_time(search, some)
            plain, _ = take_time(partial(search_plainly, vectors), some)
            ratios.append(statistics.median(plain) / statistics.median(seconds_each))
            single += seconds_each
            found += rows
        batches = []
        for start_row in range(0, len(queries) - BATCH + 1, BATCH):
            start = time.perf_counter()
            search(queries[start_row : start_row + BATCH])
            batches.append(time.perf_counter() - start)
        memory = (psutil.Process().memory_full_info().uss - before) / 1e6
        by_words = [search(query[None])[0] for query in words]
        result = {
            "times_numpy": statistics.median(ratios),
            "median_ms": 1e3 * statistics.median(single),
            "p99_ms": 1e3 * float(np.percentile(single, 99)),
            "batch_ms": 1e3 * statistics.median(batches) if batches else None,
            **measure_together(search, queries),
            "recall": measure_recall(vectors, queries, found),
            "recall_of_words": measure_recall(vectors, words, by_words),
            "build_s": seconds,
            "memory_mb": memory,
            "disk_mb": sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()) / 1e6,
        }
    queue.put(result)


def take_time(search: Callable, queries: np.ndarray) -> tuple[list[float], list[np.ndarray]]:
    """The seconds that each query takes alone, and what it finds."""
    seconds, found = [], []
    for query in queries:
        start = time.perf_counter()
        found += search(query[None])
        seconds.append(time.perf_counter() - start)
    return seconds, found


def measure_recall(vectors: np.ndarray, queries: np.ndarray, found: list[np.ndarray]) -> float:
    """The share of what was found that is as near as the last that should be."""
    least = find_reference(vectors, queries, FOUND)
    near = [
        np.mean(vectors[rows].astype(np.float64) @ query >= cosine - 1e-6)
        for rows, query, cosine in zip(found, queries, least, strict=True)
    ]
    return float(np.mean(near))


def measure_together(search: Callable, queries: np.ndarray) -> dict[str, float]:
    """Queries a second, and the slowest percent, of clients that search at the same time."""
    seconds: list[list[float]] = [[] for _ in range(CLIENTS)]
    start = time.perf_counter()

    def ask(client: int) -> None:
        number = client
        while time.perf_counter() < start + CLIENT_SECONDS:
            seconds[client] += take_time(search, queries[number % len(queries)][None])[0]
            number += CLIENTS

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, range(CLIENTS)))
    together = list(chain.from_iterable(seconds))
    return {
        "queries_per_second": len(together) / (time.perf_counter() - start),
        "p99_together_ms": 1e3 * float(np.percentile(together, 99)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--data_dir", type=Path, help="a dataset whose tiles are drawn around")
    parser.add_argument("--captions", action="store_true", help="around captions, not scenes")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--opening", action="store_true", help="measure opening a dataset, too")
    arguments = parser.parse_args()
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory(prefix="earthvlm-search-") as temporary:
        folder = Path(temporary)
        embed = embed_captions if arguments.captions else embed_scenes
        real = embed(arguments.data_dir)
        draw_vectors(folder / "vectors.npy", arguments.rows, 0, real)
        draw_vectors(folder / "queries.npy", arguments.queries, 1, real)
        np.save(folder / "words.npy", embed_words())
        spawn = multiprocessing.get_context("spawn")
        print(f"{arguments.rows:,} x {DIMENSIONS}, {arguments.queries} queries, {FOUND} found")
        print(
            f"{'engine':<14} {'median':>8} {'p99':>8} {'64 at once':>10} {'x numpy':>8} "
            f"{'16 clients':>10} {'their p99':>9} {'recall':>7} "
            f"{'words':>7} {'build':>7} {'memory':>8} {'disk':>7}"
        )
        for name in arguments.engines:
            queue = spawn.Queue()
            process = spawn.Process(target=measure, args=(name, folder, queue))
            process.start()
            while process.is_alive() and queue.empty():
                time.sleep(0.1)
            if queue.empty():
                print(f"{name:<14} ended with exit code {process.exitcode}")
                continue
            results[name] = r = queue.get()
            process.join()
            print(
                f"{name:<14} {r['median_ms']:6.2f}ms {r['p99_ms']:6.2f}ms "
                f"{r['batch_ms'] or 0:8.1f}ms {r['times_numpy']:8.1f} "
                f"{r['queries_per_second']:8.0f}/s {r['p99_together_ms']:7.0f}ms "
                f"{r['recall']:7.4f} {r['recall_of_words']:7.4f} {r['build_s']:6.1f}s "
                f"{r['memory_mb']:6.0f}MB {r['disk_mb']:5.0f}MB"
            )
        if arguments.opening:
            vectors = np.asarray(np.load(folder / "vectors.npy", mmap_mode="r"))
            results["opening"] = measure_opening(arguments.rows, folder, vectors)
            print("opening", json.dumps(results["opening"]))
    RESULTS.mkdir(exist_ok=True)
    about = {"cores": os.cpu_count(), "rows": arguments.rows, "engines": results}
    name = f"search-{arguments.rows}{'-captions' * arguments.captions}.json"
    (RESULTS / name).write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
