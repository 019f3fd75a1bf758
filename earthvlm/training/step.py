"""One step of training: a group of accumulated batches, in all processes together."""

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
from earthvlm.training.batches.samples import Batch, FailedSample
from earthvlm.training.losses.training_model import Loss, Normalizer

GRADIENT_NORM = 1.0
# Beyond this, training has diverged: a mean over tokens starts at 10 or below.
EXPLODED = 1000.0


class TrainingFailure(ValueError):
    """Raised, by all processes at the same place, when training cannot continue."""


def fail_together(accelerator: Accelerator, reason: str | None) -> None:
    """Raise TrainingFailure in all processes if one of them gives a reason.

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
    """Group the batches of each step; the last step of an epoch may have fewer.

    Raises TrainingFailure, in all processes, for a batch that one of them could not prepare.
    """
    groups = group_batches(read_batches(loader), size)
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
    """One sentence if torch reports, by whatever error, that a worker was killed; None if not."""
    if not str(error).startswith("DataLoader worker"):
        return None
    return (
        "A data loader process was killed, often because memory ran out: use a smaller "
        "--num_workers."
    )


def group_batches(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of `size` batches; the last may be shorter."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def read_batches(loader: Iterable[Batch | FailedSample]) -> Iterator[Batch]:
    """A loader's batches. Raises ValueError for one that could not be prepared."""
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
    """Take one optimizer step over a group of batches, in which every answer token counts alike.

    Returns losses by name: means over this process's batches.
    Raises TrainingFailure, naming the step and the tiles, for a loss or a gradient that is not
    finite and for an exploding loss, before any weight has changed.
    """
    shares = _shares(accelerator, batches)
    means: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=accelerator.device))
    problem = None
    for index, batch in enumerate(batches):
        last = index == len(batches) - 1
        accelerator.sync_gradients = last
        with nullcontext() if last else accelerator.no_sync(model):
            losses = compute_losses(accelerator, model, batch)
            weighted = (
                loss.weight * (loss.value * shares[loss.normalizer][index])
                for loss in losses.values()
            )
            total = sum(weighted, torch.zeros((), device=accelerator.device))
            if not torch.isfinite(total) or total > EXPLODED:
                problem = problem or _describe("loss", total.item(), step, [batch])
            # Even if the loss exploded, because other processes wait for its gradients.
            accelerator.backward(total)
        for name, loss in losses.items():
            means[name] += loss.value.detach() / len(batches)
    norm = float(
        full_tensor(torch.as_tensor(accelerator.clip_grad_norm_(parameters, GRADIENT_NORM)))
    )
    # In fp16 infinite gradients are normal: the loss scaler skips the step.
    if problem is None and not math.isfinite(norm) and accelerator.scaler is None:
        problem = _describe("gradient", norm, step, batches)
    fail_together(accelerator, problem)
    optimizer.step()
    optimizer.zero_grad()
    return means


def _shares(accelerator: Accelerator, batches: Sequence[Batch]) -> dict[Normalizer, Tensor]:
    """Each batch's share of a step by normalizer, `[batches]`.

    Multiplied by the number of processes, because data parallelism takes the mean over them.
    """
    counts = torch.tensor(
        [[normalizer.count(batch) for batch in batches] for normalizer in Normalizer],
        device=accelerator.device,
        dtype=torch.float,
    )
    totals = accelerator.reduce(counts.sum(1), "sum")
    shares = counts / totals.clamp(min=1)[:, None] * accelerator.num_processes
    return dict(zip(Normalizer, shares, strict=True))


def _describe(what: str, value: float, step: int, batches: Sequence[Batch]) -> str:
    names = ", ".join(name for batch in batches for name in batch.names)
    return (
        f"The {what} is {value:g} at step {step}, with {names or 'feature mosaics'}: a lower "
        "learning rate may help."
    )


def compute_losses(accelerator: Accelerator, model: nn.Module, batch: Batch) -> dict[str, Loss]:
    """A batch's losses by name, computed in the run's precision."""
    device = accelerator.device
    sentences = batch.sentence_embeddings
    if batch.pixel_labels is not None:
        sentences = torch.zeros(0)
    elif sentences is None:
        # All of a batch in one call, because results depend on what is embedded together.
        sentences = torch.from_numpy(embed_sentences(batch.sentences, str(device)))
        for index, sentence in enumerate(batch.sentences):
            if not sentence:
                sentences[index] = 0
    with accelerator.autocast():
        return model(batch, sentences.to(device))
