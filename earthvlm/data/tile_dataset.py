"""TileDataset: tiles whose images are opened one at a time, recent ones kept in memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from earthvlm.data.captioned_scenes import Tile
from earthvlm.scenes.places.formatting import describe_count
from earthvlm.scenes.reflectance import BlankSceneError
from earthvlm.scenes.scene import Scene

# Bytes of tiles that each process keeps in memory: some thousands of 64 x 64 pixels, and few of
# ChatEarthNet's own, which come in another order each epoch anyway.
MEMORY = 1 << 30
LISTED = 3  # entries of one fault that a message names


def list_entries(source: str, reason: str, entries: Sequence[str], noun: str = "entry") -> str:
    """Return a count and the first entries: "a.json: 2 entries without text: entry 2, ..."."""
    return f"{source}: {describe_count(len(entries), noun)} {reason}: {name_first(entries)}"


def name_first(entries: Sequence[str]) -> str:
    """Return the first entries, and "..." for more."""
    return "; ".join(entries[:LISTED]) + (", ..." if len(entries) > LISTED else "")


def describe_fault(open_scene: Callable[[], Scene]) -> str | None:
    """Return why a scene cannot be opened, or None."""
    try:
        open_scene()
    except BlankSceneError as error:
        return f"blank: {error}"
    except FileNotFoundError as error:
        return f"missing: {error}"
    except (ValueError, OSError) as error:
        return f"unreadable: {error}"
    return None


class TileDataset:
    """A `CaptionedScenes` of one split.

    Args:
        origin: the file, folder or repository that messages name.
        tiles: in a fixed order.
        open_tile: opens a tile's image; raises ValueError or OSError where it cannot be used.
        left_out: a sentence for each kind of entry that was left out.
        notes: sentences on what was assumed.
        hub_id: the dataset's repository on the Hub; several are joined by commas.
        memory: bytes of recently read tiles that are kept.
    """

    def __init__(
        self,
        origin: str,
        tiles: Sequence[Tile],
        open_tile: Callable[[Tile], Scene],
        *,
        left_out: Sequence[str] = (),
        notes: Sequence[str] = (),
        hub_id: str | None = None,
        memory: int = MEMORY,
    ) -> None:
        self.origin, self.tiles, self.open = origin, list(tiles), open_tile
        self.left_out, self.notes, self.hub_id = list(left_out), list(notes), hub_id
        self._kept: dict[str, Scene] = {}  # the least recently read first
        self._memory = self._free = memory

    def __len__(self) -> int:
        return len(self.tiles)

    def __iter__(self) -> Iterator[Tile]:
        return iter(self.tiles)

    def __getitem__(self, index: int) -> tuple[Scene, Tile]:
        tile = self.tiles[index]
        return self.read(tile), tile

    def read(self, tile: Tile) -> Scene:
        """Open a tile's image."""
        scene = self._kept.pop(tile.name, None)
        if scene is None:
            scene = self.open(tile)
            self._free -= scene.reflectance.nbytes
        self._kept[tile.name] = scene
        while self._free < 0:
            oldest = self._kept.pop(next(iter(self._kept)))
            self._free += oldest.reflectance.nbytes
        return scene

    def with_tiles(self, tiles: Sequence[Tile]) -> Self:
        """Return the same dataset with only these tiles."""
        other = copy.copy(self)
        other.tiles, other._kept, other._free = list(tiles), {}, self._memory  # noqa: SLF001
        return other

    def find_fault(self, tile: Tile) -> str | None:
        """Return why a tile's image cannot be used, or None."""
        return describe_fault(lambda: self.open(tile))
