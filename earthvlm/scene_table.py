"""SceneTable: the rows of an embedding dataset as a search needs them, and which of them fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from earthvlm.embedding_dataset import get_vectors
from earthvlm.search_query import SceneFilter

SPACES = {"scene": "scene_embedding", "caption": "caption_embedding"}


class SceneTable:
    """N rows in the order of the dataset, with their vectors of each space `[N, 384]`."""

    def __init__(self, table: pa.Table) -> None:
        """Take a table with EMBEDDING_SCHEMA's columns."""
        self._vectors = {space: get_vectors(table, column) for space, column in SPACES.items()}
        self._rows = table.drop_columns(list(SPACES.values()))

    def __len__(self) -> int:
        return self._rows.num_rows

    def vectors(self, space: str) -> np.ndarray:
        """Float32 `[N, 384]` of unit length, NaN in rows that have none."""
        return self._vectors[space]

    def read(self, row: int) -> dict[str, Any]:
        """One row's columns, without its vectors."""
        return self._rows.slice(row, 1).to_pylist()[0]

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of all rows."""
        return self._rows.column(name)

    def distinct(self, name: str) -> tuple[str, ...]:
        """The different values of a column of text, in alphabetical order."""
        return tuple(sorted(value for value in pc.unique(self.column(name)).to_pylist() if value))

    def find(self, image_id: str) -> int:
        """The row of a scene. Raises ValueError where there is none of that name."""
        row = pc.index(self.column("image_id"), image_id).as_py()
        if row < 0:
            raise ValueError(f"this dataset has no scene {image_id!r}; check its name")
        return row

    def select(self, where: SceneFilter) -> np.ndarray | None:
        """Which rows fit, bool `[N]`, or None where all do.

        Raises ValueError for a split, and for a source, that no row has.
        """
        self.check(where)
        masks = []
        if where.split is not None:
            masks.append(pc.equal(self.column("split"), where.split))
        if where.source is not None:
            sources = pa.array(self.matching_sources(where.source), pa.string())
            masks.append(pc.is_in(self.column("source"), sources))
        if where.box is not None:
            latitude, longitude = self.column("latitude"), self.column("longitude")
            masks.append(_between(latitude, where.box[1], where.box[3]))
            inside = [_between(longitude, *ends) for ends in where.longitude_ranges]
            masks.append(inside[0] if len(inside) == 1 else pc.or_(*inside))
        for date, compare in (
            (where.first_date, pc.greater_equal),
            (where.last_date, pc.less_equal),
        ):
            if date is not None:
                masks.append(compare(self.column("date"), pa.scalar(date, pa.date32())))
        if not masks:
            return None
        fits = [mask.fill_null(False).to_numpy() for mask in masks]
        return np.logical_and.reduce(fits)

    def check(self, where: SceneFilter) -> None:
        """Raise ValueError where the filter asks for a split or a source that no row has."""
        splits = self.distinct("split")
        if where.split is not None and where.split not in splits:
            raise ValueError(
                f"this dataset has no split {where.split!r}; choose one of {', '.join(splits)}"
            )
        if where.source is not None and not self.matching_sources(where.source):
            known = ", ".join(self.distinct("source")) or "none"
            raise ValueError(
                f"no source of this dataset contains {where.source!r}; its sources are {known}"
            )

    def matching_sources(self, words: str) -> list[str]:
        """The sources that contain some words, in any case."""
        return [source for source in self.distinct("source") if words.lower() in source.lower()]


def _between(column: pa.ChunkedArray, low: float, high: float) -> pa.ChunkedArray:
    return pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high))
