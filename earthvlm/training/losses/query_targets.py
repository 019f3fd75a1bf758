"""Auxiliary supervision of the queries: the word or number that each should express.

Where a tile has labels, the queries learn to express them in the language model's own word
embeddings ("tree cover", 70, "water", 20, ... for the scene; then "top left", "water", 60, ... for
each quarter, whose name directs a question to it). The language model can then read the queries
from its first step, which takes far fewer examples than learning to read an unknown code. Later
training may change them freely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from earthvlm.data.labels import QUARTERS, SCENE_NAMES, SceneLabels
from earthvlm.data.questions.scene_sentences import HIDDEN
from earthvlm.models.language.language_model import LanguageModel

Word = str | float | None  # a word, a share from 0 to 1, or unknown
SCENE_RANKS = 4
QUARTER_RANKS = 2
# A share is interpolated between two tenths: 0.67 is three parts "6" and seven parts "7", so that a
# small error in a share is a small error in its embedding.
TENTHS = (*"0123456789", "all")
SMALLEST_SHARE = 0.025


class QueryTargets(nn.Module):
    """Targets for queries from a language model's own embeddings; has no parameters."""

    def __init__(self, language: LanguageModel, num_queries: int) -> None:
        super().__init__()
        self.tokenizer = language.tokenizer
        self.num_queries = num_queries
        words = language.model.get_input_embeddings().weight.detach().float().cpu()
        self.scale = words.std().item()
        self.embeddings = words
        self.cached: dict[str, Tensor] = {}

    def forward(self, queries: Tensor, labels: Sequence[SceneLabels]) -> Tensor:
        """Mean squared distance of queries `[B, Q, D_text]` to their words; zeros would score 1.

        Every scene has the same weight, however many of its words are known.
        """
        written = [self.write(one)[: self.num_queries] for one in labels]
        targets = torch.stack([torch.stack([self.embed(w) for w in words]) for words in written])
        known = torch.tensor([[w is not None for w in words] for words in written])
        distance = (queries[:, : targets.shape[1]].float() - targets.to(queries)).square().mean(-1)
        known = known.to(distance)
        return ((distance * known).sum(1) / known.sum(1)).mean() / self.scale**2

    @staticmethod
    def write(labels: SceneLabels) -> list[Word]:
        """The word or share of each query, in order; None where the labels have none."""
        words = _ranked(labels, SCENE_RANKS)
        for name in QUARTERS:
            words += [name, *_ranked(labels.quarter(name), QUARTER_RANKS)]
        haze = None if math.isnan(labels.haze_share) else labels.haze_share
        return [*words, labels.cloud_share, haze, SCENE_NAMES.get(labels.scene_class or "")]

    def embed(self, word: Word) -> Tensor:
        """The target for a word, or for a share from 0 to 1: `[D_text]`."""
        if word is None:
            return torch.zeros(self.embeddings.shape[1])
        if isinstance(word, str):
            return self._embed_word(word)
        tenths = min(max(10 * word, 0.0), 10.0)
        low = min(int(tenths), 9)
        lower, upper = (self._embed_word(TENTHS[i]) for i in (low, low + 1))
        return lower + (tenths - low) * (upper - lower)

    def _embed_word(self, word: str) -> Tensor:
        if word not in self.cached:
            ids = self.tokenizer(word if word.isdigit() else f" {word}").input_ids
            mixed = self.embeddings[ids].sum(0)
            self.cached[word] = mixed / mixed.std() * self.scale
        return self.cached[word]


def _ranked(labels: SceneLabels, ranks: int) -> list[Word]:
    """The largest land covers with their shares; cloud alone where cloud hides the scene."""
    if labels.cloud_share > HIDDEN:
        return ["cloud", 1.0, *("nothing", 0.0) * (ranks - 1)]
    words: list[Word] = []
    for cover, share in list(labels.shares.items())[:ranks]:
        words += [cover, share] if share > SMALLEST_SHARE else ["nothing", 0.0]
    return words
