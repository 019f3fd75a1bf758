"""SceneIndex: search an embedding dataset by text, by scenes, or by both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
from earthvlm.embeddings.indexed_images import find_tiles
from earthvlm.embeddings.mmap_store import copy_dataset, open_stored
from earthvlm.embeddings.rows import check_names, make_rows
from earthvlm.embeddings.schema import Provenance
from earthvlm.embeddings.stac import write_collection
from earthvlm.embeddings.table import SceneTable
from earthvlm.scenes.scene import Scene
from earthvlm.search.classification import Classification, classify_vectors
from earthvlm.search.engines.engine import SIMILARITY_DECIMALS, Hits, SearchEngine
from earthvlm.search.engines.exact import ExactEngine
from earthvlm.search.engines.factory import AUTO, make_engine
from earthvlm.search.match import MatchScale, Range
from earthvlm.search.query import (
    Query,
    QueryVector,
    check_bridge,
    hint_at_language,
    make_query_vectors,
)
from earthvlm.search.rank_fusion import join_hits
from earthvlm.search.result import SceneResult, SearchResults
from earthvlm.storage.hub import BUNDLED, LOCAL_REVISION, check_source, fetch

if TYPE_CHECKING:
    from earthvlm.bridge.model import OlmoEarthVLMBridge

__all__ = ["Query", "SceneFilter", "SceneIndex", "SceneResult", "SearchResults"]

# How many ranks of each ranking are fused: a lower rank would add less than 0.001 to a score, the
# first rank adds 0.016.
RANK_DEPTH = 1000
# Datasets of at least this many rows are memory-mapped instead of read.
MAPPED_FROM = 20_000
DATASET_FILES = ("*.parquet", "scenes/*")


class SceneIndex:
    """Searches an embedding dataset by text, by scenes, or by their embeddings."""

    def __init__(
        self,
        table: pa.Table | SceneTable,
        provenance: Provenance,
        folder: str | Path,
        engine: str = AUTO,
    ) -> None:
        """Index a table with EMBEDDING_SCHEMA's columns, whose scene files are in `folder`.

        engine: see `make_engine`.
        """
        self.provenance = provenance
        self.folder = Path(folder)
        self.commit = LOCAL_REVISION  # of the Hub repository it was fetched from
        self.table = SceneTable.from_dataset(table) if isinstance(table, pa.Table) else table
        self.engine: SearchEngine = make_engine(engine, self.table)
        self._fallback = ExactEngine(self.table)  # where the engine's server does not answer
        self._scale = MatchScale(self.table)

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

        A large dataset is memory-mapped from files that are built when it is first opened; see
        `mmap_store`.

        Args:
            source: a folder, the id of a Hub repository, or "bundled".
            revision: of the Hub repository; see `fetch`, also for the three below.
            token: see `fetch`.
            cache_dir: see `fetch`.
            local_files_only: see `fetch`.
            engine: see `make_engine`.

        Raises:
            FileNotFoundError: the folder holds no dataset.
            ValueError: the dataset is damaged; see `read_embedding_dataset`.
            ConnectionError: the Hub cannot be reached.
        """
        if str(source) == BUNDLED:
            source = Path(str(files("earthvlm") / "bundled" / "embeddings"))
        check_source(source)
        snapshot = fetch(
            source,
            DATASET_FILES,
            revision,
            repo_type="dataset",
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
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

        A STAC collection.json is written next to its Parquet file.

        See `make_rows` for the arguments. Raises ValueError for no scenes, and for names that are
        repeated or cannot be file names.
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
        write_collection(folder)
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
        """Embed scenes, append them to this dataset's folder, and return the new index.

        See `make_rows` for the arguments; the bridge is the one that made this dataset. Raises
        ValueError for another bridge, and for names that are repeated, already in the dataset, or
        cannot be file names.
        """
        check_bridge(self.provenance, bridge)
        names = [scene.name for scene in scenes]
        check_names(names)
        with locked(self.folder):
            # From the files: others may have added scenes since this index was opened.
            existing = read_image_ids(self.folder).intersection(names)
            if existing:
                raise ValueError(
                    f"this dataset has a scene {min(existing)!r} already; give the new one another "
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
            write_embedding_dataset(
                self.folder,
                rows,
                self.provenance.bridge_id,
                self.provenance.bridge_revision,
                name=next_part(self.folder),
            )
            write_collection(self.folder)
        return type(self).from_pretrained(self.folder)

    def save(self, folder: str | Path) -> None:
        """Copy the dataset into a folder, with scene files and the files it is mapped from.

        Opening the copy then needs no rebuild. Raises ValueError where the folder already has
        Parquet files, which would become part of the copy.
        """
        scene_files = filter(None, self.table.column("scene_file").to_pylist())
        copy_dataset(self.folder, Path(folder), scene_files)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def summary(self) -> str:
        """One line with the number of scenes and the bridge that embedded them."""
        commit = "" if self.commit == LOCAL_REVISION else f"; commit {self.commit[:7]}"
        return (
            f"{len(self):,}, embedded by {self.provenance.bridge_id} (revision "
            f"{self.provenance.bridge_revision}){commit}"
        )

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits, in alphabetical order."""
        return self.table.distinct("split")

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources, in alphabetical order."""
        return self.table.distinct("source")

    def browse(
        self, split: str | None = None, k: int | None = None, *, where: SceneFilter | None = None
    ) -> SearchResults:
        """Return the first k scenes of a split that match `where`, in the dataset's order."""
        where = _join_filters(split, where)
        selected = self.table.select(where)
        rows = np.arange(len(self)) if selected is None else np.flatnonzero(selected)
        return SearchResults(self.browse_rows(rows[:k]), self.table.describe_left_out(where))

    def browse_rows(self, rows: Iterable[int]) -> list[SceneResult]:
        """Return the scenes in some rows of the dataset, counted from 0."""
        return [self._get_result(int(row)) for row in rows]

    def get(self, image_id: str) -> SceneResult:
        """Return a scene by its image_id. Raises ValueError for an unknown one."""
        return self._get_result(self.table.find(image_id))

    def find_copies(self, path: str | Path) -> list[str]:
        """Return the image_ids of scenes that a file holds: an indexed image, or a scene's file."""
        path = Path(path).absolute()
        copies = find_tiles(self.folder, path)
        if path.is_relative_to(self.folder.absolute()):
            own = path.relative_to(self.folder.absolute()).as_posix()
            row = pc.index(self.table.column("scene_file"), own).as_py()
            if row >= 0:
                copies.append(self.table.column("image_id")[row].as_py())
        return copies

    def search(
        self,
        query: Query | Sequence[Query],
        k: int = 12,
        split: str | None = None,
        bridge: OlmoEarthVLMBridge | None = None,
        *,
        where: SceneFilter | None = None,
        unlike: Sequence[Query] = (),
        left_out: Iterable[str] = (),
    ) -> SearchResults:
        """Return the k scenes nearest to a query, best first, among those that match `where`.

        Text is compared with captions and with scene embeddings, the examples' vector
        (`combine_examples`) with scene embeddings. Each comparison ranks the scenes; `fuse_ranks`
        joins the first RANK_DEPTH of each ranking. Ties are broken by similarity, then by image_id.
        Where the engine's server does not answer, the exact engine searches, with a `warning`.

        Args:
            query: a text, a scene, a result of this index (by its stored vector), a vector `[384]`
                of the bridge that made this dataset, or a list of these, as in
                `["a river -city", scene]`. A minus before a word or a quoted phrase makes it a
                negative term. Results that are part of the query are not returned.
            k: the number of scenes.
            split: see SceneFilter.
            bridge: the one that made this dataset; needed where the query holds a scene.
            where: further conditions.
            unlike: scenes that results should be unlike, in any form but text.
            left_out: image_ids of scenes that are not returned.

        Raises:
            ValueError: the query is empty or too long, k is below 1, no scene has the filter's
                split or source, or other models made the dataset.
        """
        if k < 1:
            raise ValueError(f"k is the number of scenes to return, at least 1; {k} was given")
        where = _join_filters(split, where)
        self.table.check(where)
        queries = [*query] if isinstance(query, list | tuple) else [cast("Query", query)]
        query_vectors = make_query_vectors(queries, self.table, self.provenance, bridge, unlike)
        examples = (each for each in (*queries, *unlike) if isinstance(each, SceneResult))
        given = [self.table.find(name) for name in (*left_out, *(e.image_id for e in examples))]
        # A single ranking is not fused, so its first k scenes are the result.
        depth = (k if len(query_vectors) == 1 else max(k, RANK_DEPTH)) + len(given)
        rankings = [self._rank(each, depth, where) for each in query_vectors]
        found = join_hits([hits for hits, _ in rankings], given)
        names = self.table.column("image_id").take(pa.array(found.rows)).to_pylist()
        total = np.nansum(found.similarities, axis=0)
        order = np.lexsort((np.array(names), -total, -found.scores))[:k]
        ranges = [self._scale.measure(each.vector, each.full) for each in query_vectors]
        compared = list(zip(query_vectors, ranges, strict=True))
        results = [
            self._describe(
                int(found.rows[place]), found.scores[place], found.ranks[:, place], compared
            )
            for place in order
        ]
        unanswered = next((warning for _, warning in rankings if warning), "")
        hints = (unanswered, hint_at_language(queries), self.table.describe_left_out(where))
        return SearchResults(results, " ".join(filter(None, hints)))

    def classify(self, labels: Mapping[str, str]) -> Classification:
        """Classify all scenes from labels of a few, by image_id, with a linear probe.

        Raises ValueError for an unknown image_id, and as `classify_vectors` does.
        """
        rows = {self.table.find(image_id): label for image_id, label in labels.items()}
        image_ids = self.table.column("image_id").to_pylist()
        return classify_vectors(image_ids, self.table.vectors("scene"), rows)

    def _rank(self, query: QueryVector, depth: int, where: SceneFilter) -> tuple[Hits, str]:
        """Return the nearest rows, and a warning where the engine did not answer."""
        arguments = query.space, query.vector[None], depth, where
        try:
            return self.engine.search(*arguments)[0], ""
        except ConnectionError as error:
            hits = self._fallback.search(*arguments)[0]
            return hits, f"{error}; the exact engine searched instead."

    def _measure(self, query: QueryVector, row: int) -> float:
        # Also for rows that are not in every ranking.
        similarity = self.table.vectors(query.space)[row] @ query.vector
        return float(np.round(similarity, SIMILARITY_DECIMALS))

    def _describe(
        self, row: int, score: float, ranks: np.ndarray, queries: list[tuple[QueryVector, Range]]
    ) -> SceneResult:
        """Return a row as a result, with its similarity to each query vector and its match."""
        compared, placed = {}, []
        for (query, match_range), rank in zip(queries, ranks, strict=True):
            similarity = self._measure(query, row)
            compared[query.name] = (similarity, rank)
            if not np.isnan(similarity):
                placed.append(match_range.place(similarity))
        match = float(np.mean(placed)) if placed else None
        return self._get_result(row, score, compared, match)

    def _get_result(
        self,
        row: int,
        score: float = 0.0,
        compared: Mapping[str, tuple[float, float]] | None = None,
        match: float | None = None,
    ) -> SceneResult:
        return SceneResult.of_row(self.table.read(row), self.folder, score, compared, match)


def _join_filters(split: str | None, where: SceneFilter | None) -> SceneFilter:
    where = where or SceneFilter()
    return where if split is None else replace(where, split=split)
