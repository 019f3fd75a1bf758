"""Parquet files that hold the images themselves, as `datasets` writes them for the Hub.

The texts of all rows are read first, without the images. Once an image is needed, those of its file
are unpacked into `$EARTHVLM_CACHE`, from where each is read alone: a Parquet file gives a hundred
megabytes at once. On the Hub, the file is fetched then.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from earthvlm.data.captioned_scenes import Tile
from earthvlm.data.sources.entries import Entries, split_of_name
from earthvlm.data.sources.files import SourceFiles
from earthvlm.scenes.scene import Scene
from earthvlm.storage.files import write_atomically

IMAGE_COLUMNS = ("image", "img", "tif")
OPEN_FILES = 64  # that each process reads from
UNPACKED_AT_ONCE = 32  # images
BYTES, PATH = "bytes", "path"


def find_shards(names: Sequence[str]) -> list[str]:
    """Return the Parquet files among these."""
    return [name for name in names if name.endswith(".parquet")]


def read_shards(files: SourceFiles, names: Sequence[str]) -> tuple[Entries, ShardImages]:
    """Read the texts of Parquet files.

    Raises ValueError, naming file and entry, for another form, and ConnectionError where the Hub
    does not answer.
    """
    entries, images = Entries(), ShardImages(files)
    for shard, name in enumerate(names):
        split = split_of_name(name) or "train"
        with files.open(name) as file:
            try:
                table = pq.ParquetFile(file)
                column = _image_column(table.schema_arrow)
                texts = [field for field in table.schema_arrow.names if field != column]
                rows = table.read(columns=texts).to_pylist()
            except (pa.ArrowException, ValueError) as error:
                raise ValueError(f"{name} of {files.name} cannot be used: {error}.") from None
        for number, row in enumerate(rows, start=1):
            tile = f"{PurePosixPath(name).with_suffix('')}-{number:06d}"
            entries.add(name, number, row, tile, split, shard)
            images.rows[tile] = name, number - 1
    return entries, images


def _image_column(schema: pa.Schema) -> str:
    for name in IMAGE_COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            holds_bytes = pa.types.is_struct(kind) and kind.get_field_index(BYTES) >= 0
            if holds_bytes or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return name
    raise ValueError(f"it has no column {' or '.join(IMAGE_COLUMNS)} with images")


class ShardImages:
    """The images of Parquet files, by tile.

    rows: the file and the row, counted from 0, of each tile.
    """

    def __init__(self, files: SourceFiles) -> None:
        self.files = files
        self.rows: dict[str, tuple[str, int]] = {}
        self._open = lru_cache(OPEN_FILES)(self._unpack)

    def open(self, tile: Tile) -> Scene:
        """Open a tile's image. Raises ValueError where it cannot be used."""
        name, row = self.rows[tile.name]
        value = self._open(name)[row].as_py()
        content = value if isinstance(value, bytes) else (value or {}).get(BYTES)
        path = PurePosixPath(value.get(PATH) or "") if isinstance(value, dict) else PurePosixPath()
        if not content:
            raise ValueError(f"'{tile.name}' has no image")
        # Not NamedTemporaryFile: Windows opens no file a second time that is still open.
        with tempfile.TemporaryDirectory(prefix="earthvlm-") as folder:
            file = Path(folder, f"image{path.suffix}")
            file.write_bytes(content)
            return Scene.open(file)

    def _unpack(self, name: str) -> pa.ChunkedArray:
        """Return the images of a file, mapped from the disk; the first process unpacks them."""
        unpacked = self.files.locate_unpacked(name)
        if not unpacked.is_file():
            unpacked.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{unpacked}.lock"):
                if not unpacked.is_file():
                    with write_atomically(unpacked, durable=False) as temporary:
                        _copy_images(self.files.fetch(name), temporary)
                    self.files.discard(name)
        return pa.ipc.open_file(pa.memory_map(str(unpacked))).read_all().column(0)


def _copy_images(parquet: Path, target: Path) -> None:
    """Write the images of a Parquet file as an Arrow file, which can be mapped."""
    with pq.ParquetFile(parquet, pre_buffer=False) as table:
        column = table.schema_arrow.field(_image_column(table.schema_arrow))
        batches = table.iter_batches(UNPACKED_AT_ONCE, columns=[column.name])
        with pa.ipc.new_file(str(target), pa.schema([column])) as written:
            for batch in batches:
                written.write_batch(batch)
