"""Open what `--data_dir` names: ChatEarthNet, a folder, a conversation file or a Hub dataset."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from earthvlm.data.captioned_scenes import Tile
from earthvlm.data.chatearthnet.dataset import CAPTION_FILE, SPLITS, ChatEarthNet
from earthvlm.data.chatearthnet.validation import check_chatearthnet
from earthvlm.data.sources.conversation_files import find_conversations, read_conversations
from earthvlm.data.sources.entries import Entries, Place
from earthvlm.data.sources.files import LocalFiles, SourceFiles, find_hub_files
from earthvlm.data.sources.metadata_files import find_metadata, read_metadata
from earthvlm.data.sources.parquet_shards import find_shards, read_shards
from earthvlm.data.tile_dataset import MEMORY, TileDataset, describe_fault
from earthvlm.data.validation import Report, leave_out_unusable
from earthvlm.scenes.scene import Scene
from earthvlm.storage.hub import HUB_ID

# Where no split is for validation, one of this number of tiles is held out, by its name.
HELD_OUT = 20
ACCEPTED = (
    "a folder in ChatEarthNet's layout, a folder with metadata.jsonl, metadata.csv or "
    "metadata.parquet, Parquet files with images, a conversation file as LLaVA's, or a dataset's "
    "id on the Hub"
)


def open_scenes(
    source: str | Path, split: str, captions: str = "35", memory: int = MEMORY
) -> TileDataset:
    """Open one split of a source.

    Args:
        source: a folder, a file, or "owner/name" on the Hub, with "@revision" or without.
        split: "train", "val", "test" or another that the source names.
        captions: of ChatEarthNet, "35" or "4v".
        memory: bytes of recently read tiles that are kept.

    Raises:
        FileNotFoundError: there is no such source or split.
        ValueError: names the file and the entry that cannot be read.
        ConnectionError: the Hub does not answer.
    """
    path = Path(source)
    if is_chatearthnet(path):
        return ChatEarthNet(path, split, captions, memory)
    return read_source(source).open_split(split, memory)


def list_splits(source: str | Path, captions: str = "35") -> list[str]:
    """Return the splits of a source, those for training, validation and tests first.

    Raises what `open_scenes` does.
    """
    path = Path(source)
    if is_chatearthnet(path):
        folder = path / "json_files"
        names = [CAPTION_FILE.format(captions=captions, split=split) for split in SPLITS]
        found = [s for s, name in zip(SPLITS, names, strict=True) if (folder / name).is_file()]
        return found or list(SPLITS)  # and opening names the file that is not there
    found = sorted(read_source(source).splits)
    return [s for s in SPLITS if s in found] + [s for s in found if s not in SPLITS]


def check_source(source: str | Path, workers: int | None = None) -> Report:
    """Read every tile of a source, also of one in ChatEarthNet's layout.

    Writes `check.json` into a folder, which lists the tiles that training skips. Raises what
    `open_scenes` does.
    """
    path = Path(source)
    if is_chatearthnet(path):
        return check_chatearthnet(path, workers)
    read = read_source(source)
    report = Report({split: len(tiles) for split, tiles in read.splits.items()})
    report.faults += read.entries.left_out()
    names = {split: {tile.name for tile in tiles} for split, tiles in read.splits.items()}
    report.compare_splits(read.files.name, names)
    tiles = {tile.name: tile for each in read.splits.values() for tile in each}
    if not tiles:
        raise FileNotFoundError(f"{read.files.name} has no entry with an image and a text.")
    report.read_tiles(tiles, lambda tile: describe_fault(lambda: read.open(tile)), workers)
    if isinstance(read.files, LocalFiles):
        report.write(read.files.root)
    return report


def is_chatearthnet(path: Path) -> bool:
    """Return whether a path is, or is to become, a folder in ChatEarthNet's layout."""
    if path.is_dir():
        return (path / "json_files").is_dir() or not any(path.iterdir())
    return not path.exists() and not HUB_ID.fullmatch(str(path).partition("@")[0])


class Source:
    """The entries of a source by split, and how its images are opened."""

    def __init__(
        self, files: SourceFiles, entries: Entries, open_image: Callable[[Tile], Scene]
    ) -> None:
        self.files, self.entries, self.open_image = files, entries, open_image
        self.splits = {split: list(tiles.values()) for split, tiles in entries.tiles.items()}
        self.notes: list[str] = []
        train = self.splits.get("train", [])
        if "val" not in self.splits and len(train) > 1:
            self._hold_out(train)

    def _hold_out(self, train: Sequence[Tile]) -> None:
        draws = {tile.name: zlib.crc32(tile.name.encode()) for tile in train}
        held = {name for name, draw in draws.items() if draw % HELD_OUT == 0}
        held = held or {min(draws, key=draws.__getitem__)}
        self.splits["train"] = [tile for tile in train if tile.name not in held]
        self.splits["val"] = [tile for tile in train if tile.name in held]
        self.notes.append(
            f"{self.files.name} names no validation split, so {len(held):,} of its {len(train):,} "
            "tiles, chosen by their names, are for validation."
        )

    def open_split(self, split: str, memory: int) -> TileDataset:
        """Open a split; FileNotFoundError where there is none of that name."""
        if split not in self.splits:
            known = ", ".join(sorted(self.splits)) or "no entry with an image and a text"
            raise FileNotFoundError(f"{self.files.name} has no split {split!r}: it has {known}.")
        tiles, left_out = self.splits[split], self.entries.left_out()
        if isinstance(self.files, LocalFiles):
            tiles, unusable = leave_out_unusable(tiles, self.files.root, split)
            left_out += unusable
        return TileDataset(
            self.files.name,
            tiles,
            self.open,
            left_out=left_out,
            notes=self.notes,
            hub_id=self.files.hub_id,
            memory=memory,
        )

    def open(self, tile: Tile) -> Scene:
        """Open a tile's image, with place and date of its entry where the file has none."""
        scene = self.open_image(tile)
        place = self.entries.places.get(tile.name, Place())
        known = {name: value for name, value in vars(place).items() if getattr(scene, name) is None}
        return replace(scene, name=PurePosixPath(tile.name).stem, **known)


def read_source(source: str | Path) -> Source:
    """Read a source that is not in ChatEarthNet's layout. Raises what `open_scenes` does."""
    path = Path(source)
    if path.is_file():
        files: SourceFiles = LocalFiles(path.parent)
        names = [path.name]
    else:
        files = LocalFiles(path) if path.is_dir() else find_hub_files(str(source))
        names = files.list_metadata()
    stamps = []
    if isinstance(files, LocalFiles):
        stamps = [files.fetch(name).stat().st_mtime_ns for name in names]
    return _read_files(files, tuple(names), path.is_file(), tuple(stamps))


@lru_cache(maxsize=8)  # because each split is opened on its own
def _read_files(
    files: SourceFiles, names: Sequence[str], is_file: bool, _: tuple[int, ...]
) -> Source:
    def open_file(tile: Tile) -> Scene:
        return Scene.open(files.fetch(tile.name))

    if metadata := find_metadata(names):
        return Source(files, read_metadata(files, metadata), open_file)
    if shards := find_shards(names):
        entries, images = read_shards(files, shards)
        return Source(files, entries, images.open)
    # A file that the user names is one, whatever its first entry is.
    if conversations := names if is_file else find_conversations(files, names):
        return Source(files, read_conversations(files, conversations), open_file)
    raise FileNotFoundError(
        f"{files.name} holds no captions or conversations: --data_dir takes {ACCEPTED}."
    )
