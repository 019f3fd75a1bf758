"""One step of training: some batches, over all processes together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from earthvlm.models.text_encoder import embed_sentences
from earthvlm.storage.sharding import full_tensor
from earthvlm.training.losses import total_loss
from earthvlm.training.samples import Batch, FailedSample

GRADIENT_NORM = 1.0
# A loss beyond this is no longer learning: a mean over tokens starts near 10 at most.
EXPLODED = 1000.0


class TrainingFailure(ValueError):
    """Why training cannot continue, in one sentence; all processes raise it at the same place."""


def fail_together(accelerator: Accelerator, reason: str | None) -> None:
    """Raise TrainingFailure in all processes where one of them has a reason to.

    All processes call this together; a process that raised alone would leave the others waiting.
    """
    failed = reason is not None
    if accelerator.num_processes > 1:
        flag = torch.tensor(float(failed), device=accelerator.device)
        failed = accelerator.reduce(flag, "sum").item() > 0
    if failed:
        raise TrainingFailure(next(r for r in gather_object([reason]) if r is not None))


def accumulation_groups(
    accelerator: Accelerator, loader: Iterable[Batch | FailedSample], size: int
) -> Iterator[list[Batch]]:
    """Batches of a step together; the last step of an epoch may have fewer.

    Raises TrainingFailure, in all processes, for a batch that one of them could not make.
    """
    groups = _group(read_batches(loader), size)
    while True:
        group, problem = None, None
        try:
            group = next(groups, None)
        except (ValueError, OSError) as error:
            problem = str(error)
        except RuntimeError as error:
            problem = describe_worker_death(error)
            if problem is None:
                raise
        fail_together(accelerator, problem)
        if group is None:
            return
        yield group


def describe_worker_death(error: BaseException) -> str | None:
    """One sentence where torch reports that a worker was killed, at whatever place; None else."""
    if not str(error).startswith("DataLoader worker"):
        return None
    return (
        "A process that prepares scenes was killed, often because memory was short: use a smaller "
        "--num_workers."
    )


def _group(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def read_batches(loader: Iterable[Batch | FailedSample]) -> Iterator[Batch]:
    """A loader's batches. Raises ValueError, in one sentence, for one that could not be made."""
    for batch in loader:
        if isinstance(batch, FailedSample):
            raise ValueError(batch.reason)
        yield batch


def train_step(
    accelerator: Accelerator,
    model: nn.Module,
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    step: int,
) -> dict[str, Tensor]:
    """One step over some batches; every answer token and every scene counts alike in it.

    Returns losses by name, means over this process's batches.
    Raises TrainingFailure, which names the step and the tiles, where a loss or a gradient is no
    number or a loss explodes; no weight has then changed.
    """
    counts = torch.tensor(
        [[b.answer_tokens for b in batches], [b.size for b in batches]],
        device=accelerator.device,
        dtype=torch.float,
    )
    totals = accelerator.reduce(counts.sum(1), "sum")
    shares = counts / totals.clamp(min=1)[:, None] * accelerator.num_processes
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=accelerator.device))
    problem = None
    for index, batch in enumerate(batches):
        last = index == len(batches) - 1
        accelerator.sync_gradients = last
        with nullcontext() if last else accelerator.no_sync(model):
            losses = compute_losses(accelerator, model, batch)
            tokens = losses.pop("answer_tokens", None)
            weights = {
                # What is gathered from all processes counts once a batch.
                "contrastive": torch.tensor(1 / len(batches), device=accelerator.device),
                "caption": shares[0, index],
            }
            loss = total_loss({n: v * weights.get(n, shares[1, index]) for n, v in losses.items()})
            if not torch.isfinite(loss) or loss > EXPLODED:
                problem = problem or _describe("loss", loss.item(), step, [batch])
            # Of a loss that exploded too: other processes wait for its gradients.
            accelerator.backward(loss)
        for name, value in losses.items():
            sums[name] += value.detach() / len(batches)
        if tokens is not None:
            sums["answer_tokens"] += tokens
    norm = float(
        full_tensor(torch.as_tensor(accelerator.clip_grad_norm_(parameters, GRADIENT_NORM)))
    )
    # Under fp16 that happens, and its scaler leaves the step out.
    if problem is None and not math.isfinite(norm) and accelerator.scaler is None:
        problem = _describe("gradient", norm, step, batches)
    fail_together(accelerator, problem)
    optimizer.step()
    optimizer.zero_grad()
    return sums


def _describe(what: str, value: float, step: int, batches: Sequence[Batch]) -> str:
    names = ", ".join(name for batch in batches for name in batch.names)
    return (
        f"The {what} is {value:g} at step {step}, with {names or 'scenes put together'}: a lower "
        "learning rate may help."
    )


def compute_losses(accelerator: Accelerator, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """A batch's losses by name, in the run's precision."""
    device = accelerator.device
    sentences = batch.sentence_embeddings
    if sentences is None:
        # Those of a batch together, so that they are the same whatever came before.
        sentences = torch.from_numpy(embed_sentences(batch.sentences, str(device)))
    with accelerator.autocast():
        return model(batch, sentences.to(device))
