"""Attention in float32 on CPUs, for answers in bfloat16.

On an AMD EPYC, torch's bfloat16 kernel takes about five times as long as its float32 kernel with
casts, where one token attends to a cache (torch 2.13). Where several heads share keys, transformers
also repeats the keys for each head as soon as there is more than one query token; here the queries
of such heads are stacked as if they were more tokens. The cache of several rows is kept in float32
too, or each token would cast and copy all of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    Cache,
    DynamicCache,
    PreTrainedModel,
)
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

TORCH_ATTENTION, CPU_ATTENTION = "sdpa", "sdpa_in_float32"
ROOM = 128  # tokens by which a full cache grows each time it is copied


def choose_attention(model: PreTrainedModel, answering: bool) -> None:
    """Switch to the attention that is fastest on the model's device; training uses torch's."""
    if model.config._attn_implementation not in (TORCH_ATTENTION, CPU_ATTENTION):
        return  # models that do not support torch's
    is_faster = answering and model.device.type == "cpu" and model.dtype == torch.bfloat16
    model.set_attn_implementation(CPU_ATTENTION if is_faster else TORCH_ATTENTION)


def start_cache(model: PreTrainedModel, rows: int) -> Cache:
    """Make an empty cache of keys and values for a number of rows."""
    if rows > 1 and model.config._attn_implementation == CPU_ATTENTION:
        return Cache(layer_class_to_replicate=_GrowingLayer)
    # Without the model's configuration every layer keeps all tokens, so that it can be cropped;
    # models with sliding windows mask the tokens outside them.
    return DynamicCache()


class _GrowingLayer(DynamicLayer):
    """A layer's keys and values in float32, `[B, heads, length, width]`, in larger buffers."""

    def update(
        self, keys: Tensor, values: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Append new keys and values; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
            self._buffers = [state[:, :, :0].float() for state in (keys, values)]
        start = self.get_seq_length()
        end = start + keys.shape[2]
        lacking = end - self._buffers[0].shape[2]
        if lacking > 0:
            self._buffers = [F.pad(b, (0, 0, 0, lacking + ROOM)) for b in self._buffers]
        for buffer, state in zip(self._buffers, (keys, values), strict=True):
            buffer[:, :, start:end] = state
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows in this order; only rows that change their index are copied."""
        count, length = len(indices), self.get_seq_length()
        moved = (indices != torch.arange(count, device=indices.device)).nonzero()[:, 0]
        for buffer in self._buffers:
            buffer[moved, :, :length] = buffer[indices[moved], :, :length]
        self._buffers = [buffer[:count] for buffer in self._buffers]
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    dtype, groups = query.dtype, query.shape[1] // key.shape[1]
    query, key, value = query.float(), key.float(), value.float()
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    count = query.shape[2]
    # Stacked queries need a mask of their own order, the same for all heads.
    if mask is None or mask.shape[1] > 1 or groups == 1 or options.get("softcap"):
        mixed, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        return mixed.to(dtype), None
    query = query.unflatten(1, (-1, groups)).flatten(2, 3)
    mask = mask.repeat(1, 1, groups, 1)
    mixed = F.scaled_dot_product_attention(query, key, value, mask, scale=options.get("scaling"))
    mixed = mixed.unflatten(2, (groups, count)).flatten(1, 2).transpose(1, 2)
    return mixed.contiguous().to(dtype), None


def _make_mask(*arguments: Any, **options: Any) -> Tensor | None:
    """Convert transformers' boolean mask to scores once, instead of in every layer."""
    allowed = sdpa_mask(*arguments, **options)
    if allowed is None:
        return None
    return torch.zeros(allowed.shape).masked_fill_(~allowed, -torch.inf)


AttentionInterface.register(CPU_ATTENTION, _attend)
AttentionMaskInterface.register(CPU_ATTENTION, _make_mask)
