"""Training runs in processes of their own, forked from one that has imported everything.

What a run does is the script's; what it saves is the seconds that imports take.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

IMPORTED = (
    "train_accelerate",
    "matplotlib.figure",
    "olmoearth_pretrain_minimal",
    "peft",
    "safetensors.torch",
    "sentence_transformers",
    "transformers.models.llama.modeling_llama",
)


PATIENCE = 600  # seconds, on a busy machine: a run that takes longer hangs


class TrainingRun:
    """`train_accelerate.py` with some arguments, on one thread: its sums are in one order.

    largest_file: bytes after which writing fails, as on a disk that is full.
    """

    def __init__(self, arguments: list[str], log: Path, largest_file: int = -1) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED))
        threads = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"
        forkserver.ensure_running()
        os.environ.pop("OMP_NUM_THREADS")
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = threads
        self.log = log
        given = arguments, log, largest_file, dict(os.environ)
        self.process = context.Process(target=_train, args=given)
        self.process.start()

    @property
    def is_running(self) -> bool:
        return self.process.is_alive()

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """End it at once. AssertionError where it had ended by itself, and nothing was broken."""
        self.process.kill()
        self.process.join()
        assert self.process.exitcode == -signal.SIGKILL, "The run ended before it was killed."

    def finish(self) -> tuple[int, str]:
        """Wait for the end; the exit code, and what was said."""
        self.process.join(PATIENCE)
        if self.is_running:
            os.killpg(self.pid, signal.SIGKILL)
            raise AssertionError(f"The run did not end. It said: {self.log.read_text()}")
        return self.process.exitcode, self.log.read_text() if self.log.is_file() else ""


def wait_for(path: Path, run: TrainingRun) -> None:
    """Return once a run has written a file."""
    while not path.exists():
        assert run.is_running, run.finish()[1]
        time.sleep(0.001)


def run_training(arguments: list[str], log: Path) -> str:
    """Train to the end, and return what was said on the way."""
    code, said = TrainingRun(arguments, log).finish()
    assert code == 0, said
    return said


def _train(arguments: list[str], log: Path, largest_file: int, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    os.setsid()  # a group of its own, as a launcher makes
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, -1))
    import train_accelerate

    sys.exit(train_accelerate.main(arguments))
