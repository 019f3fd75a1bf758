"""Land-cover maps of scenes of any size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from earthvlm.models.olmoearth import OlmoEarthEncoder, PreparedScene, SceneTokens
from earthvlm.models.segmentation_head import SegmentationHead
from earthvlm.scenes.analysis.haze import read_reflectance
from earthvlm.scenes.analysis.spectral_indices import (
    BARE_NDVI,
    COVER_CLASSES,
    MEASURED_AS,
    classify_pixels,
)
from earthvlm.scenes.land_cover import COVERS, NO_DATA, CoverMap
from earthvlm.scenes.reflectance import normalized_difference
from earthvlm.scenes.scene import Scene

# The head's hidden layers take 0.2 kB a pixel, so it reads at most WINDOW pixels along a side at a
# time, and HALO around them, which is more than its convolutions and interpolation reach.
WINDOW, HALO = 512, 16
HOUSES = COVERS.index("built-up land")
# Factors of the head's probabilities, found on the places of the training.
# Where spectral indices are sure of a cover: they find it almost nowhere else, and the head alone
# overlooks thin and broken clouds.
MEASURED_ODDS, LEAST_PROBABILITY = 1000.0, 1e-3
# Burnt land is far more frequent in the training than in the world.
BURNT_ODDS = 0.5
# With the near infrared the head sees houses at the borders of bare fields and of burnt ground.
HOUSES_ODDS = 0.7
# A connected part is houses where some of it is bare, as roofs and streets are, or where the head
# is sure; the borders of fields that it takes for houses are neither. Found on training tiles.
BARE_SHARE_OF_HOUSES, SURE_OF_HOUSES = 0.05, 0.5
# Without it the head overlooks water rather than inventing it, and cloud, which is more frequent,
# looks like snow.
COLOUR_WATER_ODDS, COLOUR_SNOW_ODDS = 1.5, 0.7


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The land cover of a scene, pixel by pixel.

    cover_map: the likeliest cover of each pixel with data. probabilities: float32 `[9, H, W]`, in
    the order of COVERS, summing to 1.
    """

    cover_map: CoverMap
    probabilities: np.ndarray


def segment_tokens(
    encoder: OlmoEarthEncoder,
    head: SegmentationHead,
    scenes: list[PreparedScene],
    in_bfloat16: bool = False,
) -> Tensor:
    """Return logits `[B, 9, H, W]` of prepared scenes of one size and patch size."""
    grids = _as_grids(encoder(scenes, in_bfloat16), encoder.band_sets)
    return head(grids, torch.stack([scene.pixels for scene in scenes]).to(grids.device)).float()


@torch.inference_mode()
def segment_scene(
    encoder: OlmoEarthEncoder,
    head: SegmentationHead,
    scene: Scene,
    in_bfloat16: bool = False,
) -> tuple[Segmentation, SceneTokens]:
    """Map the land cover of a scene of any size; also return the encoder's tokens of it.

    Water, snow and cloud that spectral indices are sure of are taken from them.

    Args:
        encoder: the one that the head was trained with.
        head: classifies the pixels, window by window; the windows do not change the result.
        scene: with any bands.
        in_bfloat16: let the CPU multiply most matrices in it; see `multiplies_bfloat16`.
    """
    prepared = encoder.prepare(scene)
    tokens = encoder([prepared], in_bfloat16)
    grid = _as_grids(tokens, encoder.band_sets)
    pixels = prepared.pixels[None].to(grid.device)
    found = np.empty((len(COVERS), *pixels.shape[1:3]), np.float32)
    for rows in _cut(grid.shape[1], prepared.patch_size):
        for columns in _cut(grid.shape[2], prepared.patch_size):
            with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
                logits = head(
                    grid[:, rows.tokens, columns.tokens], pixels[:, rows.pixels, columns.pixels]
                )
            window = logits[0, :, rows.kept, columns.kept].float().softmax(0)
            found[:, rows.place, columns.place] = window.cpu().numpy()
    probabilities = np.ascontiguousarray(found[:, : scene.height, : scene.width])
    _weigh_knowledge(probabilities, scene)
    classes = probabilities.argmax(0).astype(np.uint8)
    if scene.valid is not None:
        classes[~scene.valid] = NO_DATA
    return Segmentation(CoverMap(classes), probabilities), tokens


def _weigh_knowledge(probabilities: np.ndarray, scene: Scene) -> None:
    """Change `[9, H, W]` in place by what spectral indices found and by how rare a cover is."""
    probabilities[COVERS.index("burnt land")] *= BURNT_ODDS
    classified = classify_pixels(scene)
    if classified is None:
        probabilities[COVERS.index("water")] *= COLOUR_WATER_ODDS
        probabilities[COVERS.index("snow or ice")] *= COLOUR_SNOW_ODDS
    else:
        probabilities[HOUSES] *= HOUSES_ODDS
        for cover, name in MEASURED_AS.items():
            sure = (classified.covers == COVER_CLASSES.index(name)) & ~classified.doubtful
            found = probabilities[COVERS.index(cover)]
            found[sure] = np.maximum(found[sure], LEAST_PROBABILITY) * MEASURED_ODDS
    probabilities /= probabilities.sum(0)
    if classified is not None:
        _take_out_green_houses(probabilities, scene)


def _take_out_green_houses(probabilities: np.ndarray, scene: Scene) -> None:
    """Change `[9, H, W]` in place where a connected part of built-up land is no houses."""
    houses = probabilities.argmax(0) == HOUSES
    parts, count = ndimage.label(houses, np.ones((3, 3)))
    if not count:
        return
    bands = read_reflectance(scene)
    bare = normalized_difference(bands["B08"], bands["B04"]) < BARE_NDVI
    numbers = np.arange(1, count + 1)
    bare_shares = ndimage.mean(bare, parts, numbers)
    certainty = ndimage.mean(probabilities[HOUSES], parts, numbers)
    no_houses = (bare_shares < BARE_SHARE_OF_HOUSES) & (certainty < SURE_OF_HOUSES)
    wrong = np.concatenate([[False], no_houses])[parts]
    probabilities[HOUSES, wrong] = 0
    probabilities[:, wrong] /= probabilities[:, wrong].sum(0)


def _as_grids(tokens: SceneTokens, band_sets: int) -> Tensor:
    """Tokens of scenes of one size, `[B, rows, columns, D_olmo]`, each the mean of band sets."""
    return tokens.tokens.unflatten(1, (*tokens.grids[0], band_sets)).mean(3)


class _Window(NamedTuple):
    """A stretch of one axis: tokens and pixels that are read, pixels that are kept of them."""

    tokens: slice
    pixels: slice
    kept: slice
    place: slice


def _cut(count: int, patch: int) -> Iterator[_Window]:
    """Cut an axis of `count` patches into windows, each read with some pixels around it."""
    step, halo = WINDOW // patch, -(-HALO // patch)
    for start in range(0, count, step):
        end = min(start + step, count)
        first, last = max(start - halo, 0), min(end + halo, count)
        yield _Window(
            slice(first, last),
            slice(first * patch, last * patch),
            slice((start - first) * patch, (end - first) * patch),
            slice(start * patch, end * patch),
        )
