"""Training runs in their own processes, forked from a process that has imported the libraries.

The training is that of the script; only the seconds of importing are saved.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

from accelerate import Accelerator
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.chatearthnet import ChatEarthNet
from earthvlm.training.config import TrainingConfig
from earthvlm.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
PRELOADED = (
    "earthvlm.training.launch",
    "accelerate.utils.fsdp_utils",
    "matplotlib.figure",
    "olmoearth_pretrain_minimal",
    "peft",
    "safetensors.torch",
    "sentence_transformers",
    "torch.distributed.fsdp",
    "transformers.models.llama.modeling_llama",
)
TIMEOUT = 600  # seconds; on a busy machine, only a run that hangs takes longer


class TrainingRun:
    """A process that runs `earthvlm train` on one thread, so that sums are reproducible.

    largest_file: bytes after which writing fails, as on a full disk.
    environment: variables of this process alone.
    """

    def __init__(
        self,
        arguments: list[str],
        log: Path,
        largest_file: int = -1,
        environment: dict[str, str] | None = None,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        threads = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"
        forkserver.ensure_running()
        os.environ.pop("OMP_NUM_THREADS")
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = threads
        self.log = log
        variables = dict(os.environ) | (environment or {})
        self.process = context.Process(
            target=_train, args=(arguments, log, largest_file, variables)
        )
        self.process.start()

    @property
    def is_running(self) -> bool:
        return self.process.is_alive()

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """Kill the process. AssertionError if it had already ended."""
        self.process.kill()
        self.process.join()
        assert self.process.exitcode == -signal.SIGKILL, "The run ended before it was killed."

    def finish(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and the output."""
        self.process.join(TIMEOUT)
        if self.is_running:
            os.killpg(self.pid, signal.SIGKILL)
            raise AssertionError(f"The run did not end. Its output: {self.log.read_text()}")
        return self.process.exitcode, self.log.read_text() if self.log.is_file() else ""


def _train(arguments: list[str], log: Path, largest_file: int, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    os.setsid()  # its own process group, as under a launcher
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, -1))
    from earthvlm.cli import main

    sys.exit(main(["train", *arguments]))


def wait_for(path: Path, run: TrainingRun) -> None:
    """Return once a run has written a file."""
    while not path.exists():
        assert run.is_running, run.finish()[1]
        time.sleep(0.001)


def run_training(arguments: list[str], log: Path) -> str:
    """Train to the end; return the output."""
    code, output = TrainingRun(arguments, log).finish()
    assert code == 0, output
    return output


def run_two_processes(config: str, arguments: list[str], log: Path, *options: str) -> None:
    """Train in two processes with the environment that `accelerate launch` would give them.

    config: of configs/. options: of the launcher.
    """
    options = (f"--config_file={ROOT / 'configs' / config}.yaml", "--num_processes=2", *options)
    parsed = launch_command_parser().parse_args([*options, "--main_process_port=0", "script.py"])
    launcher, *_ = _validate_launch_command(parsed)
    shared = prepare_multi_gpu_env(launcher)
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": launcher.master_port}
    shared |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    runs = [
        TrainingRun(
            arguments,
            log.with_suffix(f".{rank}.log"),
            environment=shared | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]
    for run in runs:
        code, output = run.finish()
        assert code == 0, output


def make_trainer(
    bridge: OlmoEarthVLMBridge, data: Path, output: Path, **options: object
) -> Trainer:
    """A trainer in this process, on the CPU."""
    options = {"accumulation_steps": 1, "num_workers": 0} | options
    config = TrainingConfig(str(data), str(output), **options)
    tiles = (ChatEarthNet(data, split) for split in ("train", "val"))
    return Trainer(bridge, *tiles, config, Accelerator(cpu=True))


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
