"""Feature mosaics: the tokens and labels of scenes joined from encoded crops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from earthvlm.data.labels import LAND_COVER, QUARTERS, SceneLabels
from earthvlm.models.olmoearth import OlmoEarthEncoder
from earthvlm.training.batches.encoded_scenes import (
    MAX_TOKENS,
    EncodedCrop,
    FeatureMosaics,
    collate_mosaics,
)
from earthvlm.training.batches.sampler import SampleKey
from tests.conftest import random_scene


def _crop(number: int, size: int = 16) -> EncodedCrop:
    """A crop of one land cover, whose tokens all hold its number."""
    cover = np.zeros((4, 4, len(LAND_COVER)), np.float32)
    cover[..., number % len(LAND_COVER)] = 1
    clear = np.zeros((4, 4), np.float32)
    return EncodedCrop(
        torch.full((size, size, 1, 3), float(number)), SceneLabels(cover, clear, clear, None)
    )


def test_mosaic_joins_tokens_and_labels_of_its_crops():
    crops = [_crop(number) for number in range(6)] + [_crop(0, size=8)]
    mosaics = FeatureMosaics(crops, seed=0)
    kinds = set()
    for index in range(6):
        scene, sentence = mosaics[SampleKey(0, index, (2, 2, 1))]
        assert scene.tokens.shape == (32, 32, 1, 3)
        for row, rows in enumerate(("top", "bottom")):
            for column, columns in enumerate(("left", "right")):
                number = int(scene.tokens[16 * row, 16 * column, 0, 0])
                kinds.add(number)
                quarter = scene.labels.quarter(f"{rows} {columns}")
                assert quarter.dominant == LAND_COVER[number]
        assert sentence
    assert len(kinds) > 3 and set(QUARTERS) == {
        f"{r} {c}" for r in ("top", "bottom") for c in ("left", "right")
    }
    again, _ = FeatureMosaics(crops, seed=0)[SampleKey(0, 3, (2, 2, 1))]
    assert torch.equal(again.tokens, mosaics[SampleKey(0, 3, (2, 2, 1))][0].tokens)
    assert mosaics[SampleKey(0, 6, (1, 1, 1))][0].tokens.shape == (8, 8, 1, 3)


def test_crops_encode_like_the_whole_scene():
    encoder = OlmoEarthEncoder("random-v1.2-nano").eval()
    scene = random_scene(128, 256)
    with torch.no_grad():
        whole = encoder([encoder.prepare(scene)])
        halves = []
        for half in (scene.reflectance[:, :128], scene.reflectance[:, 128:]):
            seen = encoder([encoder.prepare(replace(scene, reflectance=half))])
            halves.append(seen.tokens[0].unflatten(0, (16, 16, 1)))
    labels = _crop(0).labels
    batch = collate_mosaics([(EncodedCrop(torch.cat(halves, dim=1), labels), "words")])
    torch.testing.assert_close(batch.tokens.tokens, whole.tokens)
    torch.testing.assert_close(batch.tokens.positions, whole.positions)


def test_large_mosaic_keeps_some_of_its_tokens():
    mosaics = FeatureMosaics([_crop(number) for number in range(6)], seed=0)
    batch = collate_mosaics([mosaics[SampleKey(0, i, (3, 3, 1))] for i in range(2)])
    assert batch.tokens.tokens.shape == (2, MAX_TOKENS, 3)
    assert batch.tokens.mask.all()
    assert len(batch.tokens.positions[0].unique(dim=0)) == MAX_TOKENS
    known = torch.tensor(batch.labels[0].land_cover.mean((0, 1)))
    covers = batch.tokens.tokens[0, :, 0]
    shares = torch.stack([(covers == n).float().mean() for n in range(len(known))])
    assert (shares - known).abs().max() < 0.05
