"""Attention maps of an answer: their words, shapes, sums, and the product of both attentions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from earthvlm.bridge.attention_maps import attend
from tests.conftest import random_scene


@pytest.mark.parametrize("side", [64, 144])
def test_attention_maps_cover_the_scene_per_word(tiny_bridge, side: int):
    scene = random_scene(side, side)
    conversation = [
        {"role": "user", "content": "Is there water?"},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes, a lake fills the north."},
    ]
    before = tiny_bridge.generate(scene, "Is there water?", max_length=8)
    attention = attend(tiny_bridge, scene, conversation)
    assert "".join(attention.words) == conversation[-1]["content"]
    assert attention.maps.shape == (6, side // 8, side // 8)
    np.testing.assert_allclose(attention.maps.sum((1, 2)), 1, rtol=1e-4)
    assert attention.baseline.sum() == pytest.approx(1, rel=1e-4)
    for relative in (attention.relative_attention(), attention.relative_attention(2)):
        assert relative.min() == 0 and relative.max() == 1
    assert tiny_bridge.generate(scene, "Is there water?", max_length=8) == before
    with pytest.raises(ValueError, match="no answer yet"):
        attend(tiny_bridge, scene, conversation[:-1])


def test_attention_map_multiplies_both_attentions(tiny_bridge):
    """If each query sees one patch, the map is the answer's attention to the queries."""
    scene = random_scene()
    conversation = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "A lake."}]
    forward = tiny_bridge.fusion.forward
    one_hot = torch.zeros(1, 8, 64)
    one_hot[0, torch.arange(8), torch.arange(8) * 3] = 1

    def attend_to_one_patch(*args, **options):
        return forward(*args, **options)[0], one_hot

    tiny_bridge.fusion.forward = attend_to_one_patch
    maps = attend(tiny_bridge, scene, conversation).maps.reshape(-1, 64)
    assert (maps[:, [0, 3, 6, 9, 12, 15, 18, 21]] > 0).all()
    np.testing.assert_allclose(maps[:, [1, 2, 40]], 0)
