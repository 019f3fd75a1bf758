"""Decoding with 8-bit weights on CPUs: few, large operations for each of the next tokens.

Where one token is decoded at a time, a CPU waits for memory and for Python. Here a Llama's
matrices that read the same vector are joined, its norms are multiplied into them, and they are
stored in 8 bits; what is added from layer to layer stays in float32. Prompts are processed by
transformers, with the weights as they were loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, PreTrainedModel

from earthvlm.generation.cpu_attention import growing_cache
from earthvlm.generation.decoding import TorchDecoderState
from earthvlm.models.int8 import Int8Matrix

# Tokens that are processed at once: up to this number, torch's kernel reads the weights once.
MAX_TOKENS = 4
MODEL_TYPES = ("llama", "qwen2")


class Int8Decoder:
    """A language model for the next few tokens of one answer.

    Args:
        model: laid out like Llama, on a CPU, adapters merged; see `fits`.
    """

    def __init__(self, model: Any) -> None:
        config, decoder = model.config, model.model
        self.rotary_embedding = decoder.rotary_emb
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = decoder.layers[0].self_attn.head_dim
        self.epsilon = config.rms_norm_eps
        self.layers = [_Layer(layer, self.head_dim**-0.5) for layer in decoder.layers]
        head = model.get_output_embeddings().weight.float() * decoder.norm.weight.float()
        self.head = Int8Matrix(head)

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether a model can be decoded so."""
        if not isinstance(model, PreTrainedModel) or model.device.type != "cpu":
            return False
        config = model.config
        if config.model_type not in MODEL_TYPES or config.hidden_act != "silu":
            return False
        if getattr(config, "use_sliding_window", False) or getattr(config, "mlp_bias", False):
            return False
        layer = model.model.layers[0]
        parts = layer.self_attn.q_proj, layer.mlp.down_proj, model.get_output_embeddings()
        return all(type(part) is nn.Linear for part in parts)

    def forward(self, vectors: Tensor, cache: Cache) -> Tensor:
        """Process `[L, D]` after the tokens in the cache; return the logits, float32 `[L, V]`."""
        start, count = cache.get_seq_length(), len(vectors)
        x = vectors.float()
        positions = torch.arange(start, start + count)[None]
        cos, sin = (table[0, :, None] for table in self.rotary_embedding(x, positions))
        sin = sin[..., : self.head_dim // 2]
        later = None
        if count > 1:
            later = torch.ones(count, start + count, dtype=torch.bool).triu(start + 1)
        for number, layer in enumerate(self.layers):
            joined = layer.attention_in(self._normalize(x)).float()
            mixed = self._attend(joined, cos, sin, later, cache, number)
            x = x + layer.attention_out(mixed.bfloat16())
            gate, up = layer.mlp_in(self._normalize(x)).float().chunk(2, dim=-1)
            x = x + layer.mlp_out(F.silu(gate).mul_(up).bfloat16())
        return self.head(self._normalize(x)).float()

    def _normalize(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], None, self.epsilon).bfloat16()

    def _attend(
        self, joined: Tensor, cos: Tensor, sin: Tensor, later: Tensor | None, cache: Cache, at: int
    ) -> Tensor:
        """Mix the values of layer `at`; joined: queries, keys and values of `[L, ...]`."""
        count, half = len(joined), self.head_dim // 2
        groups = self.heads // self.key_heads
        states = joined.view(count, -1, self.head_dim)
        values = states[:, self.heads + self.key_heads :].transpose(0, 1)
        states = states[:, : self.heads + self.key_heads]
        turned = states * cos
        turned[..., :half].addcmul_(states[..., half:], sin, value=-1)
        turned[..., half:].addcmul_(states[..., :half], sin)
        keys = turned[:, self.heads :].transpose(0, 1)
        keys, values = (state[0] for state in cache.update(keys[None], values[None], at))
        # Queries of the heads that share keys are stacked as if they were more tokens.
        queries = turned[:, : self.heads].unflatten(1, (self.key_heads, groups))
        queries = queries.permute(1, 2, 0, 3).flatten(1, 2)
        scores = torch.bmm(queries, keys.transpose(1, 2))
        if later is not None:
            scores.unflatten(1, (groups, count)).masked_fill_(later, -torch.inf)
        mixed = torch.bmm(scores.softmax(-1), values).unflatten(1, (groups, count))
        return mixed.permute(2, 0, 1, 3).flatten(1)


class _Layer:
    """A layer's matrices: of queries, keys and values, of the gate and what it opens, and back."""

    def __init__(self, layer: Any, query_scale: float) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        norms = (layer.input_layernorm, layer.post_attention_layernorm)
        attention_norm, mlp_norm = (norm.weight.float() for norm in norms)
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        scales = [query_scale, 1, 1]
        joined = [p.weight.float() * s for p, s in zip(parts, scales, strict=True)]
        bias = None
        if attention.q_proj.bias is not None:
            bias = torch.cat([p.bias.float() * s for p, s in zip(parts, scales, strict=True)])
        self.attention_in = Int8Matrix(torch.cat(joined) * attention_norm, bias)
        self.attention_out = Int8Matrix(attention.o_proj.weight, attention.o_proj.bias)
        joined = [mlp.gate_proj.weight.float(), mlp.up_proj.weight.float()]
        self.mlp_in = Int8Matrix(torch.cat(joined) * mlp_norm)
        self.mlp_out = Int8Matrix(mlp.down_proj.weight)


class Int8DecoderState(TorchDecoderState):
    """A `DecoderState` of one answer, whose next tokens an `Int8Decoder` processes."""

    max_draft = MAX_TOKENS - 1
    pads_drafts = False

    def __init__(self, model: PreTrainedModel, decoder: Int8Decoder) -> None:
        super().__init__(model)
        self.decoder = decoder

    def _start_cache(self, rows: int) -> Cache:  # noqa: ARG002
        return growing_cache()

    def _forward(self, vectors: Tensor, first: int, bidirectional_prefix: int = 0) -> Tensor:
        """Return the logits after the tokens from `first` on, `[1, L - first, V]`."""
        if not self.length or vectors.shape[1] > MAX_TOKENS:
            return super()._forward(vectors, first, bidirectional_prefix)
        return self.decoder.forward(vectors[0], self.cache)[None, first:]
