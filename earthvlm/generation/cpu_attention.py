"""Attention in float32 on a processor, for answers in bfloat16.

There, torch's kernel for bfloat16 takes ten times as long as the one for float32 to let one token
of each of many conversations attend to what was read, casts included (torch 2.13). And where
several heads share keys, transformers repeats these for each head as soon as more than one token
is read; here the heads' queries stand side by side instead, as if they were tokens. What several
conversations have read is kept in float32 too, or each token would cast and copy all before it.
"""

from __future__ import annotations

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

USUAL, NAME = "sdpa", "sdpa_in_float32"
ROOM = 128  # tokens that several conversations may read on before what they read is copied


def choose_attention(model: PreTrainedModel, answering: bool) -> None:
    """Let a language model attend as is quickest where it is; what trains attends as usual."""
    if model.config._attn_implementation not in (USUAL, NAME):
        return  # models that cannot do with torch's own
    suits = answering and model.device.type == "cpu" and model.dtype == torch.bfloat16
    model.set_attn_implementation(NAME if suits else USUAL)


def start_cache(model: PreTrainedModel, conversations: int) -> Cache:
    """Keeps what a language model reads of so many conversations at once."""
    if conversations > 1 and model.config._attn_implementation == NAME:
        return Cache(layer_class_to_replicate=_RoomyLayer)
    # Without the model's configuration every layer keeps all it read, so that any of it can be
    # forgotten; models with windows mask what they do not look at.
    return DynamicCache()


class _RoomyLayer(DynamicLayer):
    """A layer's keys and values in float32, `[B, heads, length, width]`, with room behind them."""

    def update(self, keys: Tensor, values: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
            self._rooms = [state[:, :, :0].float() for state in (keys, values)]
        start = self.get_seq_length()
        end = start + keys.shape[2]
        lacking = end - self._rooms[0].shape[2]
        if lacking > 0:
            self._rooms = [F.pad(room, (0, 0, 0, lacking + ROOM)) for room in self._rooms]
        for room, state in zip(self._rooms, (keys, values), strict=True):
            room[:, :, start:end] = state
        self.keys, self.values = (room[:, :, :end] for room in self._rooms)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these conversations; only those that change their place are moved."""
        count, length = len(indices), self.get_seq_length()
        moved = (indices != torch.arange(count, device=indices.device)).nonzero()[:, 0]
        for room in self._rooms:
            room[moved, :, :length] = room[indices[moved], :, :length]
        self._rooms = [room[:count] for room in self._rooms]
        self.keys, self.values = (room[:, :, :length] for room in self._rooms)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options
) -> tuple[Tensor, None]:
    kind, groups = query.dtype, query.shape[1] // key.shape[1]
    query, key, value = query.float(), key.float(), value.float()
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    count = query.shape[2]
    packed = mask is not None and mask.shape[1] == 1 and groups > 1 and not options.get("softcap")
    if not packed:
        mixed, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        return mixed.to(kind), None
    query = query.unflatten(1, (-1, groups)).flatten(2, 3)
    mask = mask.repeat(1, 1, groups, 1)
    mixed = F.scaled_dot_product_attention(query, key, value, mask, scale=options.get("scaling"))
    mixed = mixed.unflatten(2, (groups, count)).flatten(1, 2).transpose(1, 2)
    return mixed.contiguous().to(kind), None


def _mask(*arguments, **options) -> Tensor | None:
    """What torch would make of a mask of truth values in every layer, made once for all."""
    seen = sdpa_mask(*arguments, **options)
    return None if seen is None else torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _mask)
