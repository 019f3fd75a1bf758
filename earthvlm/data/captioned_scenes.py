"""The interface of a dataset for training and evaluation: captioned tiles and their images."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from earthvlm.data.labels import SceneLabels
from earthvlm.data.questions.question_answering import caption_conversation
from earthvlm.models.language.chat_templates import Message
from earthvlm.scenes.scene import Scene


@dataclass(frozen=True)
class Tile:
    """One image of a dataset, with its captions and, where they are known, its labels.

    Attributes:
        name: unique in the dataset.
        captions: descriptions of the whole image.
        labels: None where the land cover is unknown.
        conversations: each alternates between user and assistant, user first.
        weight: how often training draws it, relative to other tiles.
        shard: the file that it is read from, where reading another file takes time.
    """

    name: str
    captions: tuple[str, ...]
    labels: SceneLabels | None
    conversations: tuple[tuple[Message, ...], ...] = ()
    weight: float = 1.0
    shard: int = 0


class CaptionedScenes(Protocol):
    """A dataset of captioned tiles whose images are read one at a time.

    `tiles` holds names, captions and labels of all tiles in a fixed order; `read` opens the image
    of one of them and raises ValueError or FileNotFoundError where it cannot be used.
    """

    @property
    def tiles(self) -> Sequence[Tile]:
        """All tiles, in a fixed order."""

    @property
    def hub_id(self) -> str | None:
        """The dataset's repository on the Hub; several are joined by commas."""

    def __len__(self) -> int:
        """Return the number of tiles."""

    def read(self, tile: Tile) -> Scene:
        """Open a tile's image."""

    def with_tiles(self, tiles: Sequence[Tile]) -> CaptionedScenes:
        """Return the same dataset with only these tiles, and with no image in memory yet."""


def are_labelled(tiles: Sequence[Tile]) -> bool:
    """Return whether the land cover of every tile is known, not its caption alone."""
    return all(tile.labels is not None for tile in tiles)


def draw_conversation(tile: Tile, rng: random.Random) -> tuple[list[Message], str]:
    """Draw one of a tile's captions and conversations.

    Returns a conversation, and the caption that should retrieve the tile, "" where it has none.
    """
    choices: list[str | tuple[Message, ...]] = [*tile.captions, *tile.conversations]
    drawn = rng.choice(choices)
    if isinstance(drawn, str):
        return caption_conversation(drawn, rng), drawn
    return list(drawn), rng.choice(tile.captions) if tile.captions else ""


def is_unicode(text: str) -> bool:
    """Return whether a text can be tokenized: a lone half of a surrogate pair cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
