"""Measure scenes embedded a second, next to OlmoEarth's package driven directly.

python -m benchmarks.embedding

The package is driven as in its own example: scenes are normalised and encoded one by one with its
default settings, and its tokens go through the same queries and head. Embedding with the answers'
patch size shows what a patch size for embedding gains. Ways take turns.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.constants import Modality
from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.datatypes import MaskedOlmoEarthSample

from benchmarks.report import report
from earthvlm import OlmoEarthVLMBridge, Scene
from earthvlm.models.olmoearth import DEFAULT_TIMESTAMP, join_tokens
from earthvlm.scenes.bands import BANDS

SCENES = 64
SIDE = 64
REPEATS = 5


def main() -> None:
    bridge = OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu")
    rng = np.random.default_rng(0)
    scenes = [
        Scene.from_array(rng.uniform(100, 4000, (SIDE, SIDE, 12)).astype(np.float32), BANDS)
        for _ in range(SCENES)
    ]
    ways = {
        "in batches": lambda: bridge.embed(scenes),
        "one by one": lambda: np.concatenate([bridge.embed([scene]) for scene in scenes]),
        "the package directly": lambda: np.concatenate(
            [embed_by_package(bridge, scene) for scene in scenes]
        ),
        "in batches, in patches to talk about": lambda: embed_as_talked_about(bridge, scenes),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(REPEATS + 1):
        made = {}
        for name, way in ways.items():
            start = time.perf_counter()
            made[name] = way()
            if repeat:  # the first of each is not counted
                rates[name].append(SCENES / (time.perf_counter() - start))
    report("embedding", rates, f"scenes/s ({SIDE} x {SIDE})")
    ratios = {
        f"in batches against {name}": [a / b for a, b in zip(*pair, strict=True)]
        for name, pair in ((n, (rates["in batches"], rates[n])) for n in list(ways)[1:])
    }
    report("embedding_ratio", ratios, "times")
    apart = np.abs(made["in batches"] - made["the package directly"]).max()
    report("embedding_difference", {"largest of any number": [1e3 * float(apart)]}, "thousandths")


def embed_as_talked_about(bridge: OlmoEarthVLMBridge, scenes: list[Scene]) -> np.ndarray:
    """Scenes' embeddings `[B, 384]` from patches as fine as those that answers are read off."""
    config = bridge.config
    bridge.set_patch_sizes(config.patch_size, config.patch_size)
    try:
        return bridge.embed(scenes)
    finally:
        bridge.set_patch_sizes(config.patch_size, config.embedding_patch_size)


@torch.inference_mode()
def embed_by_package(bridge: OlmoEarthVLMBridge, scene: Scene) -> np.ndarray:
    """A scene's embedding `[1, 384]` without this project's way to the encoder."""
    encoder = bridge.encoder
    # Bands that the encoder never saw are missing to it.
    reflectance = np.where(np.isin(BANDS, encoder.bands), scene.reflectance, np.nan)
    pixels = encoder.normalizer.normalize(Modality.SENTINEL2_L2A, reflectance)
    sample = MaskedOlmoEarthSample(
        timestamps=torch.tensor([[DEFAULT_TIMESTAMP]]),
        sentinel2_l2a=torch.from_numpy(pixels.astype(np.float32))[None, :, :, None],
        sentinel2_l2a_mask=torch.zeros(1, *pixels.shape[:2], 1, encoder.band_sets),
    )
    output = encoder.network(sample, patch_size=bridge.config.embedding_patch_size)
    tokens = join_tokens([output["tokens_and_masks"].sentinel2_l2a[0, :, :, 0]])
    return bridge.head(bridge.resample(tokens), tokens.tokens, tokens.mask).numpy()


if __name__ == "__main__":
    main()
