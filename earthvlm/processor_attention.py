"""Attention in float32 on a processor, for answers in bfloat16.

There, torch's kernel for bfloat16 takes ten times as long as the one for float32 to let one token
of each of many conversations attend to what was read, casts included (torch 2.13). And where
several heads share keys, transformers repeats these for each head as soon as more than one token
is read; here the heads' queries stand side by side instead, as if they were tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

USUAL, NAME = "sdpa", "sdpa_in_float32"


def choose_attention(model: PreTrainedModel, answering: bool) -> None:
    """Let a language model attend as is quickest where it is; what trains attends as usual."""
    if model.config._attn_implementation not in (USUAL, NAME):
        return  # models that cannot do with torch's own
    suits = answering and model.device.type == "cpu" and model.dtype == torch.bfloat16
    model.set_attn_implementation(NAME if suits else USUAL)


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


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
