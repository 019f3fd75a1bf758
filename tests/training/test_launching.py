"""How runs start, and end when their launcher is asked to: real launchers, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

import train_accelerate
from earthvlm.models.language_model import preferred_dtype
from earthvlm.training import process
from earthvlm.training.checkpoints import find_checkpoint
from tests.support.generated_chatearthnet import write_generated_chatearthnet

ROOT = Path(__file__).parents[2]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--mixed_precision=no"]
# An environment in which no launcher has left anything.
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("ACCELERATE_", "TORCHELASTIC_")) and name not in ("MASTER_ADDR",)
}
PATIENCE = 300  # seconds, on a busy machine


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    write_generated_chatearthnet(folder, train=8, val=1)
    return folder


def start(command: list[str], data: Path, output: Path, language: str, **environment: str):
    """A long run in a session of its own, whose output goes to a file."""
    arguments = [f"--data_dir={data}", f"--output_dir={output}", f"--vlm_model={language}"]
    arguments += ["--olmoearth_model=random-v1.2-nano", "--device=cpu", "--num_geo_queries=4"]
    arguments += ["--num_workers=1", "--lora_r=4", "--batch_size=2", "--accumulation_steps=1"]
    arguments += ["--num_epochs=5000", "--save_every=1", "--save_total_limit=2"]
    with output.with_suffix(".log").open("w") as log:
        return subprocess.Popen(
            [*command, *arguments, "--validate_every=0"],
            cwd=ROOT,
            env=CLEAN | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"} | environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def wait_until(condition, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)


LAUNCHERS = {
    "launch.sh": ["configs/launch.sh", "ddp", "--mixed_precision=no"],
    "one": [*LAUNCH, "--cpu", "--num_processes=2", "train_accelerate.py"],
    "two": [
        *LAUNCH,
        "--config_file=configs/ddp.yaml",
        "--num_processes=2",
        "--main_process_port=0",
        "train_accelerate.py",
    ],
}


@pytest.mark.slow
@pytest.mark.end_to_end
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_sigterm_to_the_launcher_leaves_a_checkpoint_and_no_orphan(
    launcher, data, tmp_path, tiny_language
):
    output = tmp_path / "run"
    log = output.with_suffix(".log")
    parent = start(LAUNCHERS[launcher], data, output, tiny_language, GPUS="1")
    try:
        wait_until((output / "checkpoints" / "last").exists, log)
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(signal.SIGTERM)
        parent.wait(PATIENCE)
        wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in family), log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
    said = log.read_text()
    step = find_checkpoint("last", output).name
    where = f"stopped after bridge step {step}, saved in {output / 'checkpoints' / step}"
    assert f"train_accelerate: {where}; continue with --resume last." in said
    if launcher == "one":  # of two that were asked for
        assert "One process trains" in said and "--multi_gpu --num_processes N" in said
    assert "Traceback" not in said.partition("train_accelerate: stopped")[0], said


def see_gpu(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    """Let torch report one GPU that computes in bfloat16 itself, or emulates it as a T4 does."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or native,
    )


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_weights_are_in_bfloat16_where_gpus_compute_in_it(native, dtype, monkeypatch):
    see_gpu(monkeypatch, native)
    assert preferred_dtype(torch.device("cuda")) == dtype


@pytest.mark.parametrize(
    ("native", "asked", "chosen"),
    [
        (False, None, "fp16"),
        (False, "bf16", "fp16"),
        (False, "no", "no"),
        (False, "fp16", "fp16"),
        (True, None, None),
        (True, "bf16", "bf16"),
    ],
)
def test_gpus_without_bfloat16_train_in_fp16(native, asked, chosen, monkeypatch, tmp_path):
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
        process.make_accelerator("cuda", asked, str(tmp_path))
    assert made["mixed_precision"] == chosen and not made["cpu"]


def test_the_named_gpu_is_the_one_that_trains(monkeypatch, tmp_path):
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


def test_a_full_gpu_is_one_sentence(monkeypatch, capsys, tmp_path):
    def be_full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee ...")

    monkeypatch.setattr(train_accelerate, "train", be_full)
    assert train_accelerate.main([f"--output_dir={tmp_path}", "--device=cpu"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("train_accelerate: the GPU's memory is full: use a smaller --batch_size")
    assert said.count("\n") == 1
