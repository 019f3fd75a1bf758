"""Tensors and modules that several processes hold in shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor whose shards several processes hold, put together; others as they are."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def summon_full_params(model: nn.Module) -> Iterator[None]:
    """Parts of a model can be called by themselves in here; in shards they could not."""
    from torch.distributed.fsdp import FSDPModule

    sharded = isinstance(model, FSDPModule)
    if sharded:
        model.unshard()
    yield
    if sharded:
        model.reshard()
