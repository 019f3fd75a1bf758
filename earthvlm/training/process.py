"""How a training process starts under Accelerate, and how it stops on a signal."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
    broadcast_object_list,
)

from earthvlm.storage.tensors import check_device, has_bfloat16

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def make_accelerator(
    device: str | None, precision: str | None, output_dir: str, log_with: str | None = None
) -> Accelerator:
    """Create the accelerator of this process.

    Args:
        device: "cpu", "cuda", "cuda:N" or "mps"; None leaves the choice to Accelerate.
        precision: "no", "bf16" or "fp16"; None takes the launcher's. A GPU without bfloat16 trains
            in fp16 instead of bf16, and also where no precision is given.

    Raises:
        ValueError: This machine does not have the device or the precision.
    """
    check_device(device)
    end_with_launcher()
    if device and device != "cpu":
        if ":" in device and int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ValueError(
                f"--device {device} is one GPU, and several processes were launched: leave it out."
            )
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:
            os.environ["ACCELERATE_TORCH_DEVICE"] = device
    requested = precision or os.environ.get("ACCELERATE_MIXED_PRECISION")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    chosen = requested
    if on_gpu and not has_bfloat16(torch.device(device or "cuda")) and requested in (None, "bf16"):
        chosen = "fp16"
    accelerator = Accelerator(
        log_with=log_with,
        project_dir=output_dir,
        mixed_precision=chosen,
        cpu=device == "cpu",
        # OlmoEarth's encoder has pretraining heads that training never calls.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if chosen != requested:
        accelerator.print("This GPU has no bfloat16: training runs in fp16, with a loss scale.")
    _shard_on_cpu(accelerator)
    _warn_of_missing_processes(accelerator)
    return accelerator


def _shard_on_cpu(accelerator: Accelerator) -> None:
    """Shard with FSDP on CPUs too if the launcher asks for it; Accelerate itself would not."""
    requested = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    if requested and accelerator.distributed_type == DistributedType.MULTI_CPU:
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()


def _warn_of_missing_processes(accelerator: Accelerator) -> None:
    """Warn that `accelerate launch --cpu --num_processes 2` starts a single process.

    It leaves the rendezvous address in the environment, but no process count.
    """
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    if on_cpu and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        accelerator.print(
            "One process trains: `accelerate launch --cpu` starts no more, whatever "
            "--num_processes says. For several on CPUs: accelerate launch --multi_gpu "
            "--num_processes N -m earthvlm.train --device cpu."
        )


def end_with_launcher() -> None:
    """Let Linux send SIGTERM to this process when its launcher dies.

    `accelerate launch` with one process forwards no signal: without this, the training would
    continue as an orphan after the launcher got its SIGTERM. A run without a launcher is not
    affected, so it survives the shell that started it.
    """
    launched = os.environ.keys() & {"ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"}
    if launched and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Let the CPU take numbers below 1e-38 for zero.

    Gradients are that small where a model is sure, and a processor computes with such numbers many
    times more slowly. OpenMP's threads inherit this if they are started inside.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def on_main_process(check: Callable[[], None]) -> None:
    """Call a check in the main process only. If it raises ValueError, every process raises it."""
    refusal: list[str | None] = [None]
    if PartialState().is_main_process:
        try:
            check()
        except ValueError as error:
            refusal = [str(error)]
    broadcast_object_list(refusal)
    if refusal[0] is not None:
        raise ValueError(refusal[0])


class TrainingInterrupted(Exception):
    """Raised when a run ends on a signal; its text says where the run stopped.

    number: the signal's.
    """

    def __init__(self, where: str, number: int) -> None:
        super().__init__(where)
        self.number = number


class GracefulShutdown:
    """Records SIGTERM and SIGINT while entered, so that the loop can end after its step.

    A second SIGINT interrupts the process at once.
    """

    def __init__(self) -> None:
        self.number = 0
        self._interruptible: str | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.number != 0

    def __enter__(self) -> GracefulShutdown:
        numbers = (signal.SIGTERM, signal.SIGINT)
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def interruptible(self, where: str) -> Iterator[None]:
        """Raise TrainingInterrupted as soon as a signal arrives, for work no checkpoint holds."""
        self._interruptible = where
        try:
            if self.requested:
                raise TrainingInterrupted(where, self.number)
            yield
        finally:
            self._interruptible = None

    def _handle(self, number: int, _: object) -> None:
        if self.number == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        if self._interruptible is not None:
            raise TrainingInterrupted(self._interruptible, number)
