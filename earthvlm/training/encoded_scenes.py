"""What the search head reads of scenes that were seen once, beside the words to find them by.

The head is small and reads two means a scene. Once what comes before it stays as it is, a batch may
hold hundreds of scenes, each to be told from all others, and takes milliseconds.
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
from earthvlm.data.question_answering import search_sentence
from earthvlm.models.olmoearth import SceneTokens, join_tokens
from earthvlm.training.sampler import SampleKey
from earthvlm.training.samples import Batch


@dataclass(frozen=True)
class EncodedScene:
    """mean_query `[D_text]`, mean_token `[D_olmo]`; sentence, and where it lies: `[D_sentence]`."""

    mean_query: Tensor
    mean_token: Tensor
    sentence: str
    sentence_embedding: Tensor


class EncodedScenes(Dataset):
    """Scenes as they were pooled, in the order that their sampler draws.

    labels: what each scene holds, None where only its caption is known.
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
    """A batch of scenes of which the search head alone is to learn."""
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


# How tiles become the crops that are encoded, and crops become scenes (rows, columns, zoom).
CROPS = {(1, 1, 1): 0.45, (2, 2, 1): 0.45, (2, 2, 0.75): 0.1}


MOSAICS = {(1, 1, 1): 0.5, (1, 2, 1): 0.08, (2, 1, 1): 0.08, (2, 2, 1): 0.16, (3, 3, 1): 0.18}


# A larger scene is learned from so many of its tokens, drawn at random: shares stay the same.
MOST_TOKENS = 512


@dataclass(frozen=True)
class EncodedCrop:
    """tokens: `[rows, columns, band sets, D]` of one crop. labels: what it holds."""

    tokens: Tensor
    labels: SceneLabels


class FeatureMosaics(Dataset):
    """Scenes of encoded crops, with the labels that are true of them and a sentence."""

    def __init__(self, crops: Sequence[EncodedCrop], seed: int) -> None:
        self.crops, self.seed = crops, seed
        # Scenes of several crops are of full ones.
        largest = max(crop.tokens.shape[:2] for crop in crops)
        self.full = [i for i, crop in enumerate(crops) if crop.tokens.shape[:2] == largest]
        self.alike: dict[str, list[int]] = defaultdict(list)
        for index in self.full:
            self.alike[crops[index].labels.dominant].append(index)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, key: SampleKey) -> tuple[EncodedCrop, str]:
        numbers = np.random.default_rng((self.seed, key.epoch, key.index))
        rows, columns, _ = key.layout
        scene = self.crops[key.index]
        if rows * columns > 1:
            first = self.crops[self.full[key.index % len(self.full)]]
            kind = self.alike[first.labels.dominant]
            # Some scenes are of one kind, some of any, some of both.
            odds = numbers.choice([0.0, 0.5, 1.0])
            others = [
                self.crops[numbers.choice(kind if numbers.random() < odds else self.full)]
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
    """A batch of scenes whose tokens are known already."""
    tokens = join_tokens([scene.tokens for scene, _ in samples])
    if tokens.tokens.shape[1] > MOST_TOKENS:
        kept = torch.randperm(tokens.tokens.shape[1])[:MOST_TOKENS]
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
