"""Moondream2's vision tower: from a picture in overlapping crops to tokens for the text model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, floor, sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import SiglipVisionConfig

MARGIN = 4  # patches that neighbouring crops share on each side
MAX_CROPS = 12


@dataclass(frozen=True)
class PictureCrops:
    """A picture as the vision tower takes it.

    Attributes:
        pixels: uint8 `[1 + rows x columns, 3, S, S]`, the full picture first.
        tiling: the number of crops from top to bottom and from left to right.
    """

    pixels: Tensor
    tiling: tuple[int, int]


class VisionTower(nn.Module):
    """SigLIP over crops, then a projection of each patch's global and local features.

    Args:
        config: of transformers' SigLIP.
        hidden: width of the projection's hidden layer.
        text_dim: width of the projection's output, `D_text`.
    """

    def __init__(self, config: SiglipVisionConfig, hidden: int, text_dim: int) -> None:
        from transformers import SiglipVisionModel

        super().__init__()
        self.crop_size, self.patch_size = config.image_size, config.patch_size
        self.encoder = SiglipVisionModel(config)
        self.projection = nn.ModuleDict(
            {
                "fc1": nn.Linear(2 * config.hidden_size, hidden),
                "fc2": nn.Linear(hidden, text_dim),
            }
        )

    @property
    def num_tokens(self) -> int:
        """The number of tokens of a picture of any size."""
        return (self.crop_size // self.patch_size) ** 2

    @property
    def cut(self) -> Callable[[Image.Image], PictureCrops]:
        """The function that cuts a picture into crops; data loader workers can run it."""
        return partial(cut_crops, crop_size=self.crop_size, patch_size=self.patch_size)

    def forward(self, pictures: Sequence[PictureCrops]) -> Tensor:
        """Encode pictures of any tilings to `[B, patches, D_text]`."""
        weight = next(self.projection.parameters())
        pixels = torch.cat([p.pixels for p in pictures]).to(weight.device, weight.dtype)
        features = self.encoder(pixels / 127.5 - 1).last_hidden_state
        side = self.crop_size // self.patch_size
        views = []
        for picture, crops in zip(
            pictures, features.split([len(p.pixels) for p in pictures]), strict=True
        ):
            overall, parts = crops[0], crops[1:].unflatten(1, (side, side))
            stitched = stitch(parts, picture.tiling).permute(2, 0, 1)
            local = F.adaptive_avg_pool2d(stitched, (side, side)).flatten(1).T
            views.append(torch.cat([overall, local], dim=1))
        hidden = F.gelu(self.projection["fc1"](torch.stack(views)), approximate="tanh")
        return self.projection["fc2"](hidden)


def choose_tiling(height: int, width: int, window: int) -> tuple[int, int]:
    """Choose the rows and columns of crops for a picture of this size without its outer margins."""
    if height <= window or width <= window:
        return 1, 1
    rows, columns = ceil(height / window), ceil(width / window)
    if rows * columns > MAX_CROPS:
        shrink = sqrt(MAX_CROPS / (rows * columns))
        return max(1, floor(rows * shrink)), max(1, floor(columns * shrink))
    rows = max(rows, floor(sqrt(MAX_CROPS * height / width)))
    columns = max(columns, floor(sqrt(MAX_CROPS * width / height)))
    if rows * columns > MAX_CROPS:
        if columns > rows:
            columns = MAX_CROPS // rows
        else:
            rows = MAX_CROPS // columns
    return max(1, rows), max(1, columns)


def cut_crops(picture: Image.Image, crop_size: int, patch_size: int) -> PictureCrops:
    """Resize the full picture and cut crops that overlap by their margins, `crop_size` a side."""
    picture = picture.convert("RGB")
    margin = 2 * MARGIN * patch_size
    window = crop_size - margin
    rows, columns = choose_tiling(picture.height - margin, picture.width - margin, window)
    fitted = picture.resize(
        (columns * window + margin, rows * window + margin), Image.Resampling.LANCZOS
    )
    full = picture.resize((crop_size, crop_size), Image.Resampling.LANCZOS)
    crops = [full] + [
        fitted.crop((left, top, left + crop_size, top + crop_size))
        for top in range(0, rows * window, window)
        for left in range(0, columns * window, window)
    ]
    pixels = torch.from_numpy(np.stack([np.asarray(crop) for crop in crops]))
    return PictureCrops(pixels.permute(0, 3, 1, 2).contiguous(), (rows, columns))


def stitch(crops: Tensor, tiling: tuple[int, int]) -> Tensor:
    """Join crops `[rows x columns, S, S, D]` to one grid `[H, W, D]` without inner margins."""
    rows, columns = tiling
    lines = []
    for row in range(rows):
        top, bottom = MARGIN * (row > 0), MARGIN * (row < rows - 1)
        line = []
        for column in range(columns):
            left, right = MARGIN * (column > 0), MARGIN * (column < columns - 1)
            crop = crops[row * columns + column]
            line.append(crop[top : crop.shape[0] - bottom, left : crop.shape[1] - right])
        lines.append(torch.cat(line, dim=1))
    return torch.cat(lines, dim=0)
