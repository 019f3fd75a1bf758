"""Sum up the notes of an image's tiles, which are mostly alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_NUMBERS = re.compile(r"\d[\d.,]*")


class NoteCounter:
    """Counts in how many tiles a note occurs; notes that differ in numbers alone are one."""

    def __init__(self) -> None:
        self._tiles = 0
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, set[str]] = {}

    def add(self, notes: Iterable[str]) -> None:
        """Count the notes of a tile."""
        self._tiles += 1
        for note in dict.fromkeys(notes):
            kind = _NUMBERS.sub("#", note.replace("Less than 1%", "0%"))
            self._counts[kind] += 1
            self._examples.setdefault(kind, set()).add(note)

    def summarize(self) -> tuple[str, ...]:
        """Return one sentence a kind of note, with the number of its tiles where not all have it.

        Of notes that differ in numbers, the first in alphabetical order stands for all.
        """
        sentences = []
        for kind, count in self._counts.items():
            note = min(self._examples[kind])
            alike = "so" if len(self._examples[kind]) == 1 else "so or with other numbers"
            if count < self._tiles or alike != "so":
                note = f"{note} ({alike} in {count:,} of {self._tiles:,} tiles)"
            sentences.append(note)
        return tuple(sentences)
