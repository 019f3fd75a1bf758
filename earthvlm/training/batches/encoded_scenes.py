"""Training data that is encoded once: pooled features of scenes, and feature mosaics of crops.

The search head reads two pooled vectors per scene. While everything before it is frozen, a batch
of hundreds of scenes to contrast takes milliseconds. The queries learn larger scenes from mosaics
of encoded crops, without running the encoder again.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from earthvlm.data.labels import SceneLabels
from earthvlm.data.questions.scene_sentences import search_sentence
from earthvlm.models.olmoearth import SceneTokens, join_tokens
from earthvlm.training.batches.sampler import Layout, SampleKey
from earthvlm.training.batches.samples import Batch

SINGLE: Layout = (1, 1, 1)
# Layouts with their shares: of the crops that are encoded, and of the mosaics that join crops.
CROPS: dict[Layout, float] = {(1, 1, 1): 0.45, (2, 2, 1): 0.45, (2, 2, 0.75): 0.1}
MOSAICS: dict[Layout, float] = {
    (1, 1, 1): 0.5,
    (1, 2, 1): 0.08,
    (2, 1, 1): 0.08,
    (2, 2, 1): 0.16,
    (3, 3, 1): 0.18,
}
# Larger mosaics are subsampled to this many tokens, which preserves shares on average.
MAX_TOKENS = 512


@dataclass(frozen=True)
class EncodedScene:
    """The pooled features of a scene and its sentence.

    mean_query: `[D_text]`. mean_token: `[D_olmo]`. sentence_embedding: `[D_sentence]`.
    """

    mean_query: Tensor
    mean_token: Tensor
    sentence: str
    sentence_embedding: Tensor


class EncodedScenes(Dataset):
    """Pooled scenes by `SampleKey`.

    labels: of each scene, None where it has only captions.
    """

    def __init__(
        self, scenes: Sequence[EncodedScene], labels: Sequence[SceneLabels | None]
    ) -> None:
        self.scenes, self.labels = scenes, labels

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: SampleKey) -> EncodedScene:
        return self.scenes[key.index]


def collate_encoded(scenes: Sequence[EncodedScene]) -> Batch:
    """Join pooled scenes into a batch for the search head."""
    return Batch(
        bridge=None,
        scenes=[],
        labels=None,
        sentences=[scene.sentence for scene in scenes],
        pooled=(
            torch.stack([scene.mean_query for scene in scenes]),
            torch.stack([scene.mean_token for scene in scenes]),
        ),
        sentence_embeddings=torch.stack([scene.sentence_embedding for scene in scenes]),
    )


@dataclass(frozen=True)
class EncodedCrop:
    """The encoder's tokens of a crop, `[rows, columns, band sets, D_olmo]`, and its labels."""

    tokens: Tensor
    labels: SceneLabels


class FeatureMosaics(Dataset):
    """Scenes joined from encoded crops, with their joined labels and a sentence."""

    def __init__(self, crops: Sequence[EncodedCrop], seed: int) -> None:
        self.crops, self.seed = crops, seed
        # Only crops of full size are joined.
        largest = max(crop.tokens.shape[:2] for crop in crops)
        self.full = [i for i, crop in enumerate(crops) if crop.tokens.shape[:2] == largest]
        self.by_dominant: dict[str, list[int]] = defaultdict(list)
        for index in self.full:
            self.by_dominant[crops[index].labels.dominant].append(index)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, key: SampleKey) -> tuple[EncodedCrop, str]:
        numbers = np.random.default_rng((self.seed, key.epoch, key.index))
        rows, columns, _ = key.layout or SINGLE
        scene = self.crops[key.index]
        if rows * columns > 1:
            first = self.crops[self.full[key.index % len(self.full)]]
            same = self.by_dominant[first.labels.dominant]
            # The share of crops with the same dominant land cover: none, about half, or all.
            share = numbers.choice([0.0, 0.5, 1.0])
            others = [
                self.crops[numbers.choice(same if numbers.random() < share else self.full)]
                for _ in range(rows * columns - 1)
            ]
            pieces = [first, *others]
            numbers.shuffle(pieces)
            grid = [pieces[r * columns : (r + 1) * columns] for r in range(rows)]
            scene = EncodedCrop(
                torch.cat([torch.cat([c.tokens for c in row], dim=1) for row in grid]),
                SceneLabels.mosaic([[c.labels for c in row] for row in grid]),
            )
        rng = random.Random(int(numbers.integers(2**63)))
        return scene, search_sentence(scene.labels, rng)


def collate_mosaics(samples: Sequence[tuple[EncodedCrop, str]]) -> Batch:
    """Join feature mosaics into a batch; large ones keep MAX_TOKENS random tokens."""
    tokens = join_tokens([scene.tokens for scene, _ in samples])
    if tokens.tokens.shape[1] > MAX_TOKENS:
        kept = torch.randperm(tokens.tokens.shape[1])[:MAX_TOKENS]
        tokens = SceneTokens(
            tokens.tokens[:, kept], tokens.positions[:, kept], tokens.mask[:, kept], tokens.grids
        )
    return Batch(
        bridge=None,
        scenes=[],
        labels=[scene.labels for scene, _ in samples],
        sentences=[sentence for _, sentence in samples],
        tokens=tokens,
    )
