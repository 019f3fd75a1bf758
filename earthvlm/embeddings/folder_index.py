"""Index a folder of Sentinel-2 images: cut them into tiles, embed these, and follow changes.

The dataset's files record which images they hold and how these were indexed, so that a later run
embeds only new and changed images, and an interrupted run resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthvlm.embeddings.dataset import (
    count_values,
    encode_thumbnail,
    locked,
    next_part,
    read_provenance,
    write_embedding_dataset,
)
from earthvlm.embeddings.indexed_images import (
    IMAGES_KEY,
    IndexedImage,
    IndexSettings,
    check_settings,
    find_checksum,
    list_parts,
    read_images,
    read_times,
    record_images,
    remove_images,
)
from earthvlm.embeddings.note_counter import NoteCounter
from earthvlm.embeddings.rows import CLEAR, make_rows
from earthvlm.embeddings.stac import write_collection
from earthvlm.scenes.memory import trim_memory
from earthvlm.scenes.places.formatting import describe_count
from earthvlm.scenes.products.listing import KINDS, is_scene_folder, list_scenes
from earthvlm.scenes.tiling import TiledRaster

if TYPE_CHECKING:
    from earthvlm.bridge.model import OlmoEarthVLMBridge
    from earthvlm.scenes.scene import Scene

# The least number of rows of a part but the last: an interrupted run loses fewer than these.
PART_ROWS = 512


@dataclass(frozen=True)
class IndexReport:
    """The counts of an indexing run.

    Attributes:
        embedded: images that were embedded in this run.
        kept: images that had not changed.
        removed: images whose files are gone, so that their rows were removed.
        refused: images that could not be read.
        tiles: of the embedded images, cloudy ones included.
        cloudy: tiles in the split "cloudy".
        empty: tiles without data, which have no row.
        total: tiles of the index, those of earlier runs included.
        undated: of `total`, without a date.
        unplaced: of `total`, without a place.
    """

    embedded: int
    kept: int
    removed: int
    refused: int
    tiles: int
    cloudy: int
    empty: int
    total: int
    undated: int
    unplaced: int


def index_folder(
    folder: str | Path,
    output: str | Path,
    bridge: OlmoEarthVLMBridge,
    bridge_id: str,
    settings: IndexSettings | None = None,
    *,
    batch_size: int = 8,
    report: Callable[[str], None] = lambda message: None,
) -> IndexReport:
    """Update an embedding dataset from a folder of images, sub-folders included.

    Images larger than `settings.tile_size` are cut into tiles, named IMAGE_rROW_cCOLUMN, each with
    its own coordinates. Cloudy tiles go into the split "cloudy", others into "clear".

    Args:
        folder: holds the images.
        output: the dataset's folder, new or to be updated.
        bridge: embeds the tiles, and describes them where `settings.captions` asks for it.
        bridge_id: the bridge's name in the dataset.
        settings: how images become rows (default: `IndexSettings()`).
        batch_size: tiles embedded at once.
        report: receives one sentence for each image that was embedded, removed or refused.

    Raises:
        FileNotFoundError: the folder does not exist or holds no image.
        ValueError: another process writes to `output`, or it was made by another bridge, with
            other settings or from other images.
    """
    folder, output = Path(folder), Path(output)
    settings = settings or IndexSettings()
    paths = find_images(folder, output)
    output.mkdir(parents=True, exist_ok=True)
    with locked(output):
        _check_bridge(output, bridge)
        check_settings(output, settings)
        kept, removed = _remove_outdated(output, paths, report)
        embedder = _ImageEmbedder(output, bridge, bridge_id, settings, batch_size)
        embedded = _embed_images(embedder, paths, kept, report)
        if list_parts(output):
            write_collection(output, chip_pixels=settings.tile_size)
    total, lacking = count_values(list_parts(output), ("date", "longitude"))
    return IndexReport(
        embedded=len(embedded),
        kept=len(kept),
        removed=len(removed),
        refused=len(paths) - len(kept) - len(embedded),
        tiles=sum(image.rows for image in embedded),
        cloudy=sum(image.cloudy for image in embedded),
        empty=sum(image.empty for image in embedded),
        total=total,
        undated=lacking["date"],
        unplaced=lacking["longitude"],
    )


def find_images(folder: Path, output: Path) -> dict[str, Path]:
    """Find the scenes of a folder, by their paths in it, except those in `output`."""
    if not folder.is_dir():
        if folder.exists():
            raise ValueError(f"{folder} is a file; give the folder that holds it")
        raise FileNotFoundError(f"there is no folder {folder} to index; check its path")
    if is_scene_folder(folder):
        return {folder.absolute().name: folder}
    paths = list_scenes(folder, below=True, skip=output)
    if not paths:
        raise FileNotFoundError(f"{folder} holds no scenes to index; give a folder with {KINDS}")
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _check_bridge(output: Path, bridge: OlmoEarthVLMBridge) -> None:
    for path in sorted(output.glob("*.parquet")):
        provenance = read_provenance(path)
        if provenance.bridge_revision != bridge.revision:
            raise ValueError(
                f"{path} was made by bridge {provenance.bridge_id} at revision "
                f"{provenance.bridge_revision}, and this one has revision {bridge.revision}; "
                "give another --output, or remove it to index all images again"
            )


def _remove_outdated(
    output: Path, paths: dict[str, Path], report: Callable[[str], None]
) -> tuple[set[str], set[str]]:
    """Remove images that changed or whose files are gone; return the current and the gone ones."""
    known = {image.path: image for part in list_parts(output) for image in read_images(part)}
    existing = paths.keys() & known.keys()
    if known and not existing:
        raise ValueError(
            f"{output} is the index of other images, such as {min(known)}; give another --output, "
            "or remove it"
        )
    kept = {name for name in existing if known[name].is_current(paths[name])}
    remove_images(output, known.keys() - kept)
    gone = known.keys() - paths.keys()
    for name in sorted(gone):
        report(f"{name} no longer exists and was removed from the index.")
    return kept, gone


def _embed_images(
    embedder: _ImageEmbedder,
    paths: dict[str, Path],
    kept: set[str],
    report: Callable[[str], None],
) -> list[IndexedImage]:
    """Embed the images that are not in the index; report those that cannot be read."""
    embedded: list[IndexedImage] = []
    waiting = sorted(paths.keys() - kept)
    owners = {_name_tiles(name): name for name in sorted(kept)}
    for number, name in enumerate(waiting, start=1):
        try:
            _check_tile_names(owners, name)
            image = embedder.embed(paths[name], name)
        except (ValueError, OSError) as error:
            report(f"{name} was left out: {error}")
            continue
        embedded.append(image)
        of_images = f"{number} of {describe_count(len(waiting), 'image')}"
        report(f"{name}: {describe_count(image.rows, 'tile')} ({of_images}).")
        for note in image.notes:
            report(f"{name}: {note}")
    embedder.write()
    return embedded


def _name_tiles(path: str) -> str:
    """Name the tiles of an image; a.tif and a.jp2 share a name, so the second is refused."""
    stem = path.removesuffix(".zip")
    return "__".join(Path(stem).with_suffix("").parts)


def _check_tile_names(owners: dict[str, str], name: str) -> None:
    owner = owners.setdefault(_name_tiles(name), name)
    if owner != name:
        raise ValueError(f"its tiles would have the same names as those of {owner}; rename it")


class _ImageEmbedder:
    """Embeds images, and writes their rows in parts of at least PART_ROWS."""

    def __init__(
        self,
        output: Path,
        bridge: OlmoEarthVLMBridge,
        bridge_id: str,
        settings: IndexSettings,
        batch_size: int,
    ) -> None:
        self._output, self._bridge, self._bridge_id = output, bridge, bridge_id
        self._settings, self._batch_size = settings, batch_size
        self._rows: list[dict[str, Any]] = []
        self._images: list[IndexedImage] = []

    def embed(self, path: Path, name: str) -> IndexedImage:
        """Embed an image's tiles. Raises ValueError for an unreadable image."""
        settings = self._settings
        raster = TiledRaster(
            path, _name_tiles(name), settings.tile_size, settings.boa_offset, settings.bands
        )
        size, modified, changed = read_times(path)
        content = find_checksum(path)
        notes = NoteCounter()
        rows = self._make_rows(raster, notes)
        image = IndexedImage(
            path=name,
            size=size,
            modified=modified,
            changed=changed,
            checksum=content,
            rows=len(rows),
            cloudy=sum(row["split"] != CLEAR for row in rows),
            empty=raster.empty,
            settings=self._settings,
            notes=notes.summarize(),
        )
        self._rows += rows
        self._images.append(image)
        if len(self._rows) >= PART_ROWS:
            self.write()
        return image

    def write(self) -> None:
        """Write the rows that are not yet on disk."""
        if self._rows:
            write_embedding_dataset(
                self._output,
                self._rows,
                self._bridge_id,
                self._bridge.revision,
                name=next_part(self._output),
                metadata={IMAGES_KEY.decode(): record_images(self._images)},
            )
        self._rows, self._images = [], []

    def _make_rows(self, raster: TiledRaster, notes: NoteCounter) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for scenes in _batches(raster, self._batch_size):
            for scene in scenes:
                notes.add(scene.notes)
            rows += make_rows(
                self._output,
                scenes,
                self._bridge,
                split_clouds=True,
                sources=[self._settings.source] * len(scenes),
                captions=self._settings.captions,
                keep_scenes=self._settings.keep_scenes,
                batch_size=self._batch_size,
            )
            # A whole product has 1,849 tiles, whose thumbnails would take 200 MB as pictures.
            for row in rows[-len(scenes) :]:
                row["thumbnail"] = encode_thumbnail(row["thumbnail"])
            scenes.clear()  # before the next ones are read
            trim_memory()
        return rows


def _batches(raster: TiledRaster, batch_size: int) -> Iterator[list[Scene]]:
    tiles = raster.tiles()
    while batch := list(islice(tiles, batch_size)):
        yield batch
