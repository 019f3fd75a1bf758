"""What a search asks for: words with a minus, and the scenes among which it looks."""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass

import numpy as np

# A minus counts at the start of a word only, so that "built-up" and " - " stay as they are.
_MINUS = re.compile(r'(?<!\S)-(?:"([^"]+)"|([^\s"-][^\s"]*))')
MAX_QUERY_CHARACTERS = 2000  # of which the sentence model reads the first 256 word pieces
# How far a search moves away from what is unwanted, as a share of what sets that apart.
UNWANTED_SHARE = 0.5

Box = tuple[float, float, float, float]
# A box may cross the date line, with west greater than east. One that would reach further around
# the world than this is taken for one whose ends were swapped.
MAX_CROSSING_DEGREES = 180
BOX_FORM = (
    "a box is west, south, east and north in degrees, longitudes from -180 to 180 and south at "
    "most north, as in 4, 47, 16, 55"
)


@dataclass(frozen=True)
class Words:
    """What scenes should show, and what they should not. `wanted` is empty for minuses alone."""

    wanted: str
    unwanted: tuple[str, ...] = ()


def parse_words(text: str) -> Words:
    """Read 'river -city -"bare soil"': a minus before a word, or a phrase in quotes, unwants it."""
    unwanted = tuple(phrase or word for phrase, word in _MINUS.findall(text))
    wanted = " ".join(_MINUS.sub(" ", text).replace('"', " ").split())
    return Words(wanted, unwanted)


def read_words(text: str) -> Words:
    """Parse the words of a search. Raises ValueError where there are none or too many."""
    words = parse_words(text)
    if words == Words(""):
        raise ValueError("the search is empty; type some words, as in 'a lake beside forest'")
    if len(text) > MAX_QUERY_CHARACTERS:
        raise ValueError(
            f"the search has {len(text)} characters; at most {MAX_QUERY_CHARACTERS} are read"
        )
    return words


def embed_words(words: Words) -> np.ndarray:
    """Embed words, moved away from what is unwanted: float32 `[384]`, unit length."""
    from earthvlm.sentences import embed_sentences

    texts = [text for text in (words.wanted, *words.unwanted) if text]
    vectors = embed_sentences(texts)
    if not words.unwanted:
        return vectors[0]
    unwanted = vectors[-len(words.unwanted) :].mean(axis=0)
    if not words.wanted:
        return -unwanted / np.linalg.norm(unwanted)
    wanted = vectors[0]
    # Only what sets the unwanted apart: both are sentences about scenes, and share much.
    apart = unwanted - (unwanted @ wanted) * wanted
    vector = wanted - UNWANTED_SHARE * apart
    return vector / np.linalg.norm(vector)


@dataclass(frozen=True)
class SceneFilter:
    """Which scenes take part in a search: those that fit everything that is not None.

    split: exactly this one. box: west, south, east, north in degrees, edges included; west may be
    greater than east, and the box then crosses the date line, at most 180 degrees wide.
    first_date, last_date: both included. source: words that a scene's source contains, in any
    case. A scene without a place, date or source fits no filter that asks for one.

    Raises ValueError, in one sentence, for a box or dates that cannot be.
    """

    split: str | None = None
    box: Box | None = None
    first_date: datetime.date | None = None
    last_date: datetime.date | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        if self.box is not None:
            object.__setattr__(self, "box", _check_box(self.box))
        first, last = self.first_date, self.last_date
        if first is not None and last is not None and first > last:
            raise ValueError(f"the first date, {first}, is after the last, {last}; swap them")

    @property
    def longitude_ranges(self) -> tuple[tuple[float, float], ...]:
        """The box from west to east, in two parts where it crosses the date line."""
        if self.box is None:
            return ()
        west, _, east, _ = self.box
        return ((west, east),) if west <= east else ((west, 180.0), (-180.0, east))


def parse_date(text: str) -> datetime.date:
    """Read a date as in 2020-06-30. Raises ValueError, in one sentence, for anything else."""
    try:
        return datetime.datetime.strptime(text.strip(), "%Y-%m-%d").date()
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no date as in 2020-06-30") from None


def parse_box(text: str) -> Box:
    """Read "4, 47, 16, 55": west, south, east, north in degrees. Raises ValueError as above."""
    parts = text.replace("−", "-").replace(",", " ").split()
    try:
        box = tuple(float(part) for part in parts)
    except ValueError:
        raise ValueError(f"{BOX_FORM}; {text[:60]!r} was given") from None
    return _check_box(box)


def _check_box(box: Box) -> Box:
    numbers = tuple(float(value) for value in box)
    fits = len(numbers) == 4 and all(map(math.isfinite, numbers))
    if fits:
        west, south, east, north = numbers
        fits = max(abs(west), abs(east)) <= 180 and -90 <= south <= north <= 90
    given = ", ".join(f"{value:g}" for value in numbers)
    if not fits:
        raise ValueError(f"{BOX_FORM}; {given} was given")
    if west > east and east + 360 - west > MAX_CROSSING_DEGREES:
        raise ValueError(
            f"the box {given} goes {east + 360 - west:g} degrees around the world, from {west:g} "
            f"east to {east:g}; swap west and east if it should go from {east:g} to {west:g}"
        )
    return numbers
