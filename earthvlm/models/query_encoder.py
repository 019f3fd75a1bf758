"""The bridge's own layers: queries that gather what the encoder saw, and the search head."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POSITION_FREQUENCIES = 8
# Tokens that are read at a time: 0.1 GB for SmolLM2-135M, however large the scene.
TOKENS_AT_ONCE = 16_384
# Of what the search head reads, where it learns alone: without it, scenes are learned by heart.
HEAD_DROPOUT = 0.1


class GeospatialQueryEncoder(nn.Module):
    """Resamples a scene's features `[B, N, D_olmo]` to `[B, Q, D_text]`, Perceiver-style.

    Learned queries attend to the features (projected, normalised, with an encoding of their
    positions in the scene), then pass a feed-forward; each step has its residual and its layer
    norm. The result is scaled to the size of the language model's own word embeddings, or it would
    drown them.

    olmo_dim: width of the features, `D_olmo`. text_dim: width of the language model's word
        embeddings, `D_text`. num_queries: how many vectors a scene becomes, `Q`.
    mlp_ratio: width of the feed-forward's hidden layer over `D_text`.
    output_scale: standard deviation of the result at the start; it is learned.

    Raises ValueError where `text_dim` is no multiple of `num_heads`.

    After Jaegle et al., "Perceiver", 2021.
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

        positions: `[B, N, 2]`, row and column from 0 to 1; without them, features count alike
            wherever in the scene they are.
        mask: bool `[B, N]`, True where there is a feature, False where there is padding; all are
            features where it is None.
        return_attention: return each query's attention over the features too, `[B, Q, N]`, mean
            over heads, rows summing to 1.
        in_bfloat16: let the CPU multiply the feed-forward's matrices, two thirds of the work, in
            bfloat16.
        """
        queries = self.queries.expand(len(features), -1, -1)
        weights = None
        if return_attention or torch.is_grad_enabled():
            keys = self._make_keys(features, positions)
            seen, weights = self.attention(
                queries,
                keys,
                keys,
                key_padding_mask=None if mask is None else ~mask,
                need_weights=return_attention,
            )
        else:
            seen = self._attend_in_parts(features, positions, mask)
        queries = self.attention_norm(queries + seen)
        with torch.autocast("cpu", torch.bfloat16) if in_bfloat16 else nullcontext():
            fed = self.feed_forward(queries)
        resampled = self.output_norm(queries + fed) * self.output_scale
        return (resampled, weights) if return_attention else resampled

    def _make_keys(self, features: Tensor, positions: Tensor | None) -> Tensor:
        keys = self.project(features)
        return keys if positions is None else keys + self.place(encode_positions(positions))

    def _attend_in_parts(
        self, tokens: Tensor, positions: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """What `attention` returns, in a quarter of the work, and in memory that does not grow.

        Keys are linear in fewer numbers than they have, the token over its deviation and its place,
        so no key is made: the queries, which are few and the same for all scenes, go through the
        keys' projections instead, and what they gather goes through them once. The softmax goes on
        from part to part (Milakov and Gimelshein, "Online normalizer calculation for softmax",
        2018). What all keys share moves all scores of a query alike, which a softmax does not see.
        """
        attention, heads = self.attention, self.attention.num_heads
        to_query, to_key, to_value = attention.in_proj_weight.chunk(3)
        query_bias, _, value_bias = attention.in_proj_bias.chunk(3)
        width = to_query.shape[1] // heads
        queries = F.linear(self.queries, to_query, query_bias).unflatten(1, (heads, width))
        to_key = to_key.unflatten(0, (heads, width))
        lookups = torch.einsum("qhw,hwd->hqd", queries, to_key).flatten(0, 1) * width**-0.5
        place = None if positions is None else self.place
        reading = _KeyReading(self.project[0], self.project[1], place)
        lookups = lookups @ reading.to_keys

        count, length = tokens.shape[:2]
        highest = total = seen = None
        step = max(1, TOKENS_AT_ONCE // count)
        for start in range(0, length, step):
            part = slice(start, start + step)
            places = None if positions is None else positions[:, part]
            features = reading.read(tokens[:, part], places)
            scores = lookups @ features.mT
            if mask is not None:
                scores.masked_fill_(~mask[:, None, part], torch.finfo(scores.dtype).min)
            before, highest = highest, scores.amax(-1, keepdim=True)
            if before is not None:
                highest = torch.maximum(highest, before)
            weights = scores.sub_(highest).exp_()
            if before is None:
                total, seen = weights.sum(-1, keepdim=True), weights @ features
            else:
                fading = (before - highest).exp_()
                total = total * fading + weights.sum(-1, keepdim=True)
                seen = torch.baddbmm(seen * fading, weights, features)
        seen = (seen / total).unflatten(1, (heads, -1))
        value_bias = F.linear(reading.shared, to_value, value_bias)
        to_value = (to_value @ reading.to_keys).unflatten(0, (heads, width))
        values = torch.einsum("bhqf,hwf->bqhw", seen, to_value).flatten(2) + value_bias
        return attention.out_proj(values)


class _KeyReading:
    """Keys as `to_keys @ features + shared`, where features are what tells tokens apart.

    A layer norm is linear but for the deviation it divides by. That is the length of the projected
    token less its mean, which the triangle of a QR decomposition gives in the token's own size.
    """

    def __init__(self, project: nn.Linear, norm: nn.LayerNorm, place: nn.Linear | None) -> None:
        centred = torch.cat([project.weight, project.bias[:, None]], dim=1)
        centred = centred - centred.mean(0)
        triangle = torch.linalg.qr(centred.float(), mode="r").R * len(centred) ** -0.5
        self._triangle, self._eps = triangle.to(centred.dtype), norm.eps
        self.to_keys, self.shared = norm.weight[:, None] * centred, norm.bias
        if place is not None:
            self.to_keys = torch.cat([self.to_keys, place.weight], dim=1)
            self.shared = self.shared + place.bias

    def read(self, tokens: Tensor, positions: Tensor | None) -> Tensor:
        """Features `[B, N, F]` of tokens `[B, N, D_olmo]` at positions `[B, N, 2]`, if any."""
        tokens = F.pad(tokens, (0, 1), value=1.0)  # for the projection's bias
        variance = F.linear(tokens, self._triangle).float().square().sum(-1, keepdim=True)
        scaled = tokens * (variance + self._eps).rsqrt()
        if positions is None:
            return scaled
        return torch.cat([scaled, encode_positions(positions)], dim=-1)


class SceneEmbeddingHead(nn.Module):
    """Places a scene beside sentences: unit vectors whose cosine with a caption's is high."""

    def __init__(self, olmo_dim: int, text_dim: int, sentence_dim: int, hidden: int = 512) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(olmo_dim)
        self.query_norm = nn.LayerNorm(text_dim)
        self.dropout = nn.Dropout(HEAD_DROPOUT)
        self.layers = nn.Sequential(
            nn.Linear(olmo_dim + text_dim, hidden), nn.GELU(), nn.Linear(hidden, sentence_dim)
        )

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """From `[B, Q, D_text]` and `[B, N, D_olmo]` with its mask to `[B, D_sentence]`."""
        return self.place(*self.pool(queries, tokens, mask))

    @staticmethod
    def pool(queries: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The mean query `[B, D_text]` and the mean token `[B, D_olmo]`: all that is read."""
        weights = mask.to(tokens.dtype)[..., None]
        return queries.mean(1), (tokens * weights).sum(1) / weights.sum(1)

    def place(self, mean_query: Tensor, mean_token: Tensor) -> Tensor:
        """From what `pool` returns to unit vectors `[B, D_sentence]`."""
        normed = torch.cat([self.token_norm(mean_token), self.query_norm(mean_query)], dim=-1)
        return F.normalize(self.layers(self.dropout(normed)).float(), dim=-1)


def encode_positions(positions: Tensor) -> Tensor:
    """Sines and cosines of rows and columns: `[B, N, 2]` from 0 to 1 to `[B, N, 32]`."""
    frequencies = math.pi * 2.0 ** (torch.arange(POSITION_FREQUENCIES, device=positions.device) / 2)
    angles = (positions[..., None] * frequencies).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
