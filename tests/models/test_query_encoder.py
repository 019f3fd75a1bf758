"""The query encoder and the scene embedding head on small random input."""

from __future__ import annotations

import pytest
import torch

from earthvlm.models.query_encoder import GeospatialQueryEncoder, SceneEmbeddingHead


def test_padding_is_ignored():
    torch.manual_seed(0)
    fusion = GeospatialQueryEncoder(16, 64, num_queries=4).eval()
    tokens, positions = torch.randn(1, 10, 16), torch.rand(1, 10, 2)
    short = fusion(tokens[:, :6], positions[:, :6])
    mask = torch.arange(10)[None] < 6
    padded, weights = fusion(tokens, positions, mask, return_attention=True)
    torch.testing.assert_close(short, padded)
    assert weights.shape == (1, 4, 10)
    assert torch.all(weights[..., 6:] == 0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 4))


def test_output_depends_on_positions_not_order():
    torch.manual_seed(0)
    fusion = GeospatialQueryEncoder(16, 64, num_queries=4).eval()
    tokens, positions = torch.randn(1, 10, 16), torch.rand(1, 10, 2)
    order = torch.randperm(10)
    output = fusion(tokens, positions)
    together = fusion(tokens[:, order], positions[:, order])
    moved = fusion(tokens[:, order], positions)
    torch.testing.assert_close(output, together)
    assert not torch.allclose(output, moved)


def test_output_has_the_given_scale():
    fusion = GeospatialQueryEncoder(16, 64, output_scale=0.1)
    output = fusion(torch.randn(2, 9, 16), torch.rand(2, 9, 2))
    assert 0.05 < output.std().item() < 0.2


def test_scene_embeddings_ignore_padding():
    head = SceneEmbeddingHead(16, 64, 384).eval()
    queries, tokens = torch.randn(2, 4, 64), torch.randn(2, 10, 16)
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[1, 5:] = False
    embedded = head(queries, tokens, mask)
    torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(2))
    tokens[1, 5:] = 99
    torch.testing.assert_close(head(queries, tokens, mask), embedded)


@pytest.mark.parametrize("placed", [True, False], ids=["positions", "no positions"])
def test_chunked_attention_equals_full_attention(placed, monkeypatch):
    """Training attends to all tokens at once, inference in chunks."""
    torch.manual_seed(0)
    fusion = GeospatialQueryEncoder(16, 64, num_queries=4).eval()
    torch.nn.init.normal_(fusion.attention.in_proj_bias)
    torch.nn.init.normal_(fusion.attention.out_proj.bias)
    torch.nn.init.normal_(fusion.place.bias)
    torch.nn.init.normal_(fusion.project[1].bias)
    tokens, positions = 3 * torch.randn(3, 50, 16), torch.rand(3, 50, 2) if placed else None
    mask = torch.arange(50) < torch.tensor([50, 7, 31])[:, None]
    full = fusion(tokens, positions, mask).detach()
    monkeypatch.setattr("earthvlm.models.query_encoder.CHUNK_TOKENS", 24)
    with torch.no_grad():
        chunked = fusion(tokens, positions, mask)
    torch.testing.assert_close(chunked, full, atol=1e-5, rtol=1e-5)


def test_features_without_positions_are_resampled():
    fusion = GeospatialQueryEncoder(olmo_dim=16, text_dim=64, num_queries=4).eval()
    features = torch.randn(2, 10, 16)
    resampled = fusion(features)
    assert resampled.shape == (2, 4, 64)
    order = torch.randperm(10)
    torch.testing.assert_close(fusion(features[:, order]), resampled)
    again, attention = fusion(features, return_attention=True)
    torch.testing.assert_close(again, resampled)
    assert attention.shape == (2, 4, 10)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 4))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="8 attention heads do not divide a width of 60"):
        GeospatialQueryEncoder(16, 60)
