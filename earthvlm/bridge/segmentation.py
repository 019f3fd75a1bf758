"""Land-cover maps of scenes of any size, window by window."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from earthvlm.models.olmoearth import CROP_SIZE, OlmoEarthEncoder, PreparedScene
from earthvlm.models.segmentation_head import SegmentationHead
from earthvlm.scenes.land_cover import COVERS, NO_DATA, CoverMap
from earthvlm.scenes.scene import Scene

# Pixels that neighbouring windows share; their probabilities fade from one window to the other.
OVERLAP = 16
WINDOWS_AT_ONCE = 8


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
    encoded = encoder(scenes, in_bfloat16)
    rows, columns = encoded.grids[0]
    # The band sets of a patch are neighbouring tokens.
    tokens = encoded.tokens.unflatten(1, (rows, columns, encoder.band_sets)).mean(3)
    pixels = torch.stack([scene.pixels for scene in scenes]).to(tokens.device)
    with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
        return head(tokens, pixels).float()


@torch.inference_mode()
def segment_scene(
    encoder: OlmoEarthEncoder,
    head: SegmentationHead,
    scene: Scene,
    in_bfloat16: bool = False,
) -> Segmentation:
    """Map the land cover of a scene of any size in overlapping windows.

    in_bfloat16: let the CPU multiply most matrices in it; see `multiplies_bfloat16`.
    """
    prepared = encoder.prepare(scene)
    height, width = prepared.pixels.shape[:2]
    total = np.zeros((len(COVERS), height, width), np.float32)
    weights = np.zeros((height, width), np.float32)
    for places, windows in _cut_windows(prepared):
        logits = segment_tokens(encoder, head, windows, in_bfloat16)
        taper = _taper(*logits.shape[2:])
        for (top, left), found in zip(places, logits.softmax(1).cpu().numpy(), strict=True):
            at = slice(top, top + taper.shape[0]), slice(left, left + taper.shape[1])
            total[:, at[0], at[1]] += found * taper
            weights[at] += taper
    probabilities = (total / weights)[:, : scene.height, : scene.width]
    classes = probabilities.argmax(0).astype(np.uint8)
    if scene.valid is not None:
        classes[~scene.valid] = NO_DATA
    return Segmentation(CoverMap(classes), np.ascontiguousarray(probabilities))


def _cut_windows(
    scene: PreparedScene,
) -> Iterator[tuple[list[tuple[int, int]], list[PreparedScene]]]:
    """Cut a scene into batches of equal windows, with the row and column where each begins."""
    height, width = scene.pixels.shape[:2]
    by_size = defaultdict(list)
    for top in _starts(height, scene.patch_size):
        for left in _starts(width, scene.patch_size):
            size = min(CROP_SIZE, height - top), min(CROP_SIZE, width - left)
            by_size[size].append((top, left))
    for (rows, columns), places in by_size.items():
        for start in range(0, len(places), WINDOWS_AT_ONCE):
            some = places[start : start + WINDOWS_AT_ONCE]
            yield (
                some,
                [
                    PreparedScene(
                        scene.pixels[top : top + rows, left : left + columns],
                        scene.timestamp,
                        scene.patch_size,
                    )
                    for top, left in some
                ],
            )


def _starts(length: int, patch: int) -> list[int]:
    """Where windows begin along a side: evenly, on borders of patches, and overlapping."""
    if length <= CROP_SIZE:
        return [0]
    count = -(-(length - OVERLAP) // (CROP_SIZE - OVERLAP))
    return [round(x / patch) * patch for x in np.linspace(0, length - CROP_SIZE, count)]


def _taper(height: int, width: int) -> np.ndarray:
    """A window's weights `[H, W]`: 1 in the middle, falling towards its edges."""
    rows, columns = (
        np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)).clip(max=OVERLAP) / OVERLAP
        for side in (height, width)
    )
    return (rows[:, None] * columns).astype(np.float32)
