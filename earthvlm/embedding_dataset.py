"""The embedding dataset: a folder (or a Hub dataset repository) of Parquet files.

Each row is a scene: its caption, place, thumbnail and source, its embedding and its caption's in
one space of 384 dimensions, and the name of the GeoTIFF with all its bands where that may be
passed on. The schema metadata names the models that made it. Knows nothing of searching.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from PIL import Image

from earthvlm.sentences import SENTENCE_DIM, SENTENCE_MODEL_ID, SENTENCE_MODEL_REVISION

FORMAT_VERSION = 1
UNIT_LENGTH_TOLERANCE = 1e-3
_THUMBNAIL_QUALITY = 85  # WebP; at this quality the eye sees no difference at thumbnail size

_VECTOR = pa.list_(pa.float32(), SENTENCE_DIM)
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_VECTOR_COLUMNS = ("scene_embedding", "caption_embedding")
_OPTIONAL_COLUMNS = ("source", "scene_file", "date")

# The Hub's viewer and `datasets` read the key "huggingface": it makes images of the thumbnails.
EMBEDDING_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("split", pa.string()),
        pa.field("longitude", pa.float64()),  # of the scene's centre, degrees
        pa.field("latitude", pa.float64()),
        pa.field("thumbnail", _IMAGE),
        pa.field("scene_embedding", _VECTOR),  # unit length
        pa.field("caption_embedding", _VECTOR),  # unit length
        pa.field("source", pa.string()),  # whose scene it is, and under which licence
        pa.field("scene_file", pa.string()),  # inside the folder, with forward slashes
        pa.field("date", pa.date32()),  # of the acquisition
    ],
    metadata={
        "huggingface": json.dumps({"info": {"features": {"thumbnail": {"_type": "Image"}}}}),
    },
)
_PROVENANCE_KEY = b"earthvlm"


@dataclass(frozen=True)
class Provenance:
    """The models that made a dataset's captions and embeddings, with their revisions."""

    bridge_id: str
    bridge_revision: str
    sentence_model: str = SENTENCE_MODEL_ID
    sentence_revision: str = SENTENCE_MODEL_REVISION


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
        {**table.schema.metadata, **(metadata or {}), _PROVENANCE_KEY: written}
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
    provenance = find_makers(paths)
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


def find_makers(paths: Sequence[Path]) -> Provenance:
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
    """How many rows some files have, by their footers, which `find_makers` has read."""
    return sum(pq.read_metadata(path).num_rows for path in paths)


def read_provenance(path: str | Path) -> Provenance:
    """Which models made a Parquet file. Raises ValueError where it is damaged or does not tell."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet; download or build it again") from error
    return _find_provenance(metadata, Path(path))


def get_vectors(table: pa.Table, column: str) -> np.ndarray:
    """Return an embedding column as float32 `[N, 384]`; rows without one are NaN."""
    array = table.column(column).combine_chunks()
    values = array.flatten().to_numpy(zero_copy_only=False).reshape(-1, SENTENCE_DIM)
    if not array.null_count:
        return values
    vectors = np.full((len(array), SENTENCE_DIM), np.nan, dtype=np.float32)
    vectors[array.is_valid().to_numpy(zero_copy_only=False)] = values
    return vectors


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
    for name in _VECTOR_COLUMNS:
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
        elif field.name in _OPTIONAL_COLUMNS:
            columns.append(pa.nulls(table.num_rows, field.type))
        else:
            raise ValueError(
                f"{path} has no column {field.name!r}; build it again with SceneIndex.build"
            )
    provenance = _find_provenance(table.schema.metadata or {}, path)
    return pa.table(columns, schema=EMBEDDING_SCHEMA), provenance


def _cast_column(table: pa.Table, field: pa.Field, path: Path) -> pa.ChunkedArray:
    column = table.column(field.name)
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise ValueError(
            f"column {field.name!r} of {path} has the type {column.type}; it must be {field.type}"
        ) from error


def _find_provenance(metadata: Mapping[bytes, bytes], path: Path) -> Provenance:
    try:
        written = json.loads(metadata[_PROVENANCE_KEY])
        version = written["format_version"]
        values = {field.name: str(written[field.name]) for field in fields(Provenance)}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} does not name the bridge and the sentence model that made it; "
            "build it again with SceneIndex.build"
        ) from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version}, and this earthvlm reads {FORMAT_VERSION}; "
            "update earthvlm, or build the dataset again"
        )
    return Provenance(**values)


def check_rows(table: pa.Table, where: str, seen: set[str] | None = None) -> None:
    """Raise ValueError for rows that break the format.

    seen: the image_ids of other files of the dataset, to which these are added.
    """
    for name in ("image_id", "split"):
        if any(not value for value in table.column(name).to_pylist()):
            raise ValueError(f"{where} has a row without {name}; every row needs one")
    image_ids = table.column("image_id").to_pylist()
    image_id, count = Counter(image_ids).most_common(1)[0] if image_ids else ("", 0)
    if count > 1:
        raise ValueError(f"{where} has the image_id {image_id!r} {count} times; once is allowed")
    if seen is not None:
        again = seen.intersection(image_ids)
        if again:
            raise ValueError(
                f"{where} has the image_id {min(again)!r}, as another file of its dataset has; "
                "once is allowed"
            )
        seen.update(image_ids)
    for name in _VECTOR_COLUMNS:
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.linalg.norm(get_vectors(table, name), axis=1)
        absent = table.column(name).is_null().to_numpy()
        wrong = ~absent & ~(np.abs(lengths - 1) <= UNIT_LENGTH_TOLERANCE)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f"{where} has a {name} of length {lengths[row]:g} at {image_ids[row]!r}; "
                "embeddings have length 1"
            )
    for image_id, scene_file in zip(image_ids, table.column("scene_file").to_pylist(), strict=True):
        if scene_file is not None and not _is_inside(scene_file):
            raise ValueError(
                f"{where} has the scene file {scene_file!r} at {image_id!r}; "
                "it must be a path inside the dataset's folder"
            )


def _is_inside(relative: str) -> bool:
    # By its words, not by resolving: in the Hub's cache a file is a link to a blob elsewhere.
    posix, windows = PurePosixPath(relative), PureWindowsPath(relative)
    named = bool(relative) and "\\" not in relative and "\0" not in relative
    return named and not windows.drive and not posix.is_absolute() and ".." not in posix.parts
