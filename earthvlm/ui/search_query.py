"""What a visitor searches for: words, scenes that results should be like, and others not like."""

from __future__ import annotations

from dataclasses import dataclass

from earthvlm.search.index import Query, SceneResult
from earthvlm.serving.service import Example

SORTS = ("best match", "newest first", "oldest first", "place, A to Z")


@dataclass(frozen=True)
class SearchQuery:
    """A search; without words and scenes it lists the scenes of the collection.

    like, unlike: scenes of the index, and a visitor's own.
    """

    words: str = ""
    like: tuple[Example | SceneResult, ...] = ()
    unlike: tuple[SceneResult, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.words or self.like or self.unlike)

    @property
    def parts(self) -> list[Query | Example] | None:
        """The parts as `SceneService.search` takes them, None where there are none."""
        parts: list[Query | Example] = [*([self.words] if self.words else []), *self.like]
        return parts or None
