"""What each query should say, where facts are known: a word's embedding, or a number's.

A language model reads words. Taught to write down what it gathered as the model's own word
embeddings ("tree cover", 70, "water", 20, ... for the scene and each of its quarters), the queries
can be read from the first step on; the language model then learns to answer from them, which takes
far fewer examples than learning to read an unknown code. Later training may move them freely.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from earthvlm.conversations import HIDDEN
from earthvlm.facts import QUARTERS, SCENE_NAMES, SceneFacts
from earthvlm.language import LanguageModel

SCENE_RANKS = 5
QUARTER_RANKS = 2
# Of a number's digits the first counts most, so that 50 and 5 differ.
DIGIT_WEIGHTS = (1.0, 0.6, 0.3)
SMALLEST_SHARE = 0.025


class SoftWords(nn.Module):
    """Targets for queries, from a language model's own embeddings; nothing in it is trained."""

    def __init__(self, language: LanguageModel, num_queries: int) -> None:
        super().__init__()
        self.tokenizer = language.tokenizer
        self.num_queries = num_queries
        words = language.model.get_input_embeddings().weight.detach().float().cpu()
        self.scale = words.std().item()
        self.embeddings = words
        self.known: dict[str, Tensor] = {}

    def forward(self, queries: Tensor, facts: Sequence[SceneFacts]) -> Tensor:
        """Mean squared distance of queries `[B, Q, D]` to their words, 1 being no better than 0."""
        written = [self.write(f)[: self.num_queries] for f in facts]
        targets = torch.stack([torch.stack([self._embed(w) for w in words]) for words in written])
        told = torch.tensor([[w is not None for w in words] for words in written])
        distance = (queries[:, : targets.shape[1]].float() - targets.to(queries)).square().mean(-1)
        told = told.to(distance)
        return (distance * told).sum() / told.sum() / self.scale**2

    @staticmethod
    def write(facts: SceneFacts) -> list[str | None]:
        """The words of the queries in their order; None where the facts do not tell."""
        words: list[str | None] = _ranked(facts, SCENE_RANKS)
        for name in QUARTERS:
            words += _ranked(facts.quarter(name), QUARTER_RANKS)
        words += [_percent(facts.cloud_share), _percent(facts.haze_share)]
        return [*words, SCENE_NAMES.get(facts.scene_class or "")]

    def _embed(self, word: str | None) -> Tensor:
        if word is None:
            return torch.zeros(self.embeddings.shape[1])
        if word not in self.known:
            ids = self.tokenizer(word if word.isdigit() else f" {word}").input_ids
            weights = DIGIT_WEIGHTS if word.isdigit() else (1.0,) * len(ids)
            mixed = sum(w * self.embeddings[i] for w, i in zip(weights, ids, strict=False))
            self.known[word] = mixed / mixed.std() * self.scale
        return self.known[word]


def _ranked(facts: SceneFacts, ranks: int) -> list[str | None]:
    """The largest land covers with their shares; what cloud hides is cloud."""
    if facts.cloud_share > HIDDEN:
        return ["cloud", _percent(1.0)] + ["nothing", _percent(0.0)] * (ranks - 1)
    words: list[str | None] = []
    for cover, share in list(facts.shares.items())[:ranks]:
        seen = share > SMALLEST_SHARE
        words += [cover if seen else "nothing", _percent(share if seen else 0.0)]
    return words


def _percent(share: float) -> str:
    return f"{5 * round(20 * share):02d}"
