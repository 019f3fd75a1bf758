"""The segmentation head: from OlmoEarth's tokens and the pixels themselves to land cover."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.land_cover import COVERS

WIDTH = 48
# Added to reflectance (0 to 1) before its logarithm: about the noise of a dark pixel.
DARKEST = 0.01
# Reflectance that becomes 0 after the logarithm, and the largest that is distinguished.
MIDDLE, BRIGHTEST = 0.1, 1.2


class SegmentationHead(nn.Module):
    """Classifies each pixel by its own bands, its neighbourhood and the token of its patch.

    The tokens know the surroundings but are coarser than pixels; a few convolutions over the
    pixels give back the borders. Of every band the head reads its reflectance, its logarithm
    (differences of logarithms are ratios of bands, which light and slope change least) and whether
    it is there.

    Args:
        token_dim: width of the encoder's tokens, `D_olmo`.
        black, white: `[12]`, the normalized values of reflectance 0 and 1, to undo normalization.
        width: of the hidden layers.
    """

    black: Tensor
    white: Tensor

    def __init__(self, token_dim: int, black: Tensor, white: Tensor, width: int = WIDTH) -> None:
        super().__init__()
        self.register_buffer("black", black.float(), persistent=False)
        self.register_buffer("white", white.float(), persistent=False)
        self.stem = nn.Conv2d(3 * len(BANDS), width, 3, padding=1)
        self.token = nn.Sequential(nn.LayerNorm(token_dim), nn.Linear(token_dim, width))
        self.near = nn.Conv2d(width, width, 3, padding=1)
        self.far = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.classify = nn.Conv2d(width, len(COVERS), 1)

    def forward(self, tokens: Tensor, pixels: Tensor) -> Tensor:
        """Return logits `[B, 9, H, W]` in the order of COVERS.

        Args:
            tokens: `[B, rows, columns, D_olmo]`, one for each patch.
            pixels: `[B, H, W, 12]`, normalized; a missing band is 0 throughout.
        """
        height, width = pixels.shape[1:3]
        seen = self.stem(self._read_pixels(pixels))
        coarse = self.token(tokens.to(seen.dtype)).permute(0, 3, 1, 2)
        around = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
        x = F.gelu(seen + around)
        x = x + F.gelu(self.near(x))
        x = x + F.gelu(self.far(x))
        return self.classify(x)

    def _read_pixels(self, pixels: Tensor) -> Tensor:
        """Reflectance, its logarithm and the presence of each band, `[B, 36, H, W]`."""
        present = (pixels != 0).flatten(1, 2).any(1)[:, None, None].expand_as(pixels)
        reflectance = ((pixels - self.black) / (self.white - self.black)).clamp(0, BRIGHTEST)
        logarithm = (reflectance + DARKEST).log() - math.log(MIDDLE)
        zero = torch.zeros((), dtype=pixels.dtype, device=pixels.device)
        parts = (
            torch.where(present, reflectance - MIDDLE, zero),
            torch.where(present, logarithm, zero),
            present.to(pixels.dtype),
        )
        return torch.cat(parts, dim=3).permute(0, 3, 1, 2)
