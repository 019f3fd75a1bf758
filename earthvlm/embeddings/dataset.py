"""Write and read an embedding dataset: a folder or Hub repository of Parquet files.

The module `schema` defines their columns.
"""

from __future__ import annotations

import io
import json
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

from earthvlm.embeddings.geoparquet import BBOX, GEOMETRY, bound_geometries, write_geoparquet
from earthvlm.embeddings.major_tom import find_grid_cell
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
from earthvlm.storage.files import write_atomically

_THUMBNAIL_QUALITY = 85  # WebP; no difference is visible at the size of a thumbnail


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
    """Write a Parquet file into a folder atomically, and return its path.

    Args:
        folder: of the dataset; it is created if need be.
        rows: the columns of EMBEDDING_SCHEMA by name; `image_id` and `split` are required, the
            others may be None or missing. A thumbnail is a PIL image or an encoded one's bytes.
            `bbox` and `grid_cell` are computed.
        bridge_id: the name of the bridge that made the embeddings.
        bridge_revision: the bridge's revision.
        sentence_model: the model that made the caption embeddings.
        sentence_revision: the sentence model's revision.
        name: of the file.
        metadata: further entries of the file's schema metadata.

    Raises:
        ValueError: a column is not in the schema, an image_id is missing or repeated, an embedding
            is not `[384]` of unit length, a geometry is not WKB in degrees, or a scene file is
            outside the folder.
    """
    table = pa.Table.from_pylist([_encode_row(row) for row in rows], schema=EMBEDDING_SCHEMA)
    if not table.num_rows:
        raise ValueError("an embedding dataset needs at least one row; none was given")
    check_rows(table, "the embedding dataset to write")
    boxes = bound_geometries(table.column(GEOMETRY))
    table = table.set_column(table.schema.get_field_index(BBOX), BBOX, boxes)
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
    """Write a table as a file of an embedding dataset, which is GeoParquet, atomically."""
    with write_atomically(path) as temporary:
        write_geoparquet(table, temporary, write_page_checksum=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a dataset for writing; others may still read it.

    Raises ValueError where another process holds the lock.
    """
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(
            f"another process is writing to {folder}; wait until it has finished, and try again"
        ) from None


def next_part(folder: Path) -> str:
    """Return the name of a dataset's next part."""
    numbers = [int(path.stem.removeprefix("part-")) for path in folder.glob("part-?????.parquet")]
    return f"part-{max(numbers, default=0) + 1:05d}.parquet"


def read_embedding_dataset(folder: str | Path) -> tuple[pa.Table, Provenance]:
    """Read the Parquet files of a folder: a table of EMBEDDING_SCHEMA's columns, its provenance.

    Raises:
        FileNotFoundError: the folder holds no Parquet file.
        ValueError: a file is damaged or lacks a column, an embedding is not `[384]` of unit length,
            an image_id is repeated, a scene file is outside the folder, or different models made
            the files.
    """
    paths = dataset_files(folder)
    provenance = find_shared_provenance(paths)
    table = pa.concat_tables(read_shard(path)[0] for path in paths).combine_chunks()
    check_rows(table, str(folder))
    return table, provenance


def dataset_files(folder: str | Path) -> list[Path]:
    """List the Parquet files of a dataset. Raises FileNotFoundError where there are none."""
    folder = Path(folder)
    paths = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    if not paths:
        raise FileNotFoundError(
            f"there is no embedding dataset in {folder}; give a folder that holds *.parquet files"
        )
    return paths


def find_shared_provenance(paths: Sequence[Path]) -> Provenance:
    """Return the provenance of all files. Raises ValueError where it differs."""
    first = read_provenance(paths[0])
    for path in paths[1:]:
        provenance = read_provenance(path)
        if provenance != first:
            raise ValueError(
                f"{path} was made by {provenance.bridge_id} ({provenance.bridge_revision}), but "
                f"{paths[0].name} by {first.bridge_id} ({first.bridge_revision}); "
                "keep the files of one bridge and one sentence model"
            )
    return first


def count_rows(paths: Sequence[Path]) -> int:
    """Count the rows of files, by their footers alone."""
    return sum(pq.read_metadata(path).num_rows for path in paths)


def count_values(paths: Sequence[Path], columns: Sequence[str]) -> tuple[int, dict[str, int]]:
    """Count the rows of files, and those that lack a value in each of some columns."""
    tables = [pq.read_table(path, columns=list(columns)) for path in paths]
    lacking = {name: sum(table.column(name).null_count for table in tables) for name in columns}
    return sum(table.num_rows for table in tables), lacking


def read_image_ids(folder: str | Path) -> set[str]:
    """Read the image_ids of a dataset from its files."""
    paths = dataset_files(folder)
    return {
        image_id
        for path in paths
        for image_id in pq.read_table(path, columns=["image_id"]).column(0).to_pylist()
    }


def read_provenance(path: str | Path) -> Provenance:
    """Read which models made a Parquet file. Raises ValueError where it is damaged or has none."""
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
    encoded["grid_cell"] = find_grid_cell(row.get("longitude"), row.get("latitude"))
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
        thumbnail = encode_thumbnail(thumbnail)
    if thumbnail is not None:
        encoded["thumbnail"] = {"bytes": thumbnail, "path": None}
    return encoded


def encode_thumbnail(picture: Image.Image) -> bytes:
    """Return a thumbnail as a row holds it, WebP, which takes far less memory."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", quality=_THUMBNAIL_QUALITY)
    return buffer.getvalue()


def read_shard(path: Path) -> tuple[pa.Table, Provenance]:
    """Read one Parquet file as a table of EMBEDDING_SCHEMA's columns, and its provenance.

    Does not check the rows; see `check_rows`.
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
                f"{path} has no column {field.name!r}; build it again with `earthvlm index`"
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
