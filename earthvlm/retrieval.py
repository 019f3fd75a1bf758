"""SceneIndex: the scenes of an embedding dataset, found by words or by another scene.

Search is exact: a matrix product takes 53 ms for 163,488 scenes on two cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image

from earthvlm.embedding_dataset import (
    EMBEDDING_SCHEMA,
    Provenance,
    decode_thumbnail,
    get_vectors,
    read_embedding_dataset,
    write_embedding_dataset,
)
from earthvlm.hub import BUNDLED, LOCAL_REVISION, fetch
from earthvlm.scene import Scene
from earthvlm.sentences import SENTENCE_DIM, SENTENCE_MODEL_ID, SENTENCE_MODEL_REVISION

if TYPE_CHECKING:
    from earthvlm.bridge import OlmoEarthVLMBridge

__all__ = [
    "EMBEDDING_SCHEMA",
    "Provenance",
    "SceneIndex",
    "SceneResult",
    "fuse_ranks",
    "write_embedding_dataset",
]

# Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
# Learning Methods", SIGIR 2009: a rank r adds 1 / (60 + r).
RANK_FUSION_K = 60
# A matrix product adds in an order that depends on the machine and its threads; similarities that
# agree to this many decimals count as equal, so that a search ranks alike everywhere.
SIMILARITY_DECIMALS = 6
MAX_QUERY_CHARACTERS = 2000  # of which the sentence model reads the first 256 word pieces
DATASET_FILES = ("*.parquet", "scenes/*")
THUMBNAIL_SIZE = 192  # pixels, about the width of a picture in the app's gallery


@dataclass(frozen=True, eq=False)
class SceneResult:
    """A scene of an index. Similarities are cosines, None where nothing was compared.

    score: the sum over the compared embeddings of 1 / (60 + rank); 0 where it was not searched for.
    scene_file: the GeoTIFF with all its bands, None where the dataset does not hold it.
    """

    image_id: str
    caption: str | None
    split: str
    longitude: float | None
    latitude: float | None
    source: str | None
    thumbnail: Image.Image | None
    scene_file: Path | None
    score: float = 0.0
    caption_similarity: float | None = None
    scene_similarity: float | None = None


def fuse_ranks(similarities: Sequence[np.ndarray]) -> np.ndarray:
    """Join rankings of N rows by reciprocal rank fusion (SIGIR 2009, k = 60): float64 `[N]`.

    Each similarity array `[N]` ranks the rows, NaN being absent from that ranking. Equal
    similarities share the better rank, so that rows that say the same score the same.
    """
    scores = np.zeros(similarities[0].shape, dtype=np.float64)
    for similarity in similarities:
        present = ~np.isnan(similarity)
        ascending = np.sort(similarity[present])
        better = ascending.size - np.searchsorted(ascending, similarity[present], side="right")
        scores[present] += 1.0 / (RANK_FUSION_K + 1 + better)
    return scores


class SceneIndex:
    """Exact search in an embedding dataset, by words, by a scene, or by a scene's embedding."""

    def __init__(self, table: pa.Table, provenance: Provenance, folder: str | Path) -> None:
        """Index a table with EMBEDDING_SCHEMA's columns, whose scene files lie in `folder`."""
        self.provenance = provenance
        self.folder = Path(folder)
        self.commit = LOCAL_REVISION  # of the Hub repository it was fetched from
        self._rows = table.drop_columns(["scene_embedding", "caption_embedding"])
        self._scene_vectors = get_vectors(table, "scene_embedding")
        self._caption_vectors = get_vectors(table, "caption_embedding")
        self._split = np.array(table.column("split").to_pylist(), dtype=object)
        image_ids = np.array(table.column("image_id").to_pylist(), dtype=object)
        self._id_order = np.argsort(np.argsort(image_ids))

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> SceneIndex:
        """Open the dataset of a folder, of a Hub repository, or the "bundled" one.

        revision, token, cache_dir, local_files_only: of the Hub repository; see `fetch`.
        Raises what `read_embedding_dataset` does for a folder that holds none, or a damaged one,
        and ConnectionError where the Hub cannot be reached.
        """
        if str(source) == BUNDLED:
            source = Path(str(files("earthvlm") / "bundled" / "embeddings"))
        options = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        snapshot = fetch(source, DATASET_FILES, revision, repo_type="dataset", **options)
        index = cls(*read_embedding_dataset(snapshot.folder), snapshot.folder)
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
        from earthvlm.generation import DEFAULT_PROMPT
        from earthvlm.sentences import embed_sentences

        folder = Path(folder)
        _check_names([scene.name for scene in scenes])
        (folder / "scenes").mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, Any]] = []
        for start in range(0, len(scenes), batch_size):
            batch = list(scenes[start : start + batch_size])
            captions = [caption.strip() for caption in bridge.generate(batch, DEFAULT_PROMPT)]
            scene_vectors, caption_vectors = bridge.embed(batch), embed_sentences(captions)
            for index, scene in enumerate(batch):
                scene_file = f"scenes/{scene.name}.tif"
                scene.save(folder / scene_file)
                caption = captions[index] or None
                row = {
                    "image_id": scene.name,
                    "caption": caption,
                    "split": splits[start + index] if splits else "scenes",
                    "longitude": scene.longitude,
                    "latitude": scene.latitude,
                    "thumbnail": scene.thumbnail(THUMBNAIL_SIZE),
                    "scene_embedding": scene_vectors[index],
                    "caption_embedding": caption_vectors[index] if caption else None,
                    "source": sources[start + index] if sources else None,
                    "scene_file": scene_file,
                }
                rows.append(row)
            if report:
                report(len(rows), len(scenes))
        write_embedding_dataset(folder, rows, bridge_id, bridge.revision)
        return cls.from_pretrained(folder)

    def __len__(self) -> int:
        return self._rows.num_rows

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
        return tuple(sorted(set(self._split)))

    def browse(self, split: str | None = None, k: int | None = None) -> list[SceneResult]:
        """Return the first k scenes of a split, or all of them, in the dataset's order."""
        return [self._get_result(int(row)) for row in np.flatnonzero(self._select(split))[:k]]

    def search(
        self,
        query: str | Scene | np.ndarray,
        k: int = 12,
        split: str | None = None,
        bridge: OlmoEarthVLMBridge | None = None,
    ) -> list[SceneResult]:
        """Return the k scenes nearest to a query, best first.

        Words are compared with captions and with scene embeddings, and the two rankings joined by
        `fuse_ranks`. A scene (with the bridge that made this dataset) or a vector `[384]` that this
        bridge embedded is compared with scene embeddings. Ties go to the greater similarity, then
        to the image_id that sorts first.

        Raises ValueError for an empty or overlong query, a k below 1, a split there is not, and a
        query that another bridge or sentence model would embed.
        """
        if k < 1:
            raise ValueError(f"k is how many scenes to return, at least 1; {k} was given")
        selected = self._select(split)
        vector = self._embed_query(query, bridge)
        scene = _compare(self._scene_vectors, vector, selected)
        caption = np.full_like(scene, np.nan)
        if isinstance(query, str):
            caption = _compare(self._caption_vectors, vector, selected)
        scores = fuse_ranks([scene, caption])
        similarity = np.nansum([scene, caption], axis=0)
        order = np.lexsort((self._id_order, -similarity, -scores))
        found = [int(row) for row in order[:k] if scores[row] > 0]
        return [self._get_result(row, scores[row], caption[row], scene[row]) for row in found]

    def _select(self, split: str | None) -> np.ndarray:
        if split is not None and split not in self.splits:
            raise ValueError(
                f"this dataset has no split {split!r}; choose one of {', '.join(self.splits)}"
            )
        return np.full(len(self), True) if split is None else self._split == split

    def _embed_query(
        self, query: str | Scene | np.ndarray, bridge: OlmoEarthVLMBridge | None
    ) -> np.ndarray:
        if isinstance(query, str):
            return self._embed_words(query.strip())
        if isinstance(query, Scene):
            query = self._embed_scene(query, bridge)
        vector = np.asarray(query, dtype=np.float32)
        length = float(np.linalg.norm(vector))
        if vector.shape != (SENTENCE_DIM,) or not np.isfinite(length) or length == 0:
            raise ValueError(
                f"a query vector has the shape ({SENTENCE_DIM},) and finite values that are not "
                f"all 0; one of shape {vector.shape} and length {length:g} was given"
            )
        return vector / length

    def _embed_words(self, words: str) -> np.ndarray:
        if not words:
            raise ValueError("the search is empty; type some words, as in 'a lake beside forest'")
        if len(words) > MAX_QUERY_CHARACTERS:
            raise ValueError(
                f"the search has {len(words)} characters; at most {MAX_QUERY_CHARACTERS} are read"
            )
        made_by = self.provenance
        if (made_by.sentence_model, made_by.sentence_revision) != (
            SENTENCE_MODEL_ID,
            SENTENCE_MODEL_REVISION,
        ):
            raise ValueError(
                f"this dataset's sentence model is {made_by.sentence_model} at revision "
                f"{made_by.sentence_revision}, but words are embedded by {SENTENCE_MODEL_ID} at "
                f"revision {SENTENCE_MODEL_REVISION}; build the dataset again"
            )
        from earthvlm.sentences import embed_sentences

        return embed_sentences([words])[0]

    def _embed_scene(self, scene: Scene, bridge: OlmoEarthVLMBridge | None) -> np.ndarray:
        made_by = self.provenance
        if bridge is None:
            raise ValueError(
                "a search by scene needs the bridge that made this dataset, "
                f"{made_by.bridge_id} at revision {made_by.bridge_revision}; pass it as bridge"
            )
        if bridge.revision != made_by.bridge_revision:
            raise ValueError(
                f"this dataset was made by bridge {made_by.bridge_id} at revision "
                f"{made_by.bridge_revision}, but the bridge given has revision {bridge.revision}; "
                "load the former, or build the dataset again with the latter"
            )
        return bridge.embed([scene])[0]

    def _get_result(
        self,
        row: int,
        score: float = 0.0,
        caption_similarity: float = np.nan,
        scene_similarity: float = np.nan,
    ) -> SceneResult:
        values = self._rows.slice(row, 1).to_pylist()[0]
        scene_file = self.folder / values["scene_file"] if values["scene_file"] else None
        values["scene_file"] = scene_file if scene_file and scene_file.is_file() else None
        values["thumbnail"] = decode_thumbnail(values["thumbnail"], values["image_id"])
        return SceneResult(
            **values,
            score=float(score),
            caption_similarity=_round(caption_similarity),
            scene_similarity=_round(scene_similarity),
        )


def _compare(vectors: np.ndarray, query: np.ndarray, selected: np.ndarray) -> np.ndarray:
    # NaN where a row has no embedding or is not selected: it takes no part in the ranking.
    similarity = np.round(vectors @ query, SIMILARITY_DECIMALS)
    return np.where(selected, similarity, np.nan)


def _round(similarity: float) -> float | None:
    return None if np.isnan(similarity) else round(float(similarity), SIMILARITY_DECIMALS)


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise ValueError("an index needs at least one scene; none was given")
    for name in names:
        if Path(name).name != name or "\\" in name or not name.isprintable():
            raise ValueError(f"the scene name {name!r} is no file name; give the scene another")
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ValueError(f"two scenes are named {twice!r}; every scene needs a name of its own")
