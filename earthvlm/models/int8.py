"""Layers whose weights take 8 bits: half the memory of bfloat16, half as much to read a token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# From so many rows on, widening the weights and multiplying as usual is quicker than torch's kernel
# for 8 bits, which reads them once for a few rows at a time (measured by benchmarks.moondream2).
DEQUANTIZE_FROM = 16
# Rows that are rounded at once: few, or a large vocabulary's numbers would be kept twice.
ROWS_AT_ONCE = 4096


class Int8Linear(nn.Module):
    """`nn.Linear` with its weights in 8 bits and a scale for each row; for answering alone.

    It computes in the type of the layer it is made of.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self._keep(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to `[..., D_in]`; returns `[..., D_out]`."""
        flat = x.flatten(0, -2)
        if x.device.type == "cpu" and len(flat) < DEQUANTIZE_FROM:
            seen = torch.ops.aten._weight_int8pack_mm(flat, self.weight, self.scale)
        else:
            # Whole numbers of 8 bits are exact in bfloat16.
            seen = F.linear(flat, self.weight.to(x.dtype)) * self.scale
        seen = seen if self.bias is None else seen + self.bias
        return seen.unflatten(0, x.shape[:-1])

    def dequantize(self) -> Tensor:
        """The weights as numbers with fractions, `[out, in]`."""
        return self.weight * self.scale[:, None]

    def add_(self, update: Tensor) -> None:
        """Add to the weights `[out, in]`, which are rounded anew."""
        self._keep(self.dequantize() + update)

    def _keep(self, weight: Tensor) -> None:
        parts = [_round(rows) for rows in weight.detach().split(ROWS_AT_ONCE)]
        self.register_buffer("weight", torch.cat([rows for rows, _ in parts]))
        self.register_buffer("scale", torch.cat([scale for _, scale in parts]))


def quantize(model: nn.Module, name: str) -> None:
    """Put an `Int8Linear` in the place of this layer, if it is a linear one."""
    parent, _, child = name.rpartition(".")
    owner = model.get_submodule(parent)
    linear = getattr(owner, child)
    if isinstance(linear, nn.Linear):
        setattr(owner, child, Int8Linear(linear))


def keep_all_in_int8(model: nn.Module) -> None:
    """Put an `Int8Linear` in the place of every linear layer of a model."""
    for name in [name for name, _ in model.named_modules() if name]:
        quantize(model, name)


def _round(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127, and what to multiply each row with, `[rows]`."""
    largest = rows.abs().amax(1, keepdim=True).float()
    # Rounded first: the whole numbers are those that fit the scale that is kept.
    scale = (largest / 127).clamp(min=1e-12).to(rows.dtype)
    whole = (rows.float() / scale.float()).round().clamp(-127, 127)
    return whole.to(torch.int8), scale[:, 0]
