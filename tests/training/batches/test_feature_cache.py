"""The feature cache holds the encoder's tokens, also after interruptions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.models.olmoearth import OlmoEarthEncoder, join_tokens
from earthvlm.training.batches.feature_cache import FeatureCache, cache_key, read_tokens
from earthvlm.training.batches.sampler import EpochSampler
from earthvlm.training.batches.samples import TrainingSamples
from tests.support.generated_chatearthnet import write_generated_chatearthnet


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> ChatEarthNet:
    folder = tmp_path_factory.mktemp("generated")
    write_generated_chatearthnet(folder, train=6, val=1)
    return ChatEarthNet(folder, "train")


def nothing() -> None:
    pass


def filled(folder: Path, encoder: OlmoEarthEncoder, tiles: ChatEarthNet) -> FeatureCache:
    cache = FeatureCache(folder, encoder, tiles)
    cache.fill(4, nothing)
    return cache


def test_cached_tokens_train_like_new_ones(tiles, tiny_bridge, tmp_path):
    cache = filled(tmp_path, tiny_bridge.encoder, tiles)
    cached = TrainingSamples(tiles, tiny_bridge, seed=0, cache=cache)
    new = TrainingSamples(tiles, tiny_bridge, seed=0)
    keys = list(EpochSampler(len(tiles), 4, seed=0, layouts={None: 1.0}))[:2]
    samples = [cached[key] for key in keys]
    assert all(sample.scene is None for sample in samples)
    tokens = join_tokens([sample.tokens.float() for sample in samples])
    prompts = [sample.prompt for sample in samples]
    others = [new[key] for key in keys]
    assert [sample.prompt for sample in others] == prompts
    with torch.no_grad():
        with_cached = tiny_bridge(tiny_bridge.collate([], prompts, tokens))
        with_new = tiny_bridge(tiny_bridge.collate([sample.scene for sample in others], prompts))
    torch.testing.assert_close(with_cached.loss, with_new.loss, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        with_cached.tokens.tokens, with_new.tokens.tokens, rtol=2e-3, atol=2e-3
    )


def test_interrupted_filling_resumes(tiles, tmp_path, monkeypatch):
    encoder = OlmoEarthEncoder("random-v1.2-nano").eval()
    whole = filled(tmp_path / "whole", encoder, tiles)
    encoded, forward = [], type(encoder).forward

    def broken(self, scenes):
        encoded.append(len(scenes))
        if len(encoded) == 2:
            raise KeyboardInterrupt
        return forward(self, scenes)

    monkeypatch.setattr(type(encoder), "forward", broken)
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "broken", encoder, tiles)
    cache = filled(tmp_path / "broken", encoder, tiles)
    filled(tmp_path / "broken", encoder, tiles)
    assert encoded == [4, 2, 2]
    for index in range(len(tiles)):
        assert torch.equal(read_tokens(cache.path, index), read_tokens(whole.path, index))


def test_two_processes_share_the_work(tiles, tmp_path):
    encoder = OlmoEarthEncoder("random-v1.2-nano").eval()
    whole = filled(tmp_path / "whole", encoder, tiles)
    cache = FeatureCache(tmp_path / "shared", encoder, tiles)
    cache.fill(4, nothing, process=0, processes=2)
    assert not read_tokens(cache.path, 1).any()
    cache.fill(4, nothing, process=1, processes=2)
    for index in range(len(tiles)):
        expected = read_tokens(whole.path, index)
        torch.testing.assert_close(read_tokens(cache.path, index), expected, rtol=1e-2, atol=1e-2)


def test_key_depends_on_weights_bands_patches_and_tiles(tiles):
    names = [tile.name for tile in tiles]
    encoder = OlmoEarthEncoder("random-v1.2-nano")
    key = cache_key(encoder, names)
    assert cache_key(encoder, names) == key
    assert cache_key(OlmoEarthEncoder("random-v1.2-nano", bands=("B02", "B03")), names) != key
    assert cache_key(encoder, names[1:]) != key
    assert cache_key(OlmoEarthEncoder("random-v1.2-nano", patch_size=4), names) != key
    with torch.no_grad():
        next(encoder.parameters()).add_(1)
    assert cache_key(encoder, names) != key
