"""SceneIndex: the scenes of an embedding dataset, found by words, by other scenes, or by both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from earthvlm.embeddings.dataset import (
    count_rows,
    dataset_files,
    find_shared_provenance,
    locked,
    next_part,
    read_embedding_dataset,
    read_image_ids,
    write_embedding_dataset,
)
from earthvlm.embeddings.filters import SceneFilter
from earthvlm.embeddings.mmap_store import copy_dataset, open_stored
from earthvlm.embeddings.rows import check_names, make_rows
from earthvlm.embeddings.schema import Provenance
from earthvlm.embeddings.table import SceneTable
from earthvlm.scenes.scene import Scene
from earthvlm.search.engines import SIMILARITY_DECIMALS, ExactEngine, Hits, SearchEngine
from earthvlm.search.factory import AUTO, make_engine
from earthvlm.search.query import Query, QueryVector, check_bridge, make_query_vectors
from earthvlm.search.rank_fusion import join_hits
from earthvlm.search.result import SceneResult, SearchResults
from earthvlm.storage.hub import BUNDLED, LOCAL_REVISION, fetch

if TYPE_CHECKING:
    from earthvlm.bridge.model import OlmoEarthVLMBridge

__all__ = ["Query", "SceneFilter", "SceneIndex", "SceneResult", "SearchResults"]

# How far down each ranking is read where several are joined: a rank beyond adds below 0.001, and
# what is first in one ranking has 0.016.
RANK_DEPTH = 1000
# Rows from which a dataset is mapped from files instead of read into memory.
MAPPED_FROM = 20_000
DATASET_FILES = ("*.parquet", "scenes/*")


class SceneIndex:
    """Search in an embedding dataset, by words, by scenes, or by their embeddings."""

    def __init__(
        self,
        table: pa.Table | SceneTable,
        provenance: Provenance,
        folder: str | Path,
        engine: str = AUTO,
    ) -> None:
        """Index a table with EMBEDDING_SCHEMA's columns, whose scene files lie in `folder`.

        engine: see `make_engine`.
        """
        self.provenance = provenance
        self.folder = Path(folder)
        self.commit = LOCAL_REVISION  # of the Hub repository it was fetched from
        self.table = SceneTable.from_dataset(table) if isinstance(table, pa.Table) else table
        self.engine: SearchEngine = make_engine(engine, self.table)
        # Searches where the engine is elsewhere and does not answer.
        self._at_hand = ExactEngine(self.table)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        engine: str = AUTO,
    ) -> SceneIndex:
        """Open the dataset of a folder, of a Hub repository, or the "bundled" one.

        A large one is mapped from files that are made when it is opened first; see scene_store.
        engine: see `make_engine`.
        revision, token, cache_dir, local_files_only: of the Hub repository; see `fetch`.
        Raises what `read_embedding_dataset` does for a folder that holds none, or a damaged one,
        and ConnectionError where the Hub cannot be reached.
        """
        if str(source) == BUNDLED:
            source = Path(str(files("earthvlm") / "bundled" / "embeddings"))
        options = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        snapshot = fetch(source, DATASET_FILES, revision, repo_type="dataset", **options)
        paths = dataset_files(snapshot.folder)
        provenance = find_shared_provenance(paths)
        if count_rows(paths) < MAPPED_FROM:
            table, _ = read_embedding_dataset(snapshot.folder)
        else:
            table = open_stored(snapshot.folder)
        index = cls(table, provenance, snapshot.folder, engine)
        index.commit = snapshot.revision
        return index

    @classmethod
    def build(
        cls,
        folder: str | Path,
        scenes: Sequence[Scene],
        bridge: OlmoEarthVLMBridge,
        *,
        bridge_id: str,
        splits: Sequence[str] | None = None,
        sources: Sequence[str | None] | None = None,
        batch_size: int = 16,
        report: Callable[[int, int], None] | None = None,
    ) -> SceneIndex:
        """Caption and embed scenes with a bridge, write them as a dataset, and open it.

        A scene's name becomes its image_id, "scenes" its split where none is given. `report` is
        called with how many are done and how many there are. Raises ValueError where there are no
        scenes, and for names that are given twice or are no file names.
        """
        folder = Path(folder)
        check_names([scene.name for scene in scenes])
        rows = make_rows(
            folder,
            scenes,
            bridge,
            splits=splits,
            sources=sources,
            batch_size=batch_size,
            report=report,
        )
        write_embedding_dataset(folder, rows, bridge_id, bridge.revision)
        return cls.from_pretrained(folder)

    def add(
        self,
        scenes: Sequence[Scene],
        bridge: OlmoEarthVLMBridge,
        *,
        splits: Sequence[str] | None = None,
        sources: Sequence[str | None] | None = None,
        captions: bool = True,
        batch_size: int = 16,
        report: Callable[[int, int], None] | None = None,
    ) -> SceneIndex:
        """Embed scenes, write them into this dataset's folder as one more file, and open it anew.

        See `build`; bridge: the one that made this dataset; captions: whether it describes them.
        Raises ValueError for another bridge, and for names that are given twice, are there already
        or are no file names.
        """
        check_bridge(self.provenance, bridge)
        names = [scene.name for scene in scenes]
        check_names(names)
        with locked(self.folder):
            # Read anew: others may have added scenes since this index was opened.
            there = read_image_ids(self.folder).intersection(names)
            if there:
                raise ValueError(
                    f"this dataset has a scene {min(there)!r} already; give the new one another "
                    "name"
                )
            rows = make_rows(
                self.folder,
                scenes,
                bridge,
                splits=splits,
                sources=sources,
                captions=captions,
                batch_size=batch_size,
                report=report,
            )
            made_by = self.provenance
            write_embedding_dataset(
                self.folder,
                rows,
                made_by.bridge_id,
                made_by.bridge_revision,
                name=next_part(self.folder),
            )
        return type(self).from_pretrained(self.folder)

    def save(self, folder: str | Path) -> None:
        """Copy the dataset into a folder, with the files it is mapped from; scene files too.

        Whoever opens the copy need not make them again. Raises ValueError where the folder has
        Parquet files already, which would become part of the copy.
        """
        scene_files = filter(None, self.table.column("scene_file").to_pylist())
        copy_dataset(self.folder, Path(folder), scene_files)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def summary(self) -> str:
        """One line: how many scenes, and which bridge embedded them."""
        made_by = self.provenance
        fetched = "" if self.commit == LOCAL_REVISION else f"; commit {self.commit[:7]}"
        return (
            f"{len(self):,}, embedded by {made_by.bridge_id} (revision "
            f"{made_by.bridge_revision}){fetched}"
        )

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are, in alphabetical order."""
        return self.table.distinct("split")

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources there are, in alphabetical order."""
        return self.table.distinct("source")

    def browse(
        self, split: str | None = None, k: int | None = None, *, where: SceneFilter | None = None
    ) -> list[SceneResult]:
        """Return the first k scenes of a split that fit `where`, or all, in the dataset's order."""
        selected = self.table.select(_join_filters(split, where))
        rows = np.arange(len(self)) if selected is None else np.flatnonzero(selected)
        return self.browse_rows(rows[:k])

    def browse_rows(self, rows: Iterable[int]) -> list[SceneResult]:
        """Return the scenes in some rows of the dataset, which count from 0."""
        return [self._get_result(int(row)) for row in rows]

    def get(self, image_id: str) -> SceneResult:
        """Return a scene by its image_id. Raises ValueError where there is none."""
        return self._get_result(self.table.find(image_id))

    def search(
        self,
        query: Query | Sequence[Query],
        k: int = 12,
        split: str | None = None,
        bridge: OlmoEarthVLMBridge | None = None,
        *,
        where: SceneFilter | None = None,
    ) -> SearchResults:
        """Return the k scenes nearest to a query, best first, among those that fit `where`.

        query: words, a scene, a result of this index ("more like this", by its stored vector), or a
            vector `[384]` of the bridge that made this dataset; or several of them, as in
            `["a river -city", scene]`. A minus before a word, or a phrase in quotes, moves the
            words away from it. A scene needs that bridge.

        Words are compared with captions and with scene embeddings, examples (the mean of them) with
        scene embeddings. Each comparison ranks the scenes; the ranks are joined by `fuse_ranks`,
        those beyond RANK_DEPTH left out. Ties go to the greater similarity, then to the image_id
        that sorts first. A result that is given as the query is not found again. Where the engine
        does not answer, the table at hand is searched, and the results' `warning` says so.

        Raises ValueError for an empty or overlong query, a k below 1, a filter that asks for what
        there is not, and a query that another bridge or sentence model would embed.
        """
        if k < 1:
            raise ValueError(f"k is how many scenes to return, at least 1; {k} was given")
        where = _join_filters(split, where)
        self.table.check(where)
        queries = list(query) if isinstance(query, list | tuple) else [query]
        comparisons = make_query_vectors(queries, self.table, self.provenance, bridge)
        given = [self.table.find(q.image_id) for q in queries if isinstance(q, SceneResult)]
        # Where there is one ranking, nothing beyond the k-th can be found.
        depth = (k if len(comparisons) == 1 else max(k, RANK_DEPTH)) + len(given)
        rankings = [self._rank(each, depth, where) for each in comparisons]
        found = join_hits([hits for hits, _ in rankings], given)
        names = self.table.column("image_id").take(pa.array(found.rows)).to_pylist()
        total = np.nansum(found.similarities, axis=0)
        order = np.lexsort((np.array(names), -total, -found.scores))[:k]
        results = [
            self._get_result(
                int(found.rows[place]),
                found.scores[place],
                {
                    each.name: (self._measure(each, int(found.rows[place])), rank[place])
                    for each, rank in zip(comparisons, found.ranks, strict=True)
                },
            )
            for place in order
        ]
        return SearchResults(results, next((text for _, text in rankings if text), ""))

    def _rank(self, comparison: QueryVector, depth: int, where: SceneFilter) -> tuple[Hits, str]:
        """Return the nearest rows, and a warning where the engine did not answer."""
        wanted = comparison.space, comparison.vector[None], depth, where
        try:
            return self.engine.search(*wanted)[0], ""
        except ConnectionError as error:
            return self._at_hand.search(*wanted)[0], f"{error}; what is at hand was searched."

    def _measure(self, comparison: QueryVector, row: int) -> float:
        # Of a row that one ranking did not reach, too.
        similarity = self.table.vectors(comparison.space)[row] @ comparison.vector
        return float(np.round(similarity, SIMILARITY_DECIMALS))

    def _get_result(
        self,
        row: int,
        score: float = 0.0,
        compared: Mapping[str, tuple[float, float]] | None = None,
    ) -> SceneResult:
        return SceneResult.of_row(self.table.read(row), self.folder, score, compared)


def _join_filters(split: str | None, where: SceneFilter | None) -> SceneFilter:
    where = where or SceneFilter()
    return where if split is None else replace(where, split=split)
