"""How runs start, and how they end on a signal: with real launchers and real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from earthvlm.cli import main
from earthvlm.models.language.language_model import preferred_dtype
from earthvlm.training import process
from earthvlm.training.checkpointing.checkpoints import find_checkpoint
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--mixed_precision=no"]
# An environment without the variables of a launcher.
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("ACCELERATE_", "TORCHELASTIC_")) and name not in ("MASTER_ADDR",)
}
TIMEOUT = 300  # seconds, on a busy machine


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    write_generated_chatearthnet(folder, train=8, val=1)
    return folder


def start(
    command: list[str], data: Path, output: Path, language: str, log: Path, **variables: str
) -> subprocess.Popen:
    """Start a long run in its own session, with its output in a file."""
    arguments = [f"--data_dir={data}", f"--output_dir={output}", f"--vlm_model={language}"]
    arguments += ["--olmoearth_model=random-v1.2-nano", "--device=cpu", "--num_geo_queries=4"]
    arguments += ["--num_workers=1", "--lora_r=4", "--batch_size=2", "--accumulation_steps=1"]
    arguments += ["--num_epochs=5000", "--save_every=1", "--save_total_limit=2"]
    with log.open("w") as file:
        return subprocess.Popen(
            [*command, *arguments, "--validate_every=0"],
            cwd=ROOT,
            env=CLEAN | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"} | variables,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def wait_until(condition: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.end_to_end
@pytest.mark.parametrize("machines", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_sigterm_leaves_a_checkpoint_and_no_orphan(machines, data, tmp_path, tiny_language):
    """With Accelerate's launcher on one machine, and with the launch script on two."""
    output, port = tmp_path / "run", str(free_port())
    if machines == 1:
        command = [*LAUNCH, "--cpu", "--num_processes=2", "train_accelerate.py"]
        nodes = [{}]
    else:
        command = ["configs/launch.sh", "ddp", "--mixed_precision=no"]
        shared = {"NODES": "2", "GPUS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        nodes = [shared | {"NODE_RANK": rank} for rank in "01"]
    logs = [output.with_suffix(f".{rank}.log") for rank in range(machines)]
    parents = [
        start(command, data, output, tiny_language, log, **node)
        for log, node in zip(logs, nodes, strict=True)
    ]
    try:
        wait_until((output / "checkpoints" / "last").exists, logs[0])
        family = [p for parent in parents for p in psutil.Process(parent.pid).children(True)]
        for parent in parents:
            parent.send_signal(signal.SIGTERM)
        for parent in parents:
            parent.wait(TIMEOUT)
        wait_until(lambda: all(has_ended(process) for process in family), logs[0])
    finally:
        for parent in parents:
            with suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
    printed = "".join(log.read_text() for log in logs)
    step = find_checkpoint("last", output).name
    where = f"stopped after bridge step {step}, saved in {output / 'checkpoints' / step}"
    assert f"earthvlm: {where}; continue with --resume last." in printed
    if machines == 1:  # although two processes were requested
        assert "One process trains" in printed and "--multi_gpu --num_processes N" in printed
    assert "Traceback" not in printed.partition("earthvlm: stopped")[0], printed


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == "zombie"


def test_launch_script_starts_one_process_without_a_launcher():
    done = subprocess.run(
        ["configs/launch.sh", "ddp", "--batch_size=2"],
        cwd=ROOT,
        env=CLEAN | {"PYTHON": "echo", "GPUS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "train_accelerate.py --mixed_precision bf16 --batch_size=2\n"


def see_gpu(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    """Let torch report one GPU, with native bfloat16 or with an emulated one as on a T4."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or native,
    )


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_weights_are_in_bfloat16_if_the_gpu_has_it(native, dtype, monkeypatch):
    see_gpu(monkeypatch, native)
    assert preferred_dtype(torch.device("cuda")) == dtype


@pytest.mark.parametrize(
    ("native", "requested", "chosen"),
    [
        (False, None, "fp16"),
        (False, "bf16", "fp16"),
        (False, "no", "no"),
        (False, "fp16", "fp16"),
        (True, None, None),
        (True, "bf16", "bf16"),
    ],
)
def test_gpus_without_bfloat16_train_in_fp16(native, requested, chosen, monkeypatch, tmp_path):
    see_gpu(monkeypatch, native)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "cpu")
    made = {}

    class Accelerator(process.Accelerator):
        def __init__(self, **options: object) -> None:
            made.update(options)
            raise KeyboardInterrupt

    monkeypatch.setattr(process, "Accelerator", Accelerator)
    with pytest.raises(KeyboardInterrupt):
        process.make_accelerator("cuda", requested, str(tmp_path))
    assert made["mixed_precision"] == chosen and not made["cpu"]


def test_device_selects_the_gpu(monkeypatch, tmp_path):
    see_gpu(monkeypatch, True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "cpu")
    monkeypatch.setattr(process, "Accelerator", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        process.make_accelerator("cuda:3", None, str(tmp_path))
    assert os.environ["ACCELERATE_TORCH_DEVICE"] == "cuda:3"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="cuda:3 is one GPU, and several processes were launched"):
        process.make_accelerator("cuda:3", None, str(tmp_path))


def test_full_gpu_memory_is_one_sentence(monkeypatch, capsys, tmp_path):
    def run_out_of_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee ...")

    monkeypatch.setattr("earthvlm.training.launch.train", run_out_of_memory)
    assert main(["train", f"--output_dir={tmp_path}", "--device=cpu"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("earthvlm: the GPU's memory is full: use a smaller --batch_size")
    assert message.count("\n") == 1
