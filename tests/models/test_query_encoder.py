"""The query encoder and the search head on small random input."""

from __future__ import annotations

import pytest
import torch

from earthvlm.models.query_encoder import GeospatialQueryEncoder, SceneEmbeddingHead


def test_padding_is_not_seen():
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


def test_a_token_is_read_with_its_place():
    torch.manual_seed(0)
    fusion = GeospatialQueryEncoder(16, 64, num_queries=4).eval()
    tokens, positions = torch.randn(1, 10, 16), torch.rand(1, 10, 2)
    order = torch.randperm(10)
    seen = fusion(tokens, positions)
    together = fusion(tokens[:, order], positions[:, order])
    moved = fusion(tokens[:, order], positions)
    torch.testing.assert_close(seen, together)
    assert not torch.allclose(seen, moved)


def test_output_is_as_large_as_words_are():
    fusion = GeospatialQueryEncoder(16, 64, output_scale=0.1)
    seen = fusion(torch.randn(2, 9, 16), torch.rand(2, 9, 2))
    assert 0.05 < seen.std().item() < 0.2


def test_scene_embeddings_have_unit_length_whatever_the_padding():
    head = SceneEmbeddingHead(16, 64, 384).eval()
    queries, tokens = torch.randn(2, 4, 64), torch.randn(2, 10, 16)
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[1, 5:] = False
    embedded = head(queries, tokens, mask)
    torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(2))
    tokens[1, 5:] = 99
    torch.testing.assert_close(head(queries, tokens, mask), embedded)


@pytest.mark.parametrize("placed", [True, False], ids=["positions", "no positions"])
def test_reading_in_parts_gathers_the_same(placed, monkeypatch):
    """What trains attends to all tokens at once; what is used, part by part."""
    torch.manual_seed(0)
    fusion = GeospatialQueryEncoder(16, 64, num_queries=4).eval()
    torch.nn.init.normal_(fusion.attention.in_proj_bias)
    torch.nn.init.normal_(fusion.attention.out_proj.bias)
    torch.nn.init.normal_(fusion.place.bias)
    torch.nn.init.normal_(fusion.project[1].bias)
    tokens, positions = 3 * torch.randn(3, 50, 16), torch.rand(3, 50, 2) if placed else None
    mask = torch.arange(50) < torch.tensor([50, 7, 31])[:, None]
    whole = fusion(tokens, positions, mask).detach()
    monkeypatch.setattr("earthvlm.models.query_encoder.CHUNK_TOKENS", 24)
    with torch.no_grad():
        parts = fusion(tokens, positions, mask)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)


def test_features_alone_are_resampled():
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


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="8 attention heads do not divide a width of 60"):
        GeospatialQueryEncoder(16, 60)
