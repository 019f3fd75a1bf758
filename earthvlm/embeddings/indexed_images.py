"""Which images of a folder the parts of its index hold, and how these were indexed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Set
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from earthvlm.embeddings.dataset import write_table
from earthvlm.scenes.tiling import TILE_SIZE
from earthvlm.storage.files import checksum

IMAGES_KEY = b"earthvlm_images"


@dataclass(frozen=True)
class IndexSettings:
    """How images become rows of an index.

    Attributes:
        tile_size: the side of a tile, in pixels.
        source: the owner and licence of the images.
        captions: the bridge describes each tile, which takes seconds.
        keep_scenes: all bands of each tile are copied into the index, so that a search result can
            be opened.
        boa_offset: whether values carry the +1000 offset of newer products; None detects it.
        bands: the names of the bands in their order; None finds them in the files.
    """

    tile_size: int = TILE_SIZE
    source: str | None = None
    captions: bool = False
    keep_scenes: bool = True
    boa_offset: bool | None = None
    bands: tuple[str, ...] | None = None

    @classmethod
    def from_entry(cls, entry: dict[str, Any]) -> IndexSettings:
        """Read settings from the JSON of a part."""
        bands = entry["bands"]
        return cls(**entry | {"bands": None if bands is None else tuple(bands)})


@dataclass(frozen=True)
class IndexedImage:
    """An image as it was when it was embedded.

    Attributes:
        path: relative to the image folder, with forward slashes.
        size: in bytes.
        modified: the file's time of modification, in nanoseconds.
        changed: the time of the system's own record, which copying does not preserve.
        checksum: of the file.
        rows: the number of its tiles, which are consecutive rows of one part.
        cloudy: the number of tiles in the split "cloudy".
        empty: the number of tiles without data, which have no row.
        settings: how it was indexed.
        notes: what was assumed about it, in sentences.
    """

    path: str
    size: int
    modified: int
    changed: int
    checksum: str
    rows: int
    cloudy: int
    empty: int
    settings: IndexSettings
    notes: tuple[str, ...] = ()

    def is_current(self, path: Path) -> bool:
        """Whether the file, or a product's folder, still has the same content."""
        size, modified, changed = read_times(path)
        if size != self.size:
            return False
        # A copied or touched file has other times and the same content. A file that was replaced by
        # a tool that keeps times, such as unzip, can have the same size and time of modification.
        times = (modified, changed)
        return times == (self.modified, self.changed) or find_checksum(path) == self.checksum


def read_times(path: Path) -> tuple[int, int, int]:
    """Return size, latest modification and latest change of a file, or of all in a folder."""
    stats = [file.stat() for file in _list_files(path)]
    return (
        sum(stat.st_size for stat in stats),
        max((stat.st_mtime_ns for stat in stats), default=0),
        max((stat.st_ctime_ns for stat in stats), default=0),
    )


def find_checksum(path: Path) -> str:
    """Return the checksum of a file, or one of the names and checksums of all in a folder."""
    if path.is_file():
        return checksum(path)
    digest = xxhash.xxh3_64()
    for file in _list_files(path):
        digest.update(f"{file.relative_to(path).as_posix()} {checksum(file)}\n".encode())
    return digest.hexdigest()


def _list_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file())


def list_parts(output: Path) -> list[Path]:
    """List the Parquet files of an index, in order."""
    return sorted(output.glob("part-?????.parquet"))


def read_images(part: Path) -> list[IndexedImage]:
    """Read which images a part holds, in the order of their rows.

    Raises ValueError where another version of earthvlm recorded them.
    """
    metadata = pq.read_schema(part).metadata or {}
    try:
        images = json.loads(metadata.get(IMAGES_KEY, b"[]"))
        return [
            IndexedImage(
                **image
                | {
                    "settings": IndexSettings.from_entry(image["settings"]),
                    "notes": tuple(image["notes"]),
                }
            )
            for image in images
        ]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"{part} was written by another version of earthvlm; give another --output, or remove "
            "it to index its images again"
        ) from error


def find_tiles(output: Path, path: Path) -> list[str]:
    """Return the image_ids of the tiles that an index has of an image, told by its content.

    The list is empty where it has none, or another version of earthvlm recorded its images.
    """
    size, content = read_times(path)[0], ""
    for part in list_parts(output):
        try:
            images = read_images(part)
        except ValueError:
            continue
        first = 0
        for image in images:
            if image.size == size:
                content = content or find_checksum(path)
                if image.checksum == content:
                    names = pq.read_table(part, columns=["image_id"]).column(0)
                    return names.slice(first, image.rows).to_pylist()
            first += image.rows
    return []


def check_settings(output: Path, settings: IndexSettings) -> None:
    """Raise ValueError where an index has images that were indexed with other settings."""
    recorded = [image.settings for part in list_parts(output) for image in read_images(part)]
    for earlier in recorded:
        changed = [
            f"{field.name} {getattr(earlier, field.name)!r} (now {getattr(settings, field.name)!r})"
            for field in fields(IndexSettings)
            if getattr(earlier, field.name) != getattr(settings, field.name)
        ]
        if changed:
            raise ValueError(
                f"{output} was indexed with {', '.join(changed)}; give the same options again, or "
                "another --output, or remove it to index all images again"
            )


def record_images(images: Iterable[IndexedImage]) -> str:
    """Return the images of a part as JSON, for its metadata."""
    return json.dumps([asdict(image) for image in images])


def remove_images(output: Path, names: Set[str]) -> None:
    """Remove the rows of images from an index, part by part, and then their tiles."""
    for part in list_parts(output):
        images = read_images(part)
        if not any(image.path in names for image in images):
            continue
        table = pq.read_table(part)
        kept: list[pa.Table] = []
        removed: list[pa.Table] = []
        first = 0
        for image in images:
            rows = table.slice(first, image.rows)
            (removed if image.path in names else kept).append(rows)
            first += image.rows
        if any(rows.num_rows for rows in kept):
            recorded = record_images(image for image in images if image.path not in names)
            metadata = {**table.schema.metadata, IMAGES_KEY: recorded}
            write_table(pa.concat_tables(kept).replace_schema_metadata(metadata), part)
        else:
            part.unlink()
        for scene_file in pa.concat_tables(removed).column("scene_file").to_pylist():
            if scene_file:
                (output / scene_file).unlink(missing_ok=True)
