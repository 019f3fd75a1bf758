"""A SceneTable in memory-mapped files, which opens in a moment and reads only what is used.

It is built from the Parquet files of a dataset, next to them or in the cache folder, and built
again where the files changed or it is truncated or damaged:

    manifest.json           the fingerprint of the Parquet files; each file's size and checksum
    rows.arrow              the columns without embeddings and thumbnails
    thumbnails.arrow        the thumbnails
    SPACE-vectors.npy       float32 [N, 384]
    SPACE-present.npy       bool [N], which rows have a vector
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from filelock import FileLock

from earthvlm.embeddings.dataset import dataset_files, read_shard
from earthvlm.embeddings.schema import check_rows, get_vectors
from earthvlm.embeddings.stac import COLLECTION_FILE
from earthvlm.embeddings.table import SPACES, SceneTable, find_present
from earthvlm.models.text_encoder import SENTENCE_DIM
from earthvlm.storage.files import cache_folder, checksum, replace_folder

STORE_FORMAT = 5
STORE_FOLDER = "index"  # next to the Parquet files
MANIFEST = "manifest.json"
# The end of a Parquet file holds its footer, with the offset and size of every page, and the last
# pages. Files with different content have different ends.
_END_BYTES = 2**20
# Thumbnails are most of a store; damage is found when one is decoded.
_UNHASHED = ("thumbnails.arrow",)


def fingerprint_files(paths: Sequence[Path]) -> str:
    """Identify the Parquet files of a dataset by their names, sizes and ends."""
    digest = xxhash.xxh3_128()
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            file.seek(max(0, size - _END_BYTES))
            digest.update(file.read())
    return digest.hexdigest()


def open_stored(folder: Path) -> SceneTable:
    """Open a dataset's table from its store, which is built first where none matches.

    The store is in the dataset's folder if `SceneIndex.save` wrote it there, else in the cache
    folder. Raises ValueError as `read_embedding_dataset` does.
    """
    paths = dataset_files(folder)
    fingerprint = fingerprint_files(paths)
    cached = _cached_store(folder)
    for store in (folder / STORE_FOLDER, cached):
        if is_intact(store, fingerprint):
            return _map_table(store)
    cached.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{cached}.lock"):
        if not is_intact(cached, fingerprint):  # another process may have built it meanwhile
            write_store(cached, paths, fingerprint)
    return _map_table(cached)


def is_intact(store: Path, fingerprint: str) -> bool:
    """Whether a store was built from the files of this fingerprint and is undamaged."""
    try:
        manifest = json.loads((store / MANIFEST).read_text("utf-8"))
        if (manifest["format"], manifest["fingerprint"]) != (STORE_FORMAT, fingerprint):
            return False
        return all(
            (store / name).stat().st_size == size and kept in (None, checksum(store / name))
            for name, (size, kept) in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_store(store: Path, paths: Sequence[Path], fingerprint: str) -> None:
    """Build a store from Parquet files atomically, with one file in memory at a time.

    Raises ValueError for rows that `write_embedding_dataset` would refuse.
    """
    with replace_folder(store) as folder:
        _write_rows(folder, paths)
        files = {
            path.name: (path.stat().st_size, None if path.name in _UNHASHED else checksum(path))
            for path in sorted(folder.iterdir())
        }
        manifest = {"format": STORE_FORMAT, "fingerprint": fingerprint, "files": files}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")


def copy_dataset(folder: Path, target: Path, scene_files: Iterable[str]) -> None:
    """Copy a dataset into another folder, with scene files, and build its store there.

    Raises ValueError where the folder already has Parquet files, which would become part of it.
    """
    paths = dataset_files(folder)
    if target.is_dir() and any(target.glob("*.parquet")):
        raise ValueError(f"{target} already holds Parquet files; give an empty folder")
    target.mkdir(parents=True, exist_ok=True)
    for path in paths:
        shutil.copyfile(path, target / path.name)
    if (folder / COLLECTION_FILE).is_file():
        shutil.copyfile(folder / COLLECTION_FILE, target / COLLECTION_FILE)
    for scene_file in scene_files:
        if (folder / scene_file).is_file():
            (target / scene_file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / scene_file, target / scene_file)
    write_store(target / STORE_FOLDER, dataset_files(target), fingerprint_files(paths))


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
    with _writer(folder / "rows.arrow") as rows, _writer(folder / "thumbnails.arrow") as thumbnails:
        for path in paths:
            table, _ = read_shard(path)
            check_rows(table, str(path), seen)
            for space, column in SPACES.items():
                arrays[space][first : first + len(table)] = get_vectors(table, column)
            first += len(table)
            table = table.drop_columns(list(SPACES.values())).replace_schema_metadata(None)
            rows(table.drop_columns(["thumbnail"]))
            thumbnails(table.select(["thumbnail"]))
    for space, vectors in arrays.items():
        # Finding them in the mapped vectors later would read every page.
        np.save(folder / f"{space}-present.npy", find_present(vectors))


def _map_array(path: Path) -> np.ndarray:
    # Copy on write: nothing writes to it, but torch warns about read-only arrays.
    return np.asarray(np.load(path, mmap_mode="c"))


@contextmanager
def _writer(path: Path) -> Iterator[Callable[[pa.Table], None]]:
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


def _cached_store(folder: Path) -> Path:
    return cache_folder() / "indexes" / xxhash.xxh3_64_hexdigest(str(folder.resolve()).encode())
