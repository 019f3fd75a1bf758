"""One step of training: some batches, over all processes together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from earthvlm.objectives import total_loss
from earthvlm.sentences import embed_sentences
from earthvlm.training_data import Batch
from earthvlm.weights import whole

GRADIENT_NORM = 1.0
# A loss beyond this is no longer learning: a mean over tokens starts near 10 at most.
EXPLODED = 1000.0


def take_step(
    accelerator: Accelerator,
    model: nn.Module,
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    step: int,
) -> dict[str, Tensor]:
    """One step over some batches; every answer token and every scene counts alike in it.

    Returns losses by name, means over this process's batches.
    Raises ValueError, which names the step and the tiles, where a loss or a gradient is no number
    or a loss explodes; no weight has then changed.
    """
    counts = torch.tensor(
        [[b.answer_tokens for b in batches], [b.size for b in batches]],
        device=accelerator.device,
        dtype=torch.float,
    )
    totals = accelerator.reduce(counts.sum(1), "sum")
    shares = counts / totals.clamp(min=1)[:, None] * accelerator.num_processes
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=accelerator.device))
    for index, batch in enumerate(batches):
        last = index == len(batches) - 1
        accelerator.sync_gradients = last
        with nullcontext() if last else accelerator.no_sync(model):
            losses = find_losses(accelerator, model, batch)
            tokens = losses.pop("answer_tokens", None)
            weights = {
                # What is gathered from all processes counts once a batch.
                "contrastive": torch.tensor(1 / len(batches), device=accelerator.device),
                "caption": shares[0, index],
            }
            loss = total_loss({n: v * weights.get(n, shares[1, index]) for n, v in losses.items()})
            if not torch.isfinite(loss) or loss > EXPLODED:
                raise _no_longer_learning("loss", loss.item(), step, [batch])
            accelerator.backward(loss)
        for name, value in losses.items():
            sums[name] += value.detach() / len(batches)
        if tokens is not None:
            sums["answer_tokens"] += tokens
    norm = float(whole(torch.as_tensor(accelerator.clip_grad_norm_(parameters, GRADIENT_NORM))))
    # Under fp16 that happens, and its scaler leaves the step out.
    if not math.isfinite(norm) and accelerator.scaler is None:
        raise _no_longer_learning("gradient", norm, step, batches)
    optimizer.step()
    optimizer.zero_grad()
    return sums


def _no_longer_learning(what: str, value: float, step: int, batches: Sequence[Batch]) -> ValueError:
    names = ", ".join(name for batch in batches for name in batch.names)
    return ValueError(
        f"The {what} is {value:g} at step {step}, with {names or 'scenes put together'}: a lower "
        "learning rate may help."
    )


def find_losses(accelerator: Accelerator, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """A batch's losses by name, in the run's precision."""
    device = accelerator.device
    sentences = batch.sentence_embeddings
    if sentences is None:
        # Those of a batch together, so that they are the same whatever came before.
        sentences = torch.from_numpy(embed_sentences(batch.sentences, str(device)))
    with accelerator.autocast():
        return model(batch, sentences.to(device))
