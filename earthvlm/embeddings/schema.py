"""The format of an embedding dataset: columns, provenance, and checks of its rows.

Each row is a scene: its caption, coordinates, footprint, thumbnail and source, the embeddings of
scene and caption in one space of 384 dimensions, and the name of the GeoTIFF with all its bands, if
the dataset holds that. The schema's metadata names the models that made it. A file is GeoParquet.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pyarrow as pa

from earthvlm.embeddings.geoparquet import BBOX, BBOX_TYPE, GEOMETRY, decode_geometries
from earthvlm.models.text_encoder import SENTENCE_DIM, SENTENCE_MODEL_ID, SENTENCE_MODEL_REVISION

FORMAT_VERSION = 1
UNIT_LENGTH_TOLERANCE = 1e-3

_VECTOR = pa.list_(pa.float32(), SENTENCE_DIM)
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
VECTOR_COLUMNS = ("scene_embedding", "caption_embedding")
OPTIONAL_COLUMNS = (
    *("source", "scene_file", "date"),
    *("geometry", "bbox", "datetime", "product_id", "mgrs_tile", "grid_cell", "cloud"),
)

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
        pa.field("source", pa.string()),  # owner and licence
        pa.field("scene_file", pa.string()),  # inside the folder, with forward slashes
        pa.field("date", pa.date32()),  # of the acquisition
        pa.field(GEOMETRY, pa.binary()),  # the footprint: WKB, degrees, split at the antimeridian
        pa.field(BBOX, BBOX_TYPE),  # of the geometry
        pa.field("datetime", pa.timestamp("us", "UTC")),  # midnight where only the day is known
        pa.field("product_id", pa.string()),  # the Sentinel-2 product it was cut from
        pa.field("mgrs_tile", pa.string()),
        pa.field("grid_cell", pa.string()),  # of the Major TOM grid, by the scene's centre
        pa.field("cloud", pa.float64()),  # share of the pixels, 0 to 1
    ],
    metadata={
        "huggingface": json.dumps({"info": {"features": {"thumbnail": {"_type": "Image"}}}}),
    },
)
PROVENANCE_KEY = b"earthvlm"


@dataclass(frozen=True)
class Provenance:
    """The models that made a dataset's captions and embeddings, with their revisions."""

    bridge_id: str
    bridge_revision: str
    sentence_model: str = SENTENCE_MODEL_ID
    sentence_revision: str = SENTENCE_MODEL_REVISION


def get_vectors(table: pa.Table, column: str) -> np.ndarray:
    """Return an embedding column as float32 `[N, 384]`; rows without one are NaN."""
    array = table.column(column).combine_chunks()
    values = array.flatten().to_numpy(zero_copy_only=False).reshape(-1, SENTENCE_DIM)
    if not array.null_count:
        return values
    vectors = np.full((len(array), SENTENCE_DIM), np.nan, dtype=np.float32)
    vectors[array.is_valid().to_numpy(zero_copy_only=False)] = values
    return vectors


def find_provenance(metadata: Mapping[bytes, bytes], path: Path) -> Provenance:
    """Read which models made a file from its schema metadata.

    path: of the file, for errors. Raises ValueError where the entry is missing or has another
    format.
    """
    try:
        written = json.loads(metadata[PROVENANCE_KEY])
        version = written["format_version"]
        values = {field.name: str(written[field.name]) for field in fields(Provenance)}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} does not record which bridge and sentence model made it; "
            "build it again with `earthvlm index`"
        ) from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version}, and this earthvlm reads {FORMAT_VERSION}; "
            "update earthvlm, or build the dataset again"
        )
    return Provenance(**values)


def check_rows(table: pa.Table, where: str, seen: set[str] | None = None) -> None:
    """Raise ValueError for rows that violate the format.

    seen: the image_ids of the dataset's other files; those of this table are added.
    """
    for name in ("image_id", "split"):
        if any(not value for value in table.column(name).to_pylist()):
            raise ValueError(f"{where} has a row without {name}; every row needs one")
    image_ids = table.column("image_id").to_pylist()
    image_id, count = Counter(image_ids).most_common(1)[0] if image_ids else ("", 0)
    if count > 1:
        raise ValueError(f"{where} has the image_id {image_id!r} {count} times; once is allowed")
    if seen is not None:
        repeated = seen.intersection(image_ids)
        if repeated:
            raise ValueError(
                f"{where} has the image_id {min(repeated)!r}, as another file of its dataset has; "
                "once is allowed"
            )
        seen.update(image_ids)
    for name in VECTOR_COLUMNS:
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
    try:
        decode_geometries(table.column(GEOMETRY))
    except ValueError as error:
        raise ValueError(f"{where}: {error}; build it again") from error
    for image_id, scene_file in zip(image_ids, table.column("scene_file").to_pylist(), strict=True):
        if scene_file is not None and not _is_inside(scene_file):
            raise ValueError(
                f"{where} has the scene file {scene_file!r} at {image_id!r}; "
                "it must be a path inside the dataset's folder"
            )


def _is_inside(relative: str) -> bool:
    # By its text, not by resolving it: in the Hub's cache a file is a link to a blob elsewhere.
    posix, windows = PurePosixPath(relative), PureWindowsPath(relative)
    named = bool(relative) and "\\" not in relative and "\0" not in relative
    return named and not windows.drive and not posix.is_absolute() and ".." not in posix.parts
