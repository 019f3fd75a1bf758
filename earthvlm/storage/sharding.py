"""Tensors and modules that are sharded across processes (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


def full_tensor(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor from all processes; other tensors are returned unchanged."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def summon_full_params(model: nn.Module) -> Iterator[None]:
    """Gather a sharded model's parameters, so that its submodules can be called directly."""
    from torch.distributed.fsdp import FSDPModule

    if not isinstance(model, FSDPModule):
        yield
        return
    FSDPModule.unshard(model)
    yield
    FSDPModule.reshard(model)
