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

PooledScene = tuple[tuple[Tensor, Tensor], str]


@dataclass(frozen=True)
class PooledScenes(Dataset):
    """mean_queries `[N, D_text]`, mean_tokens `[N, D_olmo]`, sentences: one for each scene.

    facts: what each scene holds, None where only its caption is known.
    """

    mean_queries: Tensor
    mean_tokens: Tensor
    sentences: Sequence[str]
    facts: Sequence[SceneFacts | None]

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, key: SampleKey) -> PooledScene:
        index = key.index
        return (self.mean_queries[index], self.mean_tokens[index]), self.sentences[index]


def collate_pooled(samples: Sequence[PooledScene]) -> Batch:
    """A batch of scenes of which the search head alone is to learn."""
    queries, tokens = zip(*(pooled for pooled, _ in samples), strict=True)
    return Batch(
        bridge=None,
        scenes=[],
        facts=None,
        sentences=[sentence for _, sentence in samples],
        pooled=(torch.stack(queries), torch.stack(tokens)),
    )
