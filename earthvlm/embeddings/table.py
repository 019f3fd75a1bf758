"""SceneTable: the rows of an embedding dataset as a search needs them, and its filters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.embeddings.schema import get_vectors
from earthvlm.scenes.places.formatting import describe_count

FILTER_COLUMNS = ("split", "source", "longitude", "latitude", "date")
SOURCE_LETTERS = 40  # of a source, in an error message
NAME_LETTERS = 80  # of an unknown name, in an error message
BLOCK_ROWS = 16_384  # read at once
SPACES = {"scene": "scene_embedding", "caption": "caption_embedding"}


class SceneTable:
    """N rows in the dataset's order, with the vectors of each space `[N, 384]`.

    It is in memory, or mapped from files, of which only what is used is read.
    """

    def __init__(
        self,
        rows: pa.Table,
        vectors: Mapping[str, np.ndarray],
        present: Mapping[str, np.ndarray] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Make a table.

        Args:
            rows: EMBEDDING_SCHEMA's columns without the embeddings.
            vectors: of each space, float32 `[N, 384]`.
            present: which rows have a vector of each space, bool `[N]`; None computes it.
            folder: of the files that the table is mapped from.
        """
        self.folder = folder
        self._rows, self._vectors = rows, vectors
        self._present = present or {space: find_present(each) for space, each in vectors.items()}
        self._with_vectors = {space: np.flatnonzero(has) for space, has in self._present.items()}
        self._distinct: dict[str, tuple[str, ...]] = {}
        self._digests: dict[str, str] = {}

    @classmethod
    def from_dataset(cls, table: pa.Table) -> SceneTable:
        """Take a table with EMBEDDING_SCHEMA's columns into memory."""
        vectors = {space: get_vectors(table, column) for space, column in SPACES.items()}
        return cls(table.drop_columns(list(SPACES.values())), vectors)

    def __len__(self) -> int:
        return self._rows.num_rows

    def vectors(self, space: str) -> np.ndarray:
        """Return float32 `[N, 384]` of unit length, NaN in rows without a vector."""
        return self._vectors[space]

    def present(self, space: str) -> np.ndarray:
        """Return which rows have a vector, bool `[N]`."""
        return self._present[space]

    def rows(self, space: str) -> np.ndarray:
        """Return the numbers of the rows that have a vector, in order."""
        return self._with_vectors[space]

    def digest(self, space: str) -> str:
        """Identify the vectors of a space and the columns that filters use, by a hash."""
        if space not in self._digests:
            digest = xxhash.xxh3_64()
            vectors = self._vectors[space]
            for first in range(0, len(vectors), BLOCK_ROWS):
                digest.update(vectors[first : first + BLOCK_ROWS].tobytes())
            for name in FILTER_COLUMNS:
                for value in self.column(name).to_pylist():
                    digest.update(f"{value}\0".encode())
            self._digests[space] = digest.hexdigest()
        return self._digests[space]

    def read(self, row: int) -> dict[str, Any]:
        """Return one row's columns, without its vectors."""
        return self._rows.slice(row, 1).to_pylist()[0]

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column of all rows."""
        return self._rows.column(name)

    def distinct(self, name: str) -> tuple[str, ...]:
        """Return the distinct values of a text column, in alphabetical order."""
        if name not in self._distinct:
            values = pc.unique(self.column(name)).to_pylist()
            self._distinct[name] = tuple(sorted(value for value in values if value))
        return self._distinct[name]

    def find(self, image_id: str) -> int:
        """Return the row of a scene. Raises ValueError for an unknown name."""
        row = pc.index(self.column("image_id"), image_id).as_py()
        if row < 0:
            raise ValueError(
                f"this dataset has no scene {image_id[:NAME_LETTERS]!r}; check its name"
            )
        return row

    def select(self, where: SceneFilter) -> np.ndarray | None:
        """Return which rows match a filter, bool `[N]`, or None where it is empty.

        Raises ValueError for a split and for a source that no row has.
        """
        self.check(where)
        masks = self._match(where)
        if not masks:
            return None
        return np.logical_and.reduce([mask.fill_null(False).to_numpy() for _, mask in masks])

    def describe_left_out(self, where: SceneFilter) -> str:
        """Say how many rows a filter leaves out for lack of a value alone; "" where none."""
        masks = self._match(where)
        if not any(mask.null_count for _, mask in masks):
            return ""
        possible = np.logical_and.reduce([mask.fill_null(True).to_numpy() for _, mask in masks])
        lacking = {
            name: possible & mask.is_null().to_numpy() for name, mask in masks if mask.null_count
        }
        count = int(np.logical_or.reduce(list(lacking.values())).sum())
        if not count:
            return ""
        names = " or ".join(name for name, rows in lacking.items() if rows.any())
        verb = "was" if count == 1 else "were"
        return f"{describe_count(count, 'scene')} without a {names} {verb} left out."

    def _match(self, where: SceneFilter) -> list[tuple[str, pa.ChunkedArray]]:
        """Return whether each row matches, null where it lacks the value, for each condition."""
        masks = []
        if where.split is not None:
            masks.append(("split", pc.equal(self.column("split"), where.split)))
        if where.source is not None:
            sources, column = self.matching_sources(where.source), self.column("source")
            matches = pc.is_in(column, pa.array(sources, pa.string()))
            masks.append(("source", pc.if_else(column.is_null(), None, matches)))
        if where.bbox is not None:
            latitude, longitude = self.column("latitude"), self.column("longitude")
            inside = [_between(longitude, *ends) for ends in where.longitude_ranges]
            across = inside[0] if len(inside) == 1 else pc.or_(*inside)
            masks.append(("place", pc.and_(across, _between(latitude, *where.bbox[1::2]))))
        dates = [
            compare(self.column("date"), pa.scalar(date, pa.date32()))
            for date, compare in (
                (where.first_date, pc.greater_equal),
                (where.last_date, pc.less_equal),
            )
            if date is not None
        ]
        if dates:
            masks.append(("date", dates[0] if len(dates) == 1 else pc.and_(*dates)))
        return masks

    def check(self, where: SceneFilter) -> None:
        """Raise ValueError where the filter asks for a split or a source that no row has."""
        splits = self.distinct("split")
        if where.split is not None and where.split not in splits:
            raise ValueError(
                f"this dataset has no split {where.split[:NAME_LETTERS]!r}; choose one of "
                f"{', '.join(splits)}"
            )
        if where.source is not None and not self.matching_sources(where.source):
            words, *known = (
                shorten(text, SOURCE_LETTERS, placeholder=" …")
                for text in (where.source, *self.distinct("source")[:1])
            )
            example = f"one of its sources is {known[0]!r}" if known else "it has no sources"
            raise ValueError(f"no source of this dataset contains {words!r}; {example}")

    def matching_sources(self, words: str) -> list[str]:
        """Return the sources that contain some words, in any case."""
        return [source for source in self.distinct("source") if words.lower() in source.lower()]


def find_present(vectors: np.ndarray) -> np.ndarray:
    """Return which rows of `[N, 384]` have a vector, bool `[N]`."""
    return ~np.isnan(vectors[:, 0])


def _between(column: pa.ChunkedArray, low: float, high: float) -> pa.ChunkedArray:
    return pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high))
