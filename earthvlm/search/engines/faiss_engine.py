"""The faiss engines, which are approximate: 8-bit vectors, inverted lists, or a graph.

They find candidates, whose similarities are then computed exactly, so the only error is a missed
candidate. An index is kept next to the table's files, and built again where it is truncated,
damaged, or of other vectors. Needs the extra `faiss`.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.embeddings.table import SceneTable
from earthvlm.models.text_encoder import SENTENCE_DIM
from earthvlm.search.engines.engine import Hits
from earthvlm.search.engines.exact import compare_rows, select_rows
from earthvlm.storage.files import checksum, write_atomically

# Candidates for each result; many, because embeddings of scenes are close together.
CANDIDATES = 16
# M and efConstruction of HNSW (Malkov and Yashunin, 2018).
GRAPH_NEIGHBOURS = 32
EF_CONSTRUCTION = 80
EF_SEARCH = 96  # the least efSearch of HNSW
# The number of inverted lists as a multiple of the root of the number of vectors, and how many of
# the lists a search reads.
LISTS_BY_ROOT = 2.5
LISTS_READ = 64
ROWS_A_LIST = 39  # faiss warns where it has fewer training vectors a list
TRAINING_ROWS = 100_000
# Search is exact where a filter leaves a smaller share or fewer rows than these, because a graph
# search would mostly visit rows that do not match.
SMALLEST_SHARE = 0.05
SMALLEST_GRAPH = 1000


class FaissEngine:
    """Finds nearly all of the nearest rows with a faiss index."""

    def __init__(self, table: SceneTable, kind: str = "hnsw", folder: Path | None = None) -> None:
        """Make an engine; its indexes are built when they are first used.

        Args:
            table: to search in.
            kind: "sq8", "ivf" or "hnsw".
            folder: keeps the indexes; None keeps them in memory alone.

        Raises:
            ValueError: faiss is not installed.
        """
        try:
            import faiss  # noqa: F401
        except ModuleNotFoundError as error:
            raise ValueError(
                f"the engine faiss-{kind} needs faiss: pip install 'earthvlm[faiss]'"
            ) from error
        self.name = f"faiss-{kind}"
        self._table, self._kind, self._folder = table, kind, folder
        self._indexes: dict[str, tuple[Any, np.ndarray]] = {}
        self._building = threading.Lock()  # searches run in several threads

    def search(self, space: str, queries: np.ndarray, k: int, where: SceneFilter) -> list[Hits]:
        """See SearchEngine."""
        import faiss

        vectors, rows = self._table.vectors(space), select_rows(self._table, space, where)
        narrow = len(rows) < max(SMALLEST_GRAPH, SMALLEST_SHARE * len(self._table))
        if narrow or k * CANDIDATES >= len(rows):
            return compare_rows(vectors, rows, queries, k)
        index, of_index = self.index(space)
        selected = None
        if len(rows) < len(of_index):
            selected = faiss.IDSelectorBitmap(
                np.packbits(np.isin(of_index, rows), bitorder="little")
            )
        count = k * CANDIDATES
        if self._kind == "hnsw":
            options = faiss.SearchParametersHNSW(sel=selected, efSearch=max(EF_SEARCH, count))
        elif self._kind == "ivf":
            options = faiss.SearchParametersIVF(sel=selected, nprobe=LISTS_READ)
        else:
            options = faiss.SearchParameters(sel=selected)
        _, found = index.search(np.ascontiguousarray(queries), count, params=options)
        return [
            compare_rows(vectors, np.sort(of_index[places[places >= 0]]), query[None], k)[0]
            for places, query in zip(found, queries, strict=True)
        ]

    def index(self, space: str) -> tuple[Any, np.ndarray]:
        """Return the index of a space, which is read or built first, and the rows it holds."""
        with self._building:
            if space not in self._indexes:
                rows = self._table.rows(space)
                index = self._read(space, len(rows))
                if index is None:
                    index = self._build(space, rows)
                    self._write(space, index)
                self._indexes[space] = index, rows
            return self._indexes[space]

    def _build(self, space: str, rows: np.ndarray) -> Any:
        import faiss

        vectors = self._table.vectors(space)
        description = self._describe_index(len(rows))
        index = faiss.index_factory(SENTENCE_DIM, description, faiss.METRIC_INNER_PRODUCT)
        if self._kind == "hnsw":
            index.hnsw.efConstruction = EF_CONSTRUCTION
        index.train(vectors[rows[:: max(1, len(rows) // TRAINING_ROWS)]])
        for first in range(0, len(rows), TRAINING_ROWS):
            index.add(vectors[rows[first : first + TRAINING_ROWS]])
        return index

    def _describe_index(self, count: int) -> str:
        """Describe an index of `count` vectors, for faiss's index_factory."""
        lists = min(round(LISTS_BY_ROOT * count**0.5), min(count, TRAINING_ROWS) // ROWS_A_LIST)
        kinds = {
            "sq8": "",
            "ivf": f"IVF{max(1, lists)},",
            "hnsw": f"HNSW{GRAPH_NEIGHBOURS},",
        }
        return kinds[self._kind] + "SQ8"

    def _path(self, space: str) -> Path | None:
        return self._folder and self._folder / f"{self.name}-{space}.index"

    def _read(self, space: str, count: int) -> Any | None:
        import faiss

        path = self._path(space)
        if path is None:
            return None
        try:
            description = json.loads(path.with_suffix(".json").read_text("utf-8"))
            if description != self._describe(space, checksum(path)):
                return None
            index = faiss.read_index(str(path))
        except (OSError, ValueError, RuntimeError):
            return None
        return index if index.ntotal == count else None

    def _write(self, space: str, index: Any) -> None:
        import faiss

        path = self._path(space)
        if path is None:
            return
        with write_atomically(path) as temporary:
            faiss.write_index(index, str(temporary))
        description = self._describe(space, checksum(path))
        with write_atomically(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(description), "utf-8")

    def _describe(self, space: str, file_checksum: str) -> dict[str, str]:
        return {"checksum": file_checksum, "vectors": self._table.digest(space)}
