"""Somebody's own archive: a folder of Sentinel-2 images, cut into tiles and indexed.

The index follows the folder: each file of the dataset tells which images it holds, so that only new
or changed ones are embedded again, and what was broken off anywhere goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from earthvlm.embeddings.dataset import (
    locked,
    next_part,
    read_provenance,
    write_embedding_dataset,
    write_table,
)
from earthvlm.embeddings.mmap_store import checksum
from earthvlm.embeddings.rows import make_rows
from earthvlm.scenes.tiling import CLEAR, TILE_SIZE, TiledRaster

if TYPE_CHECKING:
    from earthvlm.bridge.model import OlmoEarthVLMBridge
    from earthvlm.scenes.scene import Scene

SUFFIXES = (".tif", ".tiff", ".jp2")
# Rows of a file of the dataset, at least, but for the last: what is lost when it is broken off.
PART_ROWS = 512
_IMAGES_KEY = b"earthvlm_images"


@dataclass(frozen=True)
class IndexedImage:
    """An image of the archive as it was when it was embedded, and what its tiles were.

    path: from the archive's folder, with forward slashes. modified, changed: times in nanoseconds;
    the second is the system's own, which no copying sets back. rows: those of its tiles, which
    stand together in a file of the dataset. empty tiles have none.
    """

    path: str
    size: int
    modified: int
    changed: int
    checksum: str
    rows: int
    cloudy: int
    empty: int


@dataclass(frozen=True)
class IndexReport:
    """What an indexing did: images embedded, kept as they were, taken out and refused; tiles."""

    embedded: int
    kept: int
    removed: int
    refused: int
    tiles: int
    cloudy: int
    empty: int


def index_folder(
    folder: str | Path,
    output: str | Path,
    bridge: OlmoEarthVLMBridge,
    bridge_id: str,
    *,
    tile_size: int = TILE_SIZE,
    source: str | None = None,
    captions: bool = False,
    keep_scenes: bool = True,
    boa_offset: bool | None = None,
    batch_size: int = 16,
    tell: Callable[[str], None] = lambda message: None,
) -> IndexReport:
    """Bring an embedding dataset up to date with a folder of images, and report what was done.

    Images are found in sub-folders, too. Those larger than `tile_size` pixels are cut into tiles,
    named IMAGE_rROW_cCOLUMN, each with its own place. Cloudy tiles come into the split "cloudy",
    others into "clear"; tiles without data are left out and counted.
    captions: whether the bridge describes each, which takes seconds. keep_scenes: whether all bands
    of each tile are copied into `output`, to be opened from a result. tell: takes what there is to
    say on the way, such as why an image was refused.

    Raises FileNotFoundError where the folder is not there or holds no image, ValueError where
    another process writes to `output` or another bridge made it.
    """
    folder, output = Path(folder), Path(output)
    paths = find_images(folder, output)
    output.mkdir(parents=True, exist_ok=True)
    with locked(output):
        _check_bridge(output, bridge)
        known = {image.path: image for part in _parts(output) for image in read_images(part)}
        kept = {name for name in paths.keys() & known.keys() if _is_same(paths[name], known[name])}
        _remove(output, known.keys() - kept)
        removed = known.keys() - paths.keys()
        for name in sorted(removed):
            tell(f"{name} is no longer there and was taken out of the index.")
        embedded: list[IndexedImage] = []
        refused = 0
        pending = _Pending(output, bridge_id, bridge.revision)
        waiting = sorted(paths.keys() - kept)
        owners = {_name_tiles(name): name for name in sorted(kept)}
        for number, name in enumerate(waiting, start=1):
            try:
                owner = owners.setdefault(_name_tiles(name), name)
                if owner != name:
                    raise ValueError(
                        f"its tiles would have the names of those of {owner}; rename it"
                    )
                image = TiledRaster(paths[name], _name_tiles(name), tile_size, boa_offset)
                about = paths[name].stat()
                content = checksum(paths[name])
                rows = _embed_tiles(
                    output,
                    image,
                    bridge,
                    batch_size,
                    source=source,
                    captions=captions,
                    keep_scenes=keep_scenes,
                )
            except ValueError as error:
                refused += 1
                tell(f"{name} was left out: {error}")
                continue
            found = IndexedImage(
                path=name,
                size=about.st_size,
                modified=about.st_mtime_ns,
                changed=about.st_ctime_ns,
                checksum=content,
                rows=len(rows),
                cloudy=sum(row["split"] != CLEAR for row in rows),
                empty=image.empty,
            )
            pending.add(found, rows)
            embedded.append(found)
            tell(f"{name}: {found.rows} tiles ({number} of {len(waiting)} images).")
        pending.write()
    return IndexReport(
        len(embedded),
        len(kept),
        len(removed),
        refused,
        *(sum(getattr(image, part) for image in embedded) for part in ("rows", "cloudy", "empty")),
    )


def find_images(folder: Path, output: Path) -> dict[str, Path]:
    """The images of a folder by their paths in it, without those in `output`."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} to index; check its path")
    inside = output.resolve()
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not path.name.startswith(".")
        and inside not in path.resolve().parents
    }
    if not paths:
        raise FileNotFoundError(
            f"{folder} holds no images to index; give a folder with {', '.join(SUFFIXES)} files"
        )
    return paths


