"""Limits on prompts and answers, and how an answer's tokens are sampled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import LogitsProcessorList

DEFAULT_PROMPT = "Describe this scene."
MAX_PROMPT_CHARACTERS = 2000


def check_prompt(prompt: str) -> None:
    """Raise ValueError for a prompt that is empty or longer than `MAX_PROMPT_CHARACTERS`."""
    if not prompt.strip():
        raise ValueError("The question is empty: ask something about the scene.")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise ValueError(
            f"The question has {len(prompt):,} characters: ask in at most "
            f"{MAX_PROMPT_CHARACTERS:,}."
        )


def fit_to_context(sampling: Sampling, length: int, context: int) -> Sampling:
    """Limit the length of an answer to what a prompt of `length` tokens leaves of the context.

    Raises ValueError where that is nothing.
    """
    room = context - length
    if room < 1:
        raise ValueError(
            f"The conversation has {length:,} tokens with its scene, and this language model "
            f"reads at most {context:,} with the answer: clear it, or ask in fewer words."
        )
    return replace(sampling, max_length=min(sampling.max_length, room))


@dataclass(frozen=True)
class Sampling:
    """The length of an answer and how its tokens are chosen.

    Attributes:
        max_length: of an answer, in tokens.
        temperature: 0 takes the likeliest token each time, higher values give variety.
        top_p: sample from the likeliest tokens that reach this probability together.
        top_k: sample from this many likeliest tokens; 0 is off.

    Raises:
        ValueError: for numbers out of range.
    """

    max_length: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if self.max_length < 1 or self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError(
                "An answer needs max_length of at least 1, temperature of at least 0, top_p over 0 "
                "and up to 1, and top_k of at least 0 (0 is off)."
            )

    def choose(self, logits: Tensor) -> Tensor:
        """Choose a token for each row of logits: `[B, V]` to `[B]`."""
        if self.temperature == 0:
            return logits.max(-1).indices  # argmax takes ten times as long in bfloat16
        weights = self._warpers(None, logits.float()).softmax(-1)
        return torch.multinomial(weights, 1)[:, 0]

    @cached_property
    def _warpers(self) -> LogitsProcessorList:
        from transformers import (
            LogitsProcessorList,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        warpers = LogitsProcessorList([TemperatureLogitsWarper(float(self.temperature))])
        if self.top_k:
            warpers.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            warpers.append(TopPLogitsWarper(self.top_p))
        return warpers
