"""Embed the words and examples of a search as query vectors, each for one space of an index."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from earthvlm.data.questions.other_languages import seems_english
from earthvlm.embeddings.schema import Provenance
from earthvlm.embeddings.table import SceneTable
from earthvlm.models.text_encoder import SENTENCE_DIM, SENTENCE_MODEL_ID, SENTENCE_MODEL_REVISION
from earthvlm.scenes.scene import Scene
from earthvlm.search.relevance import combine_examples, move_away, sample_background
from earthvlm.search.result import SceneResult

if TYPE_CHECKING:
    from earthvlm.bridge.model import OlmoEarthVLMBridge

# A minus counts only at the start of a word, so that "built-up" and " - " are plain text.
_MINUS = re.compile(r'(?<!\S)-(?:"([^"]+)"|([^\s"-][^\s"]*))')
Query = str | Scene | SceneResult | np.ndarray
MAX_QUERY_CHARACTERS = 2000  # of which the sentence model reads the first 256 word pieces
# How far negative terms move the query, as a share of their component orthogonal to it.
NEGATIVE_SHARE = 0.5


@dataclass(frozen=True)
class Words:
    """What scenes should show, and what they should not show.

    Attributes:
        positive: empty where all terms are negative.
        negative_terms: words and phrases that had a minus.
    """

    positive: str
    negative_terms: tuple[str, ...] = ()


def parse_words(text: str) -> Words:
    """Parse 'river -city -"bare soil"': a minus makes a word or a quoted phrase negative."""
    negative = tuple(phrase or word for phrase, word in _MINUS.findall(text))
    positive = " ".join(_MINUS.sub(" ", text).replace('"', " ").split())
    return Words(positive, negative)


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


def hint_at_language(queries: Sequence[Query]) -> str:
    """Return a sentence where the words of a search seem to be of another language, else ""."""
    if all(seems_english(query) for query in queries if isinstance(query, str)):
        return ""
    return "The words seem not to be English, which alone is understood; search in English."


def embed_words(words: Words) -> np.ndarray:
    """Embed words, moved away from the negative terms: float32 `[384]`, unit length."""
    from earthvlm.models.text_encoder import embed_sentences

    texts = [text for text in (words.positive, *words.negative_terms) if text]
    vectors = embed_sentences(texts)
    if not words.negative_terms:
        return vectors[0]
    negative = vectors[-len(words.negative_terms) :].mean(axis=0)
    if not words.positive:
        return -negative / np.linalg.norm(negative)
    positive = vectors[0]
    # Only the orthogonal component: both are sentences about scenes, and share much.
    orthogonal = negative - (negative @ positive) * positive
    vector = positive - NEGATIVE_SHARE * orthogonal
    return vector / np.linalg.norm(vector)


@dataclass(frozen=True, eq=False)
class QueryVector:
    """A vector to compare with those of a space.

    name: "caption", "scene" or "example", as the attributes of a SceneResult begin. full: the mean
    similarity of the examples that the vector was made from; None for words.
    """

    name: str
    space: str
    vector: np.ndarray
    full: float | None = None


def make_query_vectors(
    queries: Sequence[Query],
    table: SceneTable,
    provenance: Provenance,
    bridge: OlmoEarthVLMBridge | None,
    unlike: Sequence[Query] = (),
) -> list[QueryVector]:
    """Embed the parts of a query with the dataset's own models; see `SceneIndex.search`.

    Raises ValueError for several texts, for a part that cannot be embedded, and where other models
    made the dataset.
    """
    texts = [query.strip() for query in queries if isinstance(query, str)]
    positives, negatives = (
        [_embed_example(q, table, provenance, bridge) for q in given if not isinstance(q, str)]
        for given in (queries, unlike)
    )
    if len(negatives) != len(unlike):
        raise ValueError(
            "unlike takes scenes; to leave out a word, write a minus before it: river -city"
        )
    if len(texts) > 1 or not queries:
        raise ValueError("a search takes one text, examples, or both; join the texts")
    query_vectors = []
    if texts:
        words = _embed_words(texts[0], provenance)
        query_vectors = [QueryVector(space, space, words) for space in ("caption", "scene")]
    others = np.array(negatives, np.float32).reshape(-1, SENTENCE_DIM)
    if positives:
        name = "example" if texts else "scene"
        sample = partial(sample_background, table)
        vector = combine_examples(np.array(positives), others, sample)
        full = float((np.array(positives) @ vector).mean())
        query_vectors.append(QueryVector(name, "scene", vector, full))
    elif negatives:
        vector = move_away(words, others)
        query_vectors[-1] = QueryVector("scene", "scene", vector)
    return query_vectors


def check_bridge(provenance: Provenance, bridge: OlmoEarthVLMBridge) -> None:
    """Raise ValueError where another bridge made the dataset."""
    if bridge.revision != provenance.bridge_revision:
        raise ValueError(
            f"this dataset was made by bridge {provenance.bridge_id} at revision "
            f"{provenance.bridge_revision}, but the bridge given has revision {bridge.revision}; "
            "load the dataset's bridge, or build the dataset again with yours"
        )


def _embed_example(
    query: Scene | SceneResult | np.ndarray,
    table: SceneTable,
    provenance: Provenance,
    bridge: OlmoEarthVLMBridge | None,
) -> np.ndarray:
    if isinstance(query, SceneResult):
        query = table.vectors("scene")[table.find(query.image_id)]
    if isinstance(query, Scene):
        query = embed_scene(query, provenance, bridge)
    vector = np.asarray(query, dtype=np.float32)
    length = float(np.linalg.norm(vector))
    if vector.shape != (SENTENCE_DIM,) or not np.isfinite(length) or length == 0:
        raise ValueError(
            f"a query vector has the shape ({SENTENCE_DIM},) and finite values that are not "
            f"all 0; one of shape {vector.shape} and length {length:g} was given"
        )
    return vector / length


def _embed_words(text: str, provenance: Provenance) -> np.ndarray:
    words = read_words(text)
    if (provenance.sentence_model, provenance.sentence_revision) != (
        SENTENCE_MODEL_ID,
        SENTENCE_MODEL_REVISION,
    ):
        raise ValueError(
            f"this dataset's sentence model is {provenance.sentence_model} at revision "
            f"{provenance.sentence_revision}, but words are embedded by {SENTENCE_MODEL_ID} at "
            f"revision {SENTENCE_MODEL_REVISION}; build the dataset again"
        )
    return embed_words(words)


def embed_scene(
    scene: Scene, provenance: Provenance, bridge: OlmoEarthVLMBridge | None
) -> np.ndarray:
    """The scene's embedding `[384]`, by the bridge that made the dataset."""
    if bridge is None:
        raise ValueError(
            "a search by scene needs the bridge that made this dataset, "
            f"{provenance.bridge_id} at revision {provenance.bridge_revision}; pass it as bridge"
        )
    check_bridge(provenance, bridge)
    return bridge.embed([scene])[0]