def read_images(part: Path) -> list[IndexedImage]:
    """The images that a file of the dataset tells it holds, in the order of their rows."""
    metadata = pq.read_schema(part).metadata or {}
    return [IndexedImage(**image) for image in json.loads(metadata.get(_IMAGES_KEY, b"[]"))]


def _parts(output: Path) -> list[Path]:
    return sorted(output.glob("part-?????.parquet"))


def _check_bridge(output: Path, bridge: OlmoEarthVLMBridge) -> None:
    for path in sorted(output.glob("*.parquet")):
        provenance = read_provenance(path)
        if provenance.bridge_revision != bridge.revision:
            raise ValueError(
                f"{path} was made by bridge {provenance.bridge_id} at revision "
                f"{provenance.bridge_revision}, and this one has revision {bridge.revision}; "
                "give another --output, or remove it to index all images again"
            )


def _is_same(path: Path, image: IndexedImage) -> bool:
    about = path.stat()
    if about.st_size != image.size:
        return False
    # A copied or touched file has other times and the same content; one that was replaced by a
    # tool that keeps times, as unzip does, can have the same size and time of modification.
    times = (about.st_mtime_ns, about.st_ctime_ns)
    return times == (image.modified, image.changed) or checksum(path) == image.checksum


def _remove(output: Path, names: set[str]) -> None:
    """Take the rows of some images out of the dataset, file by file, and their tiles after that."""
    for part in _parts(output):
        images = read_images(part)
        if not any(image.path in names for image in images):
            continue
        table = pq.read_table(part)
        kept, gone, first = [], [], 0
        for image in images:
            rows = table.slice(first, image.rows)
            (gone if image.path in names else kept).append(rows)
            first += image.rows
        if sum(map(len, kept)):
            metadata = {**table.schema.metadata, _IMAGES_KEY: _describe(images, without=names)}
            write_table(pa.concat_tables(kept).replace_schema_metadata(metadata), part)
        else:
            part.unlink()
        for scene_file in pa.concat_tables(gone).column("scene_file").to_pylist():
            if scene_file:
                (output / scene_file).unlink(missing_ok=True)


def _describe(images: list[IndexedImage], without: set[str] = frozenset()) -> str:
    return json.dumps([asdict(image) for image in images if image.path not in without])


def _name_tiles(path: str) -> str:
    """A name for the tiles of an image; a.tif and a.jp2 have one, so the second is refused."""
    return "__".join(Path(path).with_suffix("").parts)


def _embed_tiles(
    output: Path,
    image: TiledRaster,
    bridge: OlmoEarthVLMBridge,
    batch_size: int,
    *,
    source: str | None,
    captions: bool,
    keep_scenes: bool,
) -> list[dict]:
    rows: list[dict] = []
    for scenes, splits in _batches(image, batch_size):
        rows += make_rows(
            output,
            scenes,
            bridge,
            splits=splits,
            sources=[source] * len(scenes),
            captions=captions,
            keep_scenes=keep_scenes,
            batch_size=batch_size,
        )
    return rows


def _batches(
    image: TiledRaster, batch_size: int
) -> Iterator[tuple[tuple[Scene, ...], tuple[str, ...]]]:
    tiles = image.tiles()
    while batch := list(islice(tiles, batch_size)):
        scenes, splits = zip(*batch, strict=True)
        yield scenes, splits


class _Pending:
    """Rows that are embedded and not yet written."""

    def __init__(self, output: Path, bridge_id: str, revision: str) -> None:
        self._output, self._made_by = output, (bridge_id, revision)
        self._rows: list[dict] = []
        self._images: list[IndexedImage] = []

    def add(self, image: IndexedImage, rows: list[dict]) -> None:
        self._rows += rows
        self._images.append(image)
        if len(self._rows) >= PART_ROWS:
            self.write()

    def write(self) -> None:
        if self._rows:
            write_embedding_dataset(
                self._output,
                self._rows,
                *self._made_by,
                name=next_part(self._output),
                metadata={_IMAGES_KEY.decode(): _describe(self._images)},
            )
        self._rows, self._images = [], []
