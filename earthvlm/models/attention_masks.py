"""Attention masks that transformers' own causal masks do not cover."""

from __future__ import annotations

import torch
from torch import Tensor


def make_prefix_mask(mask: Tensor, prefix: int, dtype: torch.dtype) -> Tensor:
    """Make the mask of a prefix language model, as scores to add: `[B, L]` to `[B, 1, L, L]`.

    The first `prefix` tokens attend to each other in both directions, later ones to all before
    them. No token attends to padding, except that padding attends to itself, because a softmax
    over nothing is not a number.

    Args:
        mask: 1 or True where there is a token, 0 or False where there is padding.
        prefix: the number of tokens in the prefix, padding not counted.
        dtype: of the scores.
    """
    real = mask.bool()
    position = mask.cumsum(1) - 1
    in_prefix = real & (position < prefix)
    allowed = torch.ones(2 * [mask.shape[1]], dtype=torch.bool, device=mask.device).tril()
    allowed = (allowed | (in_prefix[:, :, None] & in_prefix[:, None])) & real[:, None]
    allowed = allowed | torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    scores = torch.zeros(allowed.shape, dtype=dtype, device=mask.device)
    return scores.masked_fill(~allowed, torch.finfo(dtype).min)[:, None]
