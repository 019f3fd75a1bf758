"""A SceneTable in files that are mapped into memory: open in a moment, read where it is touched.

It is made from the Parquet files of a dataset, beside them or in the cache, and made again whenever
it does not fit them, is cut short or is damaged:

    manifest.json           what it was made from, and each file's size and checksum
    rows.arrow              the columns without embeddings and thumbnails
    thumbnails.arrow        the thumbnails
    SPACE-vectors.npy       float32 [N, 384]
    SPACE-present.npy       bool [N], which rows have a vector
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from filelock import FileLock

from earthvlm.embeddings.dataset import dataset_files, read_shard
from earthvlm.embeddings.schema import check_rows, get_vectors
from earthvlm.embeddings.table import SPACES, SceneTable, find_present
from earthvlm.models.text_encoder import SENTENCE_DIM

STORE_FORMAT = 4
STORE_FOLDER = "index"  # beside the Parquet files
MANIFEST = "manifest.json"
# The end of a Parquet file: its footer, which tells the place and size of every page, and the last
# of the pages. A file with another end is another file.
_END_BYTES = 2**20
_READ_BYTES = 2**22
# Thumbnails are most of a store; a damaged one is found when it is decoded.
_UNHASHED = ("thumbnails.arrow",)


def fingerprint(paths: Sequence[Path]) -> str:
    """What tells the Parquet files of a dataset from others: their names, sizes and ends."""
    digest = xxhash.xxh3_128()
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            file.seek(max(0, size - _END_BYTES))
            digest.update(file.read())
    return digest.hexdigest()


def open_stored(folder: Path) -> SceneTable:
    """Open a dataset's table from its store, which is made first where there is none that fits.

    It lies in the dataset's folder where `SceneIndex.save` made it there, else in the cache,
    `$EARTHVLM_CACHE` or `~/.cache/earthvlm`. Raises ValueError as `read_embedding_dataset` does.
    """
    paths = dataset_files(folder)
    made_from = fingerprint(paths)
    cached = _cache_folder(folder)
    for store in (folder / STORE_FOLDER, cached):
        if is_whole(store, made_from):
            return _map_table(store)
    cached.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{cached}.lock"):
        if not is_whole(cached, made_from):  # another process may have made it meanwhile
            write_store(cached, paths, made_from)
    return _map_table(cached)


def is_whole(store: Path, made_from: str) -> bool:
    """Whether a store was made from these files and has every byte it was written with."""
    try:
        manifest = json.loads((store / MANIFEST).read_text())
        if (manifest["format"], manifest["made_from"]) != (STORE_FORMAT, made_from):
            return False
        return all(
            (store / name).stat().st_size == size and kept in (None, checksum(store / name))
            for name, (size, kept) in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_store(store: Path, paths: Sequence[Path], made_from: str) -> None:
    """Make a store from Parquet files, whole or not at all, one file of them in memory at a time.

    Raises ValueError for rows that `write_embedding_dataset` would refuse.
    """
    store.parent.mkdir(parents=True, exist_ok=True)
    unfinished = store.with_name(f".{store.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        _write_rows(unfinished, paths)
        files = {
            path.name: (path.stat().st_size, None if path.name in _UNHASHED else checksum(path))
            for path in sorted(unfinished.iterdir())
        }
        manifest = {"format": STORE_FORMAT, "made_from": made_from, "files": files}
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1))
        shutil.rmtree(store, ignore_errors=True)
        unfinished.rename(store)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def copy_dataset(folder: Path, target: Path, scene_files: Iterable[str]) -> None:
    """Copy a dataset into another folder, with scene files of it, and its store made there.

    Raises ValueError where the folder has Parquet files already, which would become part of it.
    """
    paths = dataset_files(folder)
    if target.is_dir() and any(target.glob("*.parquet")):
        raise ValueError(f"{target} holds Parquet files already; give an empty folder")
    target.mkdir(parents=True, exist_ok=True)
    for path in paths:
        shutil.copyfile(path, target / path.name)
    for scene_file in scene_files:
        if (folder / scene_file).is_file():
            (target / scene_file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / scene_file, target / scene_file)
    write_store(target / STORE_FOLDER, dataset_files(target), fingerprint(paths))


def _write_rows(folder: Path, paths: Sequence[Path]) -> None:
    count = sum(pq.ParquetFile(path).metadata.num_rows for path in paths)
    arrays = {
        space: np.lib.format.open_memmap(
            folder / f"{space}-vectors.npy", "w+", np.float32, (count, SENTENCE_DIM)
        )
        for space in SPACES
    }
    seen: set[str] = set()
    first = 0
    with _writer(folder / "rows.arrow") as rows, _writer(folder / "thumbnails.arrow") as pictures:
        for path in paths:
            table, _ = read_shard(path)
            check_rows(table, str(path), seen)
            for space, column in SPACES.items():
                arrays[space][first : first + len(table)] = get_vectors(table, column)
            first += len(table)
            table = table.drop_columns(list(SPACES.values())).replace_schema_metadata(None)
            rows(table.drop_columns(["thumbnail"]))
            pictures(table.select(["thumbnail"]))
    for space, vectors in arrays.items():
        # To find these in the mapped vectors would read every page of them.
        np.save(folder / f"{space}-present.npy", find_present(vectors))


def _map_array(path: Path) -> np.ndarray:
    # Nothing writes to it; torch warns of arrays that do not let it.
    return np.asarray(np.load(path, mmap_mode="c"))


@contextmanager
def _writer(path: Path) -> Iterator:
    sink = writer = None

    def write(table: pa.Table) -> None:
        nonlocal sink, writer
        if writer is None:
            sink = pa.OSFile(str(path), "wb")
            writer = pa.ipc.new_file(sink, table.schema)
        writer.write_table(table)

    try:
        yield write
    finally:
        for each in (writer, sink):
            if each is not None:
                each.close()


def _map_table(store: Path) -> SceneTable:
    columns = [
        pa.ipc.open_file(pa.memory_map(str(store / name))).read_all()
        for name in ("rows.arrow", "thumbnails.arrow")
    ]
    rows = columns[0].append_column("thumbnail", columns[1].column("thumbnail"))
    vectors = {space: _map_array(store / f"{space}-vectors.npy") for space in SPACES}
    present = {space: np.load(store / f"{space}-present.npy") for space in SPACES}
    return SceneTable(rows, vectors, present, folder=store)


def _cache_folder(folder: Path) -> Path:
    root = Path(os.environ.get("EARTHVLM_CACHE") or Path.home() / ".cache" / "earthvlm")
    return root / "indexes" / xxhash.xxh3_64_hexdigest(str(folder.resolve()).encode())


def checksum(path: Path) -> str:
    """What tells whether a file was damaged, at the speed of memory."""
    digest = xxhash.xxh3_64()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            yield block
