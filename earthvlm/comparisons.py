"""What a search compares: its words and examples as vectors, each with a space of an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthvlm.embedding_schema import Provenance
from earthvlm.scene import Scene
from earthvlm.scene_result import SceneResult
from earthvlm.scene_table import SceneTable
from earthvlm.search_query import embed_words, read_words
from earthvlm.sentences import SENTENCE_DIM, SENTENCE_MODEL_ID, SENTENCE_MODEL_REVISION

if TYPE_CHECKING:
    from earthvlm.bridge import OlmoEarthVLMBridge

Query = str | Scene | SceneResult | np.ndarray


@dataclass(frozen=True, eq=False)
class Comparison:
    """A vector to compare with those of a space; `name` is what a result calls it."""

    name: str
    space: str
    vector: np.ndarray


def compare_what(
    queries: Sequence[Query],
    table: SceneTable,
    made_by: Provenance,
    bridge: OlmoEarthVLMBridge | None,
) -> list[Comparison]:
    """Embed the parts of a search as the dataset's makers would; see `SceneIndex.search`.

    Raises ValueError for words given twice, for what cannot be embedded, and where others made the
    dataset.
    """
    texts = [query.strip() for query in queries if isinstance(query, str)]
    examples = [
        _embed_example(query, table, made_by, bridge)
        for query in queries
        if not isinstance(query, str)
    ]
    if len(texts) > 1 or not queries:
        raise ValueError("a search has words once, an example, or both; put the words together")
    comparisons = []
    if texts:
        words = _embed_words(texts[0], made_by)
        comparisons = [Comparison(space, space, words) for space in ("caption", "scene")]
    if examples:
        mean = np.mean(examples, axis=0)
        name = "example" if texts else "scene"
        comparisons.append(Comparison(name, "scene", mean / np.linalg.norm(mean)))
    return comparisons


def check_bridge(made_by: Provenance, bridge: OlmoEarthVLMBridge) -> None:
    """Raise ValueError where another bridge made the dataset."""
    if bridge.revision != made_by.bridge_revision:
        raise ValueError(
            f"this dataset was made by bridge {made_by.bridge_id} at revision "
            f"{made_by.bridge_revision}, but the bridge given has revision {bridge.revision}; "
            "load the former, or build the dataset again with the latter"
        )


def _embed_example(
    query: Scene | SceneResult | np.ndarray,
    table: SceneTable,
    made_by: Provenance,
    bridge: OlmoEarthVLMBridge | None,
) -> np.ndarray:
    if isinstance(query, SceneResult):
        query = table.vectors("scene")[table.find(query.image_id)]
    if isinstance(query, Scene):
        query = embed_scene(query, made_by, bridge)
    vector = np.asarray(query, dtype=np.float32)
    length = float(np.linalg.norm(vector))
    if vector.shape != (SENTENCE_DIM,) or not np.isfinite(length) or length == 0:
        raise ValueError(
            f"a query vector has the shape ({SENTENCE_DIM},) and finite values that are not "
            f"all 0; one of shape {vector.shape} and length {length:g} was given"
        )
    return vector / length


def _embed_words(text: str, made_by: Provenance) -> np.ndarray:
    words = read_words(text)
    if (made_by.sentence_model, made_by.sentence_revision) != (
        SENTENCE_MODEL_ID,
        SENTENCE_MODEL_REVISION,
    ):
        raise ValueError(
            f"this dataset's sentence model is {made_by.sentence_model} at revision "
            f"{made_by.sentence_revision}, but words are embedded by {SENTENCE_MODEL_ID} at "
            f"revision {SENTENCE_MODEL_REVISION}; build the dataset again"
        )
    return embed_words(words)


def embed_scene(scene: Scene, made_by: Provenance, bridge: OlmoEarthVLMBridge | None) -> np.ndarray:
    if bridge is None:
        raise ValueError(
            "a search by scene needs the bridge that made this dataset, "
            f"{made_by.bridge_id} at revision {made_by.bridge_revision}; pass it as bridge"
        )
    check_bridge(made_by, bridge)
    return bridge.embed([scene])[0]
