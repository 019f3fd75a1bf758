"""Rows of an embedding dataset, scenes and a bridge, made by seed, for tests of search."""

from __future__ import annotations

import numpy as np
from PIL import Image

from earthvlm.models.text_encoder import SENTENCE_DIM, SENTENCE_MODEL_ID, SENTENCE_MODEL_REVISION
from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.scene import Scene

MADE_BY = ("owner/bridge", "abc123", SENTENCE_MODEL_ID, SENTENCE_MODEL_REVISION)


def make_vectors(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, SENTENCE_DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_rows(count: int) -> list[dict]:
    scene_vectors, caption_vectors = make_vectors(count, 1), make_vectors(count, 2)
    return [
        {
            "image_id": f"tile_{index:02d}",
            "caption": f"Caption {index}.",
            "split": "examples" if index % 3 == 0 else "tiles",
            "longitude": 12.0 + index,
            "latitude": 52.0,
            "thumbnail": Image.new("RGB", (24, 24), (index, 100, 200)),
            "scene_embedding": scene_vectors[index],
            "caption_embedding": caption_vectors[index],
            "source": "A satellite.",
        }
        for index in range(count)
    ]


def make_scene(name: str, seed: int = 0) -> Scene:
    values = np.random.default_rng(seed).uniform(100, 4000, (16, 16, 12)).astype(np.float32)
    return Scene.from_array(values, bands=BANDS, longitude=12.5, latitude=52.4, name=name)


class TinyBridge:
    """Stands for a bridge: embeds a scene by its mean reflectance, captions it by its name."""

    revision = "abc123"

    def generate(self, scenes, prompt):
        assert prompt == "Describe this scene."
        return ["" if scene.name == "silent" else f"This is {scene.name}." for scene in scenes]

    def embed(self, scenes):
        seeds = [int(np.nanmean(scene.reflectance) * 100) for scene in scenes]
        return np.concatenate([make_vectors(1, seed) for seed in seeds])


def get_ids(results) -> list[str]:
    return [result.image_id for result in results]


def mix_vectors(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    mixed = share * first + (1 - share) * second
    return mixed / np.linalg.norm(mixed)
