"""The loss of the segmentation head, from sets of possible covers and from shares of areas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from earthvlm.data.pixel_labels import ANY, PixelLabels
from earthvlm.scenes.land_cover import COVERS

# Areas of fewer pixels than this are left out.
MIN_AREA_PIXELS = 64
AREA_WEIGHT = 1.0
# Rare covers count more, up to this ratio to frequent ones.
RAREST = 5.0


def segmentation_loss(logits: Tensor, labels: Sequence[PixelLabels]) -> Tensor:
    """Mean loss of scenes of one size, from logits `[B, 9, H, W]`.

    A pixel's loss is the negative log-probability of its possible covers together; pixels that can
    be anything have none. Pixels of rare covers count more. An area's loss is the divergence of its
    mean probabilities from its shares.
    """
    logs = logits.log_softmax(1)
    sets = torch.from_numpy(np.stack([one.possible for one in labels]).astype(np.int32))
    sets = sets.to(logits.device)
    bits = torch.arange(len(COVERS), device=logits.device)[:, None, None]
    possible = (sets[:, None] >> bits) & 1 > 0
    by_pixel = -logs.masked_fill(~possible, -torch.inf).logsumexp(1)
    weights = _weigh_pixels(sets, possible)
    total = (by_pixel * weights).sum() / weights.sum().clamp(min=1)
    areas = [_area_loss(log.exp(), one) for log, one in zip(logs, labels, strict=True)]
    known = [loss for loss in areas if loss is not None]
    return total + AREA_WEIGHT * torch.stack(known).sum() / len(labels) if known else total


def _weigh_pixels(sets: Tensor, possible: Tensor) -> Tensor:
    """The weight of each pixel, `[B, H, W]`: 0 where nothing is known, larger for rare covers."""
    count = possible.sum(1)
    certain = possible & (count == 1)[:, None]
    number = certain.sum((0, 2, 3)).float()
    rarity = (number.max().clamp(min=1) / number.clamp(min=1)).sqrt().clamp(max=RAREST)
    weights = torch.where(count == 1, (certain * rarity[:, None, None]).sum(1), 1.0)
    return torch.where(sets == ANY, 0.0, weights)


def _area_loss(probabilities: Tensor, labels: PixelLabels) -> Tensor | None:
    """The mean divergence of a scene's areas, from `[9, H, W]`; None where it has no area."""
    count = len(labels.shares)
    areas = torch.from_numpy(labels.areas.astype(np.int64)).to(probabilities.device).flatten()
    inside = areas >= 0
    if not count or not inside.any():
        return None
    pixels = probabilities.flatten(1)[:, inside]
    sums = pixels.new_zeros(len(COVERS), count).index_add(1, areas[inside], pixels)
    numbers = torch.bincount(areas[inside], minlength=count)
    means = (sums / numbers.clamp(min=1)).T.clamp(min=1e-4)
    shares = torch.from_numpy(labels.shares).to(means)
    # Not xlogy of the ratio, whose gradient is not a number where a share is 0.
    divergence = (shares * (shares.clamp(min=1e-4) / means).log()).sum(1)
    large = numbers >= MIN_AREA_PIXELS
    return divergence[large].mean() if large.any() else None
