"""Linear layers with 8-bit weights: half the memory of bfloat16, and half the memory traffic."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The number of rows from which dequantizing the weights is faster than torch's 8-bit kernel, which
# reads all weights once for a few rows (measured by benchmarks.moondream2).
DEQUANTIZE_FROM = 16
# Rows that are quantized at once: few, or a large vocabulary's matrix would be in memory twice.
CHUNK_ROWS = 4096


class Int8Linear(nn.Module):
    """`nn.Linear` with 8-bit weights and a scale for each row; for inference only.

    It computes in the dtype of the layer it replaces.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self._store(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to `[..., D_in]`; returns `[..., D_out]`."""
        flat = x.flatten(0, -2)
        if x.device.type == "cpu" and len(flat) < DEQUANTIZE_FROM:
            y = torch.ops.aten._weight_int8pack_mm(flat, self.weight, self.scale)
        else:
            # 8-bit integers are exact in bfloat16.
            y = F.linear(flat, self.weight.to(x.dtype)) * self.scale
        y = y if self.bias is None else y + self.bias
        return y.unflatten(0, x.shape[:-1])

    def dequantize(self) -> Tensor:
        """The weights in the dtype of the replaced layer, `[out, in]`."""
        return self.weight * self.scale[:, None]

    def add_(self, update: Tensor) -> None:
        """Add an update to the weights `[out, in]`, and quantize them again."""
        self._store(self.dequantize() + update)

    def _store(self, weight: Tensor) -> None:
        parts = [_round(rows) for rows in weight.detach().split(CHUNK_ROWS)]
        self.register_buffer("weight", torch.cat([rows for rows, _ in parts]))
        self.register_buffer("scale", torch.cat([scale for _, scale in parts]))


def quantize(model: nn.Module, name: str) -> None:
    """Replace the layer of this name by an `Int8Linear`, if it is linear."""
    parent, _, child = name.rpartition(".")
    owner = model.get_submodule(parent)
    linear = getattr(owner, child)
    if isinstance(linear, nn.Linear):
        setattr(owner, child, Int8Linear(linear))


def quantize_all(model: nn.Module) -> None:
    """Replace every linear layer of a model by an `Int8Linear`."""
    for name in [name for name, _ in model.named_modules() if name]:
        quantize(model, name)


def _round(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Round rows to integers from -127 to 127; return them and the scale of each row, `[rows]`."""
    largest = rows.abs().amax(1, keepdim=True).float()
    # The scale is rounded first, so that the integers fit the scale that is stored.
    scale = (largest / 127).clamp(min=1e-12).to(rows.dtype)
    integers = (rows.float() / scale.float()).round().clamp(-127, 127)
    return integers.to(torch.int8), scale[:, 0]
