"""Training runs in their own processes, alone or together as a launcher would start them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from accelerate import Accelerator
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.training.config import TrainingConfig
from earthvlm.training.trainer import Trainer
from tests.support.forked_programs import ROOT, ForkedProgram

TRAIN = ("-m", "earthvlm", "train")


class TrainingRun(ForkedProgram):
    """A process that runs `earthvlm train`, with all output in one file.

    environment: variables of this process alone. largest_file: see ForkedProgram.
    """

    def __init__(
        self,
        arguments: list[str],
        log: Path,
        largest_file: int = -1,
        environment: dict[str, str] | None = None,
    ) -> None:
        super().__init__(
            *TRAIN,
            *arguments,
            output=log,
            environment=dict(os.environ) | (environment or {}),
            largest_file=largest_file,
        )


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


def start_two_processes(
    config: str, command: list[str], log: Path, *options: str
) -> list[ForkedProgram]:
    """Start a program twice with the environment that `accelerate launch` would give the two.

    config: of configs/. command: as of ForkedProgram. options: of the launcher. The stdout of each
    goes to `log` with the suffixes .0.log and .1.log, and stderr to .0.err and .1.err.
    """
    options = (f"--config_file={ROOT / 'configs' / config}.yaml", "--num_processes=2", *options)
    parsed = launch_command_parser().parse_args([*options, "--main_process_port=0", "script.py"])
    launcher, *_ = _validate_launch_command(parsed)
    shared = prepare_multi_gpu_env(launcher)
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": launcher.master_port}
    shared |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [
        ForkedProgram(
            *command,
            output=log.with_suffix(f".{rank}.log"),
            errors=log.with_suffix(f".{rank}.err"),
            environment=dict(os.environ) | shared | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]


def run_two_processes(config: str, command: list[str], log: Path, *options: str) -> str:
    """Run a program to its end as two processes; return the stdout of the first."""
    programs = start_two_processes(config, command, log, *options)
    for program in programs:
        code, errors = program.finish()
        assert code == 0, errors
    return programs[0].output.read_text()


def make_trainer(
    bridge: OlmoEarthVLMBridge, data: Path, output: Path, **options: object
) -> Trainer:
    """A trainer in this process, on the CPU."""
    options = {"accumulation_steps": 1, "num_workers": 0} | options
    config = TrainingConfig(str(data), str(output), **options)
    tiles = (ChatEarthNet(data, split) for split in ("train", "val"))
    return Trainer(bridge, *tiles, config, Accelerator(cpu=True))
