"""What the search head reads of scenes that were seen once, beside the words to find them by.

The head is small and reads two means a scene. Once what comes before it stays as it is, a batch may
hold hundreds of scenes, each to be told from all others, and takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from earthvlm.facts import SceneFacts
from earthvlm.training_data import Batch, SampleKey


@dataclass(frozen=True)
class PooledScene:
    """mean_query `[D_text]`, mean_token `[D_olmo]`; sentence, and where it lies: `[D_sentence]`."""

    mean_query: Tensor
    mean_token: Tensor
    sentence: str
    sentence_embedding: Tensor


class PooledScenes(Dataset):
    """Scenes as they were pooled, in the order that their sampler draws.

    facts: what each scene holds, None where only its caption is known.
    """

    def __init__(self, scenes: Sequence[PooledScene], facts: Sequence[SceneFacts | None]) -> None:
        self.scenes, self.facts = scenes, facts

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: SampleKey) -> PooledScene:
        return self.scenes[key.index]


def collate_pooled(scenes: Sequence[PooledScene]) -> Batch:
    """A batch of scenes of which the search head alone is to learn."""
    return Batch(
        bridge=None,
        scenes=[],
        facts=None,
        sentences=[scene.sentence for scene in scenes],
        pooled=(
            torch.stack([scene.mean_query for scene in scenes]),
            torch.stack([scene.mean_token for scene in scenes]),
        ),
        sentence_embeddings=torch.stack([scene.sentence_embedding for scene in scenes]),
    )
