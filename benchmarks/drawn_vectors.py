"""Vectors for benchmarks of search, drawn around the embeddings of real scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

DIMENSIONS = 384
BLOCK = 65_536
# How far a drawn vector lies from a scene's, in deviations of all scenes. At 0.1 the tenth nearest
# of 3,374 drawn ones is as near (0.987 in the median) as that of as many real tiles (0.990).
SPREAD = 0.1
CAPTIONS = 1500  # enough that what is drawn around them differs in as many directions

WORDS = {
    "what": ("open water", "dense forest", "fields", "a town", "bare soil", "a wetland", "snow"),
    "beside": ("a river", "roads", "clouds", "meadows", "a village", "orchards", "factories"),
}


def embed_words() -> np.ndarray:
    """Embeddings `[N, 384]` of what somebody may search for."""
    from earthvlm.models.text_encoder import embed_sentences

    what, beside = WORDS.values()
    return np.array(embed_sentences([f"{a} beside {b}" for a in what for b in beside]), np.float32)


def embed_scenes(data_dir: Path | None) -> np.ndarray:
    """Embeddings `[N, 384]` of real scenes: all tiles of a dataset, or the bundled scenes."""
    if data_dir is None:
        from earthvlm.search.index import SceneIndex

        return SceneIndex.from_pretrained("bundled").table.vectors("scene")
    from earthvlm import OlmoEarthVLMBridge
    from earthvlm.data.chatearthnet.dataset import ChatEarthNet

    splits = [ChatEarthNet(data_dir, split) for split in ("train", "val")]
    scenes = [tiles.read(tile) for tiles in splits for tile in tiles]
    return OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu").embed(scenes)


def embed_captions(data_dir: Path | None) -> np.ndarray:
    """Embeddings `[N, 384]` of captions: of some tiles of a dataset, or of the bundled scenes."""
    from earthvlm.models.text_encoder import embed_sentences

    if data_dir is None:
        from earthvlm.search.index import SceneIndex

        return SceneIndex.from_pretrained("bundled").table.vectors("caption")
    from earthvlm.data.chatearthnet.dataset import ChatEarthNet

    tiles = ChatEarthNet(data_dir, "train").tiles
    some = tiles[:: max(1, len(tiles) // CAPTIONS)][:CAPTIONS]
    return np.array(embed_sentences([tile.captions[0] for tile in some]), np.float32)


def draw_vectors(path: Path, rows: int, seed: int, real: np.ndarray) -> None:
    """Write float32 `[rows, 384]` of unit length, which lie as unevenly as real ones `[N, 384]`.

    Each is one of those, moved by a normal deviate with the covariance of all, which is drawing
    from a kernel estimate of their density.
    """
    rng = np.random.default_rng(seed)
    _, sizes, directions = np.linalg.svd(real - real.mean(axis=0), full_matrices=False)
    deviations = SPREAD / np.sqrt(len(real)) * sizes[:, None] * directions
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (rows, DIMENSIONS))
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        moves = rng.standard_normal((count, len(deviations)), dtype=np.float32)
        drawn = real[rng.integers(0, len(real), count)] + moves @ deviations
        vectors[start : start + count] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    vectors.flush()


def find_reference(vectors: np.ndarray, queries: np.ndarray, nearest: int) -> np.ndarray:
    """The cosine of the last of the `nearest` rows to each query, by float64 arithmetic."""
    best = np.full((len(queries), nearest), -2.0)
    wanted = queries.astype(np.float64)
    for start in range(0, len(vectors), BLOCK):
        found = wanted @ vectors[start : start + BLOCK].astype(np.float64).T
        both = np.concatenate([best, found], axis=1)
        best = np.partition(both, both.shape[1] - nearest, axis=1)[:, -nearest:]
    return best.min(axis=1)
