"""The interface of a dataset for training and evaluation: captioned tiles and their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from earthvlm.data.labels import SceneLabels
from earthvlm.scenes.scene import Scene


@dataclass(frozen=True)
class Tile:
    """One image of a dataset, with its captions and, where they are known, its labels."""

    name: str
    captions: tuple[str, ...]
    labels: SceneLabels | None


class CaptionedScenes(Protocol):
    """A dataset of captioned tiles whose images are read one at a time.

    `tiles` holds names, captions and labels of all tiles in a fixed order; `read` opens the image
    of one of them and raises ValueError or FileNotFoundError where it cannot be used.
    """

    @property
    def tiles(self) -> Sequence[Tile]:
        """All tiles, in a fixed order."""

    def __len__(self) -> int:
        """Return the number of tiles."""

    def read(self, tile: Tile) -> Scene:
        """Open a tile's image."""

    def with_tiles(self, tiles: Sequence[Tile]) -> CaptionedScenes:
        """Return the same dataset with only these tiles, and with no image in memory yet."""


def are_labelled(tiles: Sequence[Tile]) -> bool:
    """Return whether the land cover of every tile is known, not its caption alone."""
    return all(tile.labels is not None for tile in tiles)


def is_unicode(text: str) -> bool:
    """Return whether a text can be tokenized: a lone half of a surrogate pair cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
