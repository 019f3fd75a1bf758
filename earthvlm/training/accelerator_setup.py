"""How a training run starts under Accelerate: its device, its precision, its launcher."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
)

from earthvlm.storage.tensors import check_device, has_bfloat16

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def make_accelerator(
    device: str | None, precision: str | None, output_dir: str, log_with: str | None = None
) -> Accelerator:
    """Accelerate's state for this process, on a device and in a precision that exist.

    device: "cpu", "cuda", "cuda:N" or "mps"; Accelerate's own choice where it is None.
    precision: "no", "bf16" or "fp16"; the launcher's where it is None. On a GPU without bfloat16,
        fp16 takes the place of bf16, and of nothing at all.

    Raises ValueError for a device or a precision that this machine does not have.
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
    asked = precision or os.environ.get("ACCELERATE_MIXED_PRECISION")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    chosen = asked
    if on_gpu and not has_bfloat16(torch.device(device or "cuda")) and asked in (None, "bf16"):
        chosen = "fp16"
    accelerator = Accelerator(
        log_with=log_with,
        project_dir=output_dir,
        mixed_precision=chosen,
        cpu=device == "cpu",
        # OlmoEarth's encoder has heads of its pretraining that nothing here calls.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if chosen != asked:
        accelerator.print("This GPU has no bfloat16: training runs in fp16, with a loss scale.")
    _shard_on_cpu(accelerator)
    _warn_of_missing_processes(accelerator)
    return accelerator


def _shard_on_cpu(accelerator: Accelerator) -> None:
    """Shard with FSDP on CPUs too where the launcher asks for it; accelerate itself would not."""
    asked = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    if asked and accelerator.distributed_type == DistributedType.MULTI_CPU:
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()


def _warn_of_missing_processes(accelerator: Accelerator) -> None:
    """`accelerate launch --cpu --num_processes 2` starts one process without a word.

    It leaves the address of the others' meeting point in the environment, but no process count.
    """
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    if on_cpu and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        accelerator.print(
            "One process trains: `accelerate launch --cpu` starts no more, whatever "
            "--num_processes says. For several on CPUs: accelerate launch --multi_gpu "
            "--num_processes N train_accelerate.py --device cpu."
        )


def end_with_launcher() -> None:
    """Let Linux send SIGTERM to this process when its launcher dies.

    `accelerate launch` with one process passes no signal on: without this, the training would go
    on as an orphan after the launcher got its SIGTERM. Without a launcher nothing changes, so that
    a run outlives the shell that started it.
    """
    launched = os.environ.keys() & {"ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"}
    if launched and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
