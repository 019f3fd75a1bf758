"""Attention in float32 on a processor, for answers in bfloat16.

There, torch's kernel for bfloat16 takes ten times as long as the one for float32 to let one token
of each of many conversations attend to what was read, casts included (torch 2.13).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
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
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    mixed, _ = sdpa_attention_forward(
        module, query.float(), key.float(), value.float(), mask, **options
    )
    return mixed.to(query.dtype), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
