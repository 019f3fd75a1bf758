"""Scenes for conversations whose land cover the bridge's own segmentation head maps.

The head was trained before. Its map stands in the prompt's context, as it will for users, mistakes
included. Where labels of pixels leave several covers open, the likeliest of those is the truth that
answers follow.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.bridge.segmentation import Segmentation, segment_scene
from earthvlm.data.labels import SceneLabels
from earthvlm.data.pixel_labels import PixelLabels
from earthvlm.scenes.land_cover import COVERS, NO_DATA, CoverMap
from earthvlm.scenes.scene import Scene
from earthvlm.storage.tensors import multiplies_bfloat16
from earthvlm.training.batches.pixel_samples import PixelSamples
from earthvlm.training.batches.sampler import SampleKey
from earthvlm.training.batches.samples import place_at_random


class SceneMapper:
    """Maps scenes with copies of a bridge's encoder and head on the CPU, in a worker too.

    Raises ValueError where the bridge has no segmentation head.
    """

    def __init__(self, bridge: OlmoEarthVLMBridge) -> None:
        if bridge.segmentation_head is None:
            raise ValueError(
                "This bridge has no segmentation head: train with --segmentation_epochs."
            )
        self.encoder = copy.deepcopy(bridge.encoder).cpu().eval()
        self.head = copy.deepcopy(bridge.segmentation_head).cpu().eval()

    def state_dict(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the weights of both copies, which a resumed run needs if its encoder trains."""
        return {"encoder": self.encoder.state_dict(), "head": self.head.state_dict()}

    def load_state_dict(self, state: dict[str, dict[str, torch.Tensor]]) -> None:
        """Restore what `state_dict` returned."""
        self.encoder.load_state_dict(state["encoder"])
        self.head.load_state_dict(state["head"])

    def __call__(self, scene: Scene) -> CoverMap:
        """Return the likeliest cover of each pixel."""
        return self.segment(scene).cover_map

    def segment(self, scene: Scene) -> Segmentation:
        """Return the map with its probabilities."""
        in_bfloat16 = multiplies_bfloat16(torch.device("cpu"))  # as when users ask
        return segment_scene(self.encoder, self.head, scene, in_bfloat16)[0]


class MappedScenes:
    """Draws scenes as the segmentation head's training does, with labels for conversations."""

    def __init__(self, pixels: PixelSamples, mapper: SceneMapper) -> None:
        self.pixels, self.mapper = pixels, mapper

    def __call__(self, key: SampleKey) -> tuple[str, Scene, SceneLabels]:
        """Return a scene's name, the scene and its labels."""
        rng = np.random.default_rng((self.pixels.seed, key.epoch, key.index))
        rows, columns, _ = key.layout or (1, 1, 1)
        key = SampleKey(key.epoch, key.index, (rows, columns, 1))
        name, scene, known = self.pixels.draw(key, rng)
        scene = place_at_random(scene, rng)
        return name, scene, label_scene(self.mapper.segment(scene), known)


def label_scene(segmentation: Segmentation, known: PixelLabels) -> SceneLabels:
    """Return labels by the likeliest of the covers that each pixel can be."""
    bits = np.arange(len(COVERS), dtype=np.uint16)[:, None, None]
    allowed = known.possible[None] >> bits & 1 == 1
    classes = np.where(allowed, segmentation.probabilities, -1).argmax(0).astype(np.uint8)
    predicted = segmentation.cover_map
    classes[predicted.classes == NO_DATA] = NO_DATA
    labels = SceneLabels.from_cover_map(CoverMap(classes))
    return replace(labels, predicted_map=predicted)
