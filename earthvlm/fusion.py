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
    """Gathers a scene's tokens into a few vectors a language model can read, Perceiver-style.

    Learned queries attend to the tokens (projected, normalised, and told their place in the
    scene), then pass a feed-forward; each step has its residual and its layer norm. The result is
    scaled to the size of the language model's own word embeddings, or it would drown them.

    After Jaegle et al., "Perceiver", 2021.
    """

    def __init__(
        self,
        token_dim: int,
        text_dim: int,
        num_queries: int = 32,
        num_heads: int = 8,
        feed_forward_factor: int = 4,
        output_scale: float = 0.1,
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_queries, text_dim) * 0.02)
        self.project = nn.Sequential(nn.Linear(token_dim, text_dim), nn.LayerNorm(text_dim))
        self.place = nn.Linear(4 * POSITION_FREQUENCIES, text_dim)
        self.attention = nn.MultiheadAttention(text_dim, num_heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(text_dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(text_dim, feed_forward_factor * text_dim),
            nn.GELU(),
            nn.Linear(feed_forward_factor * text_dim, text_dim),
        )
        self.output_norm = nn.LayerNorm(text_dim)
        self.output_scale = nn.Parameter(torch.tensor([output_scale]))

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        key_mask: Tensor | None = None,
        return_attention: bool = False,
        in_bfloat16: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Gather tokens `[B, N, D_olmo]` into `[B, Q, D_text]`.

        positions: `[B, N, 2]`, row and column from 0 to 1.
        key_mask: bool `[B, N]`, True where there is a token; all of them where it is None.
        in_bfloat16: let the processor multiply the feed-forward's matrices, two thirds of the
            work, in it.
        Returns the gathered vectors and, where asked for, each query's attention over the tokens,
        `[B, Q, N]`, mean over heads, rows summing to 1.
        """
        queries = self.queries.expand(len(tokens), -1, -1)
        weights = None
        if return_attention or torch.is_grad_enabled():
            keys = self._make_keys(tokens, positions)
            seen, weights = self.attention(
                queries,
                keys,
                keys,
                key_padding_mask=None if key_mask is None else ~key_mask,
                need_weights=return_attention,
            )
        else:
            seen = self._attend_in_parts(tokens, positions, key_mask)
        queries = self.attention_norm(queries + seen)
        with torch.autocast("cpu", torch.bfloat16) if in_bfloat16 else nullcontext():
            fed = self.feed_forward(queries)
        queries = self.output_norm(queries + fed)
        return queries * self.output_scale, weights

    def _make_keys(self, tokens: Tensor, positions: Tensor) -> Tensor:
        return self.project(tokens) + self.place(encode_positions(positions))

    def _attend_in_parts(
        self, tokens: Tensor, positions: Tensor, key_mask: Tensor | None
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
        reading = _KeyReading(self.project[0], self.project[1], self.place)
        lookups = lookups @ reading.to_keys

        count, length = tokens.shape[:2]
        highest = total = seen = None
        step = max(1, TOKENS_AT_ONCE // count)
        for start in range(0, length, step):
            part = slice(start, start + step)
            features = reading.read(tokens[:, part], positions[:, part])
            scores = lookups @ features.mT
            if key_mask is not None:
                scores.masked_fill_(~key_mask[:, None, part], torch.finfo(scores.dtype).min)
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

    def __init__(self, project: nn.Linear, norm: nn.LayerNorm, place: nn.Linear) -> None:
        centred = torch.cat([project.weight, project.bias[:, None]], dim=1)
        centred = centred - centred.mean(0)
        triangle = torch.linalg.qr(centred.float(), mode="r").R * len(centred) ** -0.5
        self._triangle, self._eps = triangle.to(centred.dtype), norm.eps
        self.to_keys = torch.cat([norm.weight[:, None] * centred, place.weight], dim=1)
        self.shared = norm.bias + place.bias

    def read(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Features `[B, N, F]` of tokens `[B, N, D_olmo]` at their positions `[B, N, 2]`."""
        tokens = F.pad(tokens, (0, 1), value=1.0)  # for the projection's bias
        variance = F.linear(tokens, self._triangle).float().square().sum(-1, keepdim=True)
        places = encode_positions(positions)
        return torch.cat([tokens * (variance + self._eps).rsqrt(), places], dim=-1)


class SceneEmbeddingHead(nn.Module):
    """Places a scene beside sentences: unit vectors whose cosine with a caption's is high."""

    def __init__(self, token_dim: int, text_dim: int, sentence_dim: int, hidden: int = 512) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(token_dim)
        self.query_norm = nn.LayerNorm(text_dim)
        self.dropout = nn.Dropout(HEAD_DROPOUT)
        self.layers = nn.Sequential(
            nn.Linear(token_dim + text_dim, hidden), nn.GELU(), nn.Linear(hidden, sentence_dim)
        )

    def forward(self, queries: Tensor, tokens: Tensor, key_mask: Tensor) -> Tensor:
        """From `[B, Q, D_text]` and `[B, N, D_olmo]` with its mask to `[B, D_sentence]`."""
        return self.place(*self.pool(queries, tokens, key_mask))

    @staticmethod
    def pool(queries: Tensor, tokens: Tensor, key_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The mean query `[B, D_text]` and the mean token `[B, D_olmo]`: all that is read."""
        weights = key_mask.to(tokens.dtype)[..., None]
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
