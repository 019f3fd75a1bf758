"""The bridge's own layers: the query encoder and the scene embedding head."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POSITION_FREQUENCIES = 8
# Tokens that queries attend to at a time: 0.1 GB for SmolLM2-135M, however large the scene.
CHUNK_TOKENS = 16_384
# Of the embedding head's input: without it, the head memorizes scenes when it trains alone.
HEAD_DROPOUT = 0.1
# Of the contrastive loss that trains scene embeddings, by which scores of classes are scaled too.
SCENE_TEMPERATURE = 0.05


class GeospatialQueryEncoder(nn.Module):
    """Resamples a scene's features `[B, N, D_olmo]` to `[B, Q, D_text]`, Perceiver-style.

    Learned queries attend to the features (projected, normalised, with an encoding of their
    positions in the scene), then pass a feed-forward; each step has a residual and a layer norm.
    The output is scaled to the size of the language model's word embeddings, which it would
    outweigh otherwise. After Jaegle et al., "Perceiver", 2021.

    Args:
        olmo_dim: width of the features, `D_olmo`.
        text_dim: width of the language model's word embeddings, `D_text`.
        num_queries: the number of output vectors, `Q`.
        num_heads: of the cross-attention.
        mlp_ratio: width of the feed-forward's hidden layer over `D_text`.
        output_scale: initial standard deviation of the output; it is learned.

    Raises:
        ValueError: where `text_dim` is not a multiple of `num_heads`.
    """

    def __init__(
        self,
        olmo_dim: int,
        text_dim: int,
        num_queries: int = 32,
        num_heads: int = 8,
        mlp_ratio: int = 4,
        output_scale: float = 0.1,
    ) -> None:
        super().__init__()
        if text_dim % num_heads:
            raise ValueError(f"{num_heads} attention heads do not divide a width of {text_dim}.")
        self.queries = nn.Parameter(torch.randn(num_queries, text_dim) * 0.02)
        self.project = nn.Sequential(nn.Linear(olmo_dim, text_dim), nn.LayerNorm(text_dim))
        self.place = nn.Linear(4 * POSITION_FREQUENCIES, text_dim)
        self.attention = nn.MultiheadAttention(text_dim, num_heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(text_dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(text_dim, mlp_ratio * text_dim),
            nn.GELU(),
            nn.Linear(mlp_ratio * text_dim, text_dim),
        )
        self.output_norm = nn.LayerNorm(text_dim)
        self.output_scale = nn.Parameter(torch.tensor([output_scale]))

    def forward(
        self,
        features: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        return_attention: bool = False,
        in_bfloat16: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Resample features `[B, N, D_olmo]` to `[B, Q, D_text]`.

        Args:
            features: the scene's tokens.
            positions: `[B, N, 2]`, row and column from 0 to 1; None ignores positions.
            mask: bool `[B, N]`, True where there is a feature, False where there is padding; None
                where there is no padding.
            return_attention: also return each query's attention over the features, `[B, Q, N]`,
                mean over heads, rows summing to 1.
            in_bfloat16: let the CPU multiply the feed-forward's matrices, two thirds of the work,
                in bfloat16.
        """
        queries = self.queries.expand(len(features), -1, -1)
        weights = None
        if return_attention or torch.is_grad_enabled():
            keys = self._make_keys(features, positions)
            attended, weights = self.attention(
                queries,
                keys,
                keys,
                key_padding_mask=None if mask is None else ~mask,
                need_weights=return_attention,
            )
        else:
            attended = self._attend_in_chunks(features, positions, mask)
        queries = self.attention_norm(queries + attended)
        with torch.autocast("cpu", torch.bfloat16) if in_bfloat16 else nullcontext():
            fed = self.feed_forward(queries)
        resampled = self.output_norm(queries + fed) * self.output_scale
        return resampled if weights is None else (resampled, weights)

    def _make_keys(self, features: Tensor, positions: Tensor | None) -> Tensor:
        keys = self.project(features)
        return keys if positions is None else keys + self.place(encode_positions(positions))

    def _attend_in_chunks(
        self, tokens: Tensor, positions: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """Compute what `attention` returns with a quarter of the work and in constant memory.

        Keys are linear in fewer numbers than their width: the token over its standard deviation,
        and its position. So keys are not computed: the queries, which are few and the same for all
        scenes, are multiplied by the keys' projections instead, and the attended features once
        at the end. The softmax continues from chunk to chunk (Milakov and Gimelshein, "Online
        normalizer calculation for softmax", 2018). What all keys share shifts all scores of a
        query equally, which does not change a softmax.
        """
        attention, heads = self.attention, self.attention.num_heads
        to_query, to_key, to_value = attention.in_proj_weight.chunk(3)
        query_bias, _, value_bias = attention.in_proj_bias.chunk(3)
        width = to_query.shape[1] // heads
        queries = F.linear(self.queries, to_query, query_bias).unflatten(1, (heads, width))
        to_key = to_key.unflatten(0, (heads, width))
        lookups = torch.einsum("qhw,hwd->hqd", queries, to_key).flatten(0, 1) * width**-0.5
        place = None if positions is None else self.place
        factors = _KeyFactors(
            cast("nn.Linear", self.project[0]), cast("nn.LayerNorm", self.project[1]), place
        )
        lookups = lookups @ factors.to_keys

        count, length = tokens.shape[:2]
        highest: Tensor | None = None
        total: Tensor  # of the weights so far, and the features they weight
        attended: Tensor
        step = max(1, CHUNK_TOKENS // count)
        for start in range(0, length, step):
            chunk = slice(start, start + step)
            places = None if positions is None else positions[:, chunk]
            features = factors.compute(tokens[:, chunk], places)
            scores = lookups @ features.mT
            if mask is not None:
                scores.masked_fill_(~mask[:, None, chunk], torch.finfo(scores.dtype).min)
            before = highest
            highest = scores.amax(-1, keepdim=True)
            if before is not None:
                highest = torch.maximum(highest, before)
            weights = scores.sub_(highest).exp_()
            if before is None:
                total, attended = weights.sum(-1, keepdim=True), weights @ features
            else:
                fading = (before - highest).exp_()
                total = total * fading + weights.sum(-1, keepdim=True)
                attended = torch.baddbmm(attended * fading, weights, features)
        attended = (attended / total).unflatten(1, (heads, -1))
        value_bias = F.linear(factors.shared, to_value, value_bias)
        to_value = (to_value @ factors.to_keys).unflatten(0, (heads, width))
        values = torch.einsum("bhqf,hwf->bqhw", attended, to_value).flatten(2) + value_bias
        return attention.out_proj(values)


class _KeyFactors:
    """Writes keys as `to_keys @ features + shared`, where features have fewer numbers than keys.

    A layer norm is linear but for the standard deviation it divides by. That is proportional to
    the length of the centred projection of the token, which the triangular factor of a QR
    decomposition preserves in the token's own width.
    """

    def __init__(self, project: nn.Linear, norm: nn.LayerNorm, place: nn.Linear | None) -> None:
        centred = torch.cat([project.weight, project.bias[:, None]], dim=1)
        centred = centred - centred.mean(0)
        triangle = torch.linalg.qr(centred.float(), mode="r").R * len(centred) ** -0.5
        self._triangle, self._eps = triangle.to(centred.dtype), norm.eps
        self.to_keys: Tensor = norm.weight[:, None] * centred
        self.shared: Tensor = norm.bias
        if place is not None:
            self.to_keys = torch.cat([self.to_keys, place.weight], dim=1)
            self.shared = self.shared + place.bias

    def compute(self, tokens: Tensor, positions: Tensor | None) -> Tensor:
        """Compute features `[B, N, F]` of tokens `[B, N, D_olmo]` at any positions `[B, N, 2]`."""
        tokens = F.pad(tokens, (0, 1), value=1.0)  # for the projection's bias
        variance = F.linear(tokens, self._triangle).float().square().sum(-1, keepdim=True)
        scaled = tokens * (variance + self._eps).rsqrt()
        if positions is None:
            return scaled
        return torch.cat([scaled, encode_positions(positions)], dim=-1)


class SceneEmbeddingHead(nn.Module):
    """Embeds scenes in the space of sentences, close to their captions."""

    def __init__(self, olmo_dim: int, text_dim: int, sentence_dim: int, hidden: int = 512) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(olmo_dim)
        self.query_norm = nn.LayerNorm(text_dim)
        self.dropout = nn.Dropout(HEAD_DROPOUT)
        self.layers = nn.Sequential(
            nn.Linear(olmo_dim + text_dim, hidden), nn.GELU(), nn.Linear(hidden, sentence_dim)
        )

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embed query outputs `[B, Q, D_text]` and tokens `[B, N, D_olmo]` to `[B, D_sentence]`."""
        return self.embed(*self.pool(queries, tokens, mask))

    @staticmethod
    def pool(queries: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Average the query outputs to `[B, D_text]` and the tokens to `[B, D_olmo]`."""
        weights = mask.to(tokens.dtype)[..., None]
        return queries.mean(1), (tokens * weights).sum(1) / weights.sum(1)

    def embed(self, mean_query: Tensor, mean_token: Tensor) -> Tensor:
        """Embed pooled features, as `pool` returns them, to unit vectors `[B, D_sentence]`."""
        normed = torch.cat([self.token_norm(mean_token), self.query_norm(mean_query)], dim=-1)
        return F.normalize(self.layers(self.dropout(normed)).float(), dim=-1)


def encode_positions(positions: Tensor) -> Tensor:
    """Encode rows and columns from 0 to 1 as sines and cosines: `[B, N, 2]` to `[B, N, 32]`."""
    frequencies = math.pi * 2.0 ** (torch.arange(POSITION_FREQUENCIES, device=positions.device) / 2)
    angles = (positions[..., None] * frequencies).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
