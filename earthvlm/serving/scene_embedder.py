"""SceneEmbedder: scene embeddings as a transformer of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.models.text_encoder import SENTENCE_DIM
from earthvlm.scenes.scene import Scene
from earthvlm.storage.hub import BUNDLED


class SceneEmbedder(TransformerMixin, BaseEstimator):
    """Embeds scenes or their files, for a pipeline of scikit-learn.

    It learns nothing itself: `make_pipeline(SceneEmbedder(), LogisticRegression())` trains the
    classifier alone.

    Args:
        model: a bridge, or what `OlmoEarthVLMBridge.from_pretrained` takes.
        device: where a bridge is loaded.
        batch_size: scenes at once.
    """

    def __init__(
        self,
        model: str | Path | OlmoEarthVLMBridge = BUNDLED,
        device: str | None = None,
        batch_size: int = 32,
    ) -> None:
        self.model, self.device, self.batch_size = model, device, batch_size

    def fit(self, X: Sequence[Scene | str | Path], y: object = None) -> Self:  # noqa: ARG002
        """Load the bridge; scikit-learn calls this before `transform`."""
        self._load()
        return self

    def transform(self, X: Sequence[Scene | str | Path]) -> np.ndarray:
        """Embed scenes: float32 `[N, 384]`, unit length.

        Raises ValueError or FileNotFoundError for a file that is no usable scene.
        """
        bridge = self._load()
        found = np.zeros((len(X), SENTENCE_DIM), np.float32)
        for start in range(0, len(X), self.batch_size):
            batch = X[start : start + self.batch_size]
            scenes = [each if isinstance(each, Scene) else Scene.open(each) for each in batch]
            found[start : start + len(scenes)] = bridge.embed(scenes, self.batch_size)
        return found

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:  # noqa: ARG002
        """Return the names of the columns."""
        return np.array([f"scene_embedding_{n}" for n in range(SENTENCE_DIM)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> Self:
        return type(self)(**self.get_params(deep=False))  # a copy would copy the bridge

    def _load(self) -> OlmoEarthVLMBridge:
        if isinstance(self.model, OlmoEarthVLMBridge):
            return self.model
        return _load_bridge(str(self.model), self.device)


@lru_cache(maxsize=2)  # because cross-validation makes an embedder for each fold
def _load_bridge(model: str, device: str | None) -> OlmoEarthVLMBridge:
    return OlmoEarthVLMBridge.from_pretrained(model, device)
