"""Python programs in their own processes, forked from a process that has imported the libraries.

The program is the real one with its own arguments, environment, folder and output. Only the seconds
of importing are saved, so a test of what a program imports or sets before it does needs a process
of its own.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

resource = pytest.importorskip("resource", reason="Windows forks no process")

from multiprocessing import forkserver, spawn  # noqa: E402

from tests.support.preloaded_python import VARIABLE  # noqa: E402

ROOT = Path(__file__).parents[2]
PRELOADED = (
    "tests.support.no_garbage",
    "earthvlm.cli",
    "earthvlm.ui.app",
    "earthvlm.training.launch",
    "accelerate.utils.fsdp_utils",
    "matplotlib.figure",
    "olmoearth_pretrain_minimal",
    "peft",
    "rasterio",
    "safetensors.torch",
    "sentence_transformers",
    "torch.distributed.fsdp",
    "transformers.models.llama.modeling_llama",
)
# Modules that keep variables of the environment in which they were imported.
READ_FROM_ENVIRONMENT = ("huggingface_hub.constants", "earthvlm.storage.hub_fetch")
TIMEOUT = 600  # seconds; on a busy machine, only a program that hangs takes longer


class ForkedProgram:
    """A process that runs `python COMMAND`, in its own process group as under a launcher.

    command: a script, or "-m" and a module, and the arguments. It computes on one thread, so that
        sums are reproducible.
    output: the file for stdout, and for stderr unless `errors` names another.
    environment: all variables; None for those of this process.
    largest_file: bytes after which writing fails, as on a full disk.
    """

    def __init__(
        self,
        *command: str,
        output: Path,
        errors: Path | None = None,
        folder: Path = ROOT,
        environment: dict[str, str] | None = None,
        largest_file: int = -1,
    ) -> None:
        start_forkserver()
        self.output, self.errors = output, errors or output
        files = output, self.errors
        for path in files:
            path.write_text("")
        variables = dict(os.environ) if environment is None else environment
        self.process = multiprocessing.get_context("forkserver").Process(
            target=_run, args=(command, files, folder, variables, largest_file)
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
        assert self.process.exitcode == -signal.SIGKILL, "The program ended before it was killed."

    def finish(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was written to stderr."""
        self.process.join(TIMEOUT)
        if self.is_running:
            os.killpg(self.pid, signal.SIGKILL)
            raise AssertionError(f"The program did not end: {self.errors.read_text()}")
        return self.process.exitcode, self.errors.read_text()


def run_program(
    *command: str, folder: Path = ROOT, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python COMMAND` to its end, as subprocess.run would."""
    with tempfile.TemporaryDirectory() as written:
        output, errors = Path(written, "stdout"), Path(written, "stderr")
        program = ForkedProgram(
            *command, output=output, errors=errors, folder=folder, environment=environment
        )
        code, said = program.finish()
        return subprocess.CompletedProcess(command, code, output.read_text(), said)


def start_forkserver() -> None:
    """Start the process that has imported the libraries, unless it runs."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    variables = {"OMP_NUM_THREADS": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    executable = spawn.get_executable()
    multiprocessing.set_executable(os.environ.get(VARIABLE, executable))
    forkserver.ensure_running()
    multiprocessing.set_executable(executable)
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


def _run(
    command: tuple[str, ...],
    files: tuple[Path, Path],
    folder: Path,
    environment: dict[str, str],
    largest_file: int,
) -> None:
    os.setsid()
    gc.freeze()  # or each collection of garbage would look at all that the libraries hold
    gc.enable()
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(files, start=1):
        with path.open("a") as file:
            os.dup2(file.fileno(), number)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, -1))
    os.chdir(folder)
    for name in READ_FROM_ENVIRONMENT:
        importlib.reload(sys.modules[name])
    if folder != ROOT:  # it has a copy of this package
        sys.path[:] = [path for path in sys.path if Path(path).resolve() != ROOT]
        for name in [name for name in sys.modules if name.partition(".")[0] == "earthvlm"]:
            del sys.modules[name]
    sys.path.insert(0, str(folder))
    if command[0] == "-m":
        sys.argv = [command[1], *command[2:]]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(command)
        runpy.run_path(command[0], run_name="__main__")
