"""The embedding dataset: a folder (or a Hub dataset repository) of Parquet files.

Their rows are those of embedding_schema. Knows nothing of searching.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from PIL import Image

from earthvlm.embeddings.schema import (
    EMBEDDING_SCHEMA,
    FORMAT_VERSION,
    OPTIONAL_COLUMNS,
    PROVENANCE_KEY,
    VECTOR_COLUMNS,
    Provenance,
    check_rows,
    find_provenance,
)
from earthvlm.models.text_encoder import SENTENCE_DIM, SENTENCE_MODEL_ID, SENTENCE_MODEL_REVISION

_THUMBNAIL_QUALITY = 85  # WebP; at this quality the eye sees no difference at thumbnail size


def write_embedding_dataset(
    folder: str | Path,
    rows: Iterable[Mapping[str, Any]],
    bridge_id: str,
    bridge_revision: str,
    sentence_model: str = SENTENCE_MODEL_ID,
    sentence_revision: str = SENTENCE_MODEL_REVISION,
    name: str = "embeddings.parquet",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a Parquet file into a folder, whole or not at all, and return its path.

    rows: the columns of EMBEDDING_SCHEMA by name; `image_id` and `split` are needed, the others
        may be None or left out. A thumbnail is a PIL image or the bytes of an encoded one.
    metadata: what else the file's schema is to tell.

    Raises ValueError for a column that is not in the schema, an image_id that is missing or given
    twice, an embedding that is not `[384]` of unit length, and a scene file outside the folder.
    """
    table = pa.Table.from_pylist([_encode_row(row) for row in rows], schema=EMBEDDING_SCHEMA)
    if not table.num_rows:
        raise ValueError("an embedding dataset needs at least one row; none was given")
    check_rows(table, "the embedding dataset to write")
    provenance = Provenance(bridge_id, bridge_revision, sentence_model, sentence_revision)
    written = json.dumps({"format_version": FORMAT_VERSION, **asdict(provenance)})
    table = table.replace_schema_metadata(
        {**table.schema.metadata, **(metadata or {}), PROVENANCE_KEY: written}
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(table, folder / name)
    return folder / name


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as a file of an embedding dataset, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(table, unfinished, compression="zstd", write_page_checksum=True)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to a dataset; reading it goes on.

    Raises ValueError where another one writes to it.
    """
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(
            f"another process is writing to {folder}; wait until it has finished, and try again"
        ) from None


def next_part(folder: Path) -> str:
    """The name of one more file of a dataset, after those there are."""
    numbers = [int(path.stem.removeprefix("part-")) for path in folder.glob("part-?????.parquet")]
    return f"part-{max(numbers, default=0) + 1:05d}.parquet"


def read_embedding_dataset(folder: str | Path) -> tuple[pa.Table, Provenance]:
    """Read the Parquet files of a folder: a table of EMBEDDING_SCHEMA's columns, and its makers.

    Raises FileNotFoundError where there are none, and ValueError for a damaged file, a missing
    column, embeddings that are not `[384]` of unit length, an image_id given twice, a scene file
    outside the folder, and files that different models made.
    """
    paths = dataset_files(folder)
    provenance = find_shared_provenance(paths)
    table = pa.concat_tables(read_shard(path)[0] for path in paths).combine_chunks()
    check_rows(table, str(folder))
    return table, provenance


def dataset_files(folder: str | Path) -> list[Path]:
    """The Parquet files of a dataset. Raises FileNotFoundError where there are none."""
    folder = Path(folder)
    paths = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    if not paths:
        raise FileNotFoundError(
            f"there is no embedding dataset in {folder}; give a folder that holds *.parquet files"
        )
    return paths


def find_shared_provenance(paths: Sequence[Path]) -> Provenance:
    """The models that made all of some files. Raises ValueError where they differ."""
    makers = [read_provenance(path) for path in paths]
    for path, provenance in zip(paths, makers, strict=True):
        if provenance != makers[0]:
            raise ValueError(
                f"{path} was made by {provenance.bridge_id} ({provenance.bridge_revision}), but "
                f"{paths[0].name} by {makers[0].bridge_id} ({makers[0].bridge_revision}); "
                "keep the files of one bridge and one sentence model"
            )
    return makers[0]


def count_rows(paths: Sequence[Path]) -> int:
    """How many rows some files have, by their footers, which `find_shared_provenance` has read."""
    return sum(pq.read_metadata(path).num_rows for path in paths)


def read_image_ids(folder: str | Path) -> set[str]:
    """The image_ids of a dataset, from its files as they are now."""
    paths = dataset_files(folder)
    return {
        image_id
        for path in paths
        for image_id in pq.read_table(path, columns=["image_id"]).column(0).to_pylist()
    }


def read_provenance(path: str | Path) -> Provenance:
    """Which models made a Parquet file. Raises ValueError where it is damaged or does not tell."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet; download or build it again") from error
    return find_provenance(metadata, Path(path))


def decode_thumbnail(thumbnail: Mapping[str, Any] | None, image_id: str) -> Image.Image | None:
    """Return a row's thumbnail as an RGB image. Raises ValueError where it is damaged."""
    if thumbnail is None or not thumbnail["bytes"]:
        return None
    try:
        with Image.open(io.BytesIO(thumbnail["bytes"]), formats=("WEBP", "PNG", "JPEG")) as image:
            return image.convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"the thumbnail of {image_id} is damaged; build its dataset again") from (
            error
        )


def _encode_row(row: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [name for name in row if name not in EMBEDDING_SCHEMA.names]
    if unknown:
        raise ValueError(
            f"an embedding dataset has no column {unknown[0]!r}; "
            f"its columns are {', '.join(EMBEDDING_SCHEMA.names)}"
        )
    encoded = dict(row)
    for name in VECTOR_COLUMNS:
        if encoded.get(name) is not None:
            vector = np.asarray(encoded[name], dtype=np.float32)
            if vector.shape != (SENTENCE_DIM,):
                raise ValueError(
                    f"the {name} of {row.get('image_id')!r} has the shape {vector.shape}; "
                    f"it must have ({SENTENCE_DIM},)"
                )
            encoded[name] = vector
    thumbnail = encoded.get("thumbnail")
    if isinstance(thumbnail, Image.Image):
        buffer = io.BytesIO()
        thumbnail.convert("RGB").save(buffer, "WEBP", quality=_THUMBNAIL_QUALITY)
        thumbnail = buffer.getvalue()
    if thumbnail is not None:
        encoded["thumbnail"] = {"bytes": thumbnail, "path": None}
    return encoded


def read_shard(path: Path) -> tuple[pa.Table, Provenance]:
    """Read one Parquet file as a table of EMBEDDING_SCHEMA's columns; see read_embedding_dataset.

    Its rows are not checked: see check_rows.
    """
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet; download or build it again") from error
    columns = []
    for field in EMBEDDING_SCHEMA:
        if field.name in table.column_names:
            columns.append(_cast_column(table, field, path))
        elif field.name in OPTIONAL_COLUMNS:
            columns.append(pa.nulls(table.num_rows, field.type))
        else:
            raise ValueError(
                f"{path} has no column {field.name!r}; build it again with SceneIndex.build"
            )
    provenance = find_provenance(table.schema.metadata or {}, path)
    return pa.table(columns, schema=EMBEDDING_SCHEMA), provenance


def _cast_column(table: pa.Table, field: pa.Field, path: Path) -> pa.ChunkedArray:
    column = table.column(field.name)
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise ValueError(
            f"column {field.name!r} of {path} has the type {column.type}; it must be {field.type}"
        ) from error
