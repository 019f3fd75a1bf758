"""The faiss engines: one byte a number, lists of neighbours, or a graph; approximate, and fast.

What they find is compared in full afterwards, so that the cosines are exact and only a near one
that was overlooked can be missing. An index is kept beside the table's files, and built again where
it is cut short, damaged, or of other vectors. Needs the extra `faiss`.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np

from earthvlm.embeddings.filters import SceneFilter
from earthvlm.embeddings.table import SceneTable
from earthvlm.models.text_encoder import SENTENCE_DIM
from earthvlm.search.engines import Hits, compare_rows, select_rows
from earthvlm.storage.files import checksum, write_atomically

# Candidates for each vector wanted, of which the nearest in full are taken: scenes lie close.
CANDIDATES = 16
# Neighbours of a node and how many are weighed when it is placed (Malkov and Yashunin, 2018).
GRAPH_NEIGHBOURS = 32
PLACING_BREADTH = 80
# How many nodes a search of the graph keeps in view, at least.
SEARCH_BREADTH = 96
# Lists of neighbours, by the root of how many there are, and how many of them are read.
LISTS_BY_ROOT = 2.5
LISTS_READ = 64
ROWS_A_LIST = 39  # of those it is trained on, at least, or faiss warns
# Where a filter leaves fewer rows, or a smaller share, a graph would wander among those left out.
SMALLEST_SHARE = 0.05
SMALLEST_GRAPH = 1000
TRAINING_ROWS = 100_000


class FaissEngine:
    """Finds nearly all of the nearest in an index of faiss; kind: "sq8", "ivf" or "hnsw"."""

    def __init__(self, table: SceneTable, kind: str = "hnsw", folder: Path | None = None) -> None:
        """folder: where indexes are kept; in memory alone where it is None.

        Raises ValueError without faiss.
        """
        try:
            import faiss  # noqa: F401
        except ModuleNotFoundError as error:
            raise ValueError(
                f"the engine faiss-{kind} needs faiss: pip install 'earthvlm[faiss]'"
            ) from error
        self.name = f"faiss-{kind}"
        self._table, self._kind, self._folder = table, kind, folder
        self._indexes: dict[str, tuple[object, np.ndarray]] = {}
        self._building = threading.Lock()  # visitors search at the same time

    def search(self, space: str, queries: np.ndarray, k: int, where: SceneFilter) -> list[Hits]:
        """See SearchEngine."""
        import faiss

        vectors, rows = self._table.vectors(space), select_rows(self._table, space, where)
        narrow = len(rows) < max(SMALLEST_GRAPH, SMALLEST_SHARE * len(self._table))
        if narrow or k * CANDIDATES >= len(rows):
            return compare_rows(vectors, rows, queries, k)
        index, of_index = self.index(space)
        chosen = None
        if len(rows) < len(of_index):
            chosen = faiss.IDSelectorBitmap(np.packbits(np.isin(of_index, rows), bitorder="little"))
        wanted = k * CANDIDATES
        if self._kind == "hnsw":
            breadth = max(SEARCH_BREADTH, wanted)
            options = faiss.SearchParametersHNSW(sel=chosen, efSearch=breadth)
        elif self._kind == "ivf":
            options = faiss.SearchParametersIVF(sel=chosen, nprobe=LISTS_READ)
        else:
            options = faiss.SearchParameters(sel=chosen)
        _, found = index.search(np.ascontiguousarray(queries), wanted, params=options)
        return [
            compare_rows(vectors, np.sort(of_index[places[places >= 0]]), query[None], k)[0]
            for places, query in zip(found, queries, strict=True)
        ]

    def index(self, space: str) -> tuple[object, np.ndarray]:
        """The index of a space, which is read or built first, and the rows it counts."""
        with self._building:
            if space not in self._indexes:
                rows = self._table.rows(space)
                index = self._read(space, len(rows))
                if index is None:
                    index = self._build(space, rows)
                    self._write(space, index)
                self._indexes[space] = index, rows
            return self._indexes[space]

    def _build(self, space: str, rows: np.ndarray) -> object:
        import faiss

        vectors = self._table.vectors(space)
        description = self._describe_index(len(rows))
        index = faiss.index_factory(SENTENCE_DIM, description, faiss.METRIC_INNER_PRODUCT)
        if self._kind == "hnsw":
            index.hnsw.efConstruction = PLACING_BREADTH
        index.train(vectors[rows[:: max(1, len(rows) // TRAINING_ROWS)]])
        for first in range(0, len(rows), TRAINING_ROWS):
            index.add(vectors[rows[first : first + TRAINING_ROWS]])
        return index

    def _describe_index(self, count: int) -> str:
        """What faiss's index_factory makes the index of `count` vectors from."""
        lists = min(round(LISTS_BY_ROOT * count**0.5), min(count, TRAINING_ROWS) // ROWS_A_LIST)
        kinds = {
            "sq8": "",
            "ivf": f"IVF{max(1, lists)},",
            "hnsw": f"HNSW{GRAPH_NEIGHBOURS},",
        }
        return kinds[self._kind] + "SQ8"

    def _paths(self, space: str) -> tuple[Path, Path]:
        path = self._folder / f"{self.name}-{space}.index"
        return path, path.with_suffix(".json")

    def _read(self, space: str, count: int) -> object | None:
        import faiss

        if self._folder is None:
            return None
        path, kept = self._paths(space)
        try:
            if json.loads(kept.read_text()) != self._describe(space, checksum(path)):
                return None
            index = faiss.read_index(str(path))
        except (OSError, ValueError, RuntimeError):
            return None
        return index if index.ntotal == count else None

    def _write(self, space: str, index: object) -> None:
        import faiss

        if self._folder is None:
            return
        path, kept = self._paths(space)
        with write_atomically(path) as temporary:
            faiss.write_index(index, str(temporary))
        with write_atomically(kept) as temporary:
            temporary.write_text(json.dumps(self._describe(space, checksum(path))))

    def _describe(self, space: str, written: str) -> dict[str, str]:
        return {"checksum": written, "vectors": self._table.digest(space)}
