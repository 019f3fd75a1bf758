"""Checkpoints, and runs that resume from them with the same losses and weights."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.training.checkpointing.checkpoints import (
    check_output,
    find_checkpoint,
    random_states,
    read_random_states,
    read_state,
    remove_checkpoints,
    restore_random_states,
    write_checkpoint,
    write_state,
)
from earthvlm.training.logging import RunningLosses
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.training_runs import TrainingRun, wait_for

resource = pytest.importorskip("resource", reason="Windows bounds no process")

OPTIONS = ["--olmoearth_model=random-v1.2-nano", "--no-freeze_olmoearth", "--device=cpu"]
OPTIONS += ["--num_geo_queries=4", "--num_workers=0", "--batch_size=2", "--num_epochs=2"]
OPTIONS += ["--encoder_epochs=1", "--encoder_batch_size=4", "--save_every=1", "--lora_r=4"]
OPTIONS += ["--accumulation_steps=1", "--max_eval_samples=1", "--warmup_steps=2"]
TWO_STEPS = ["--encoder_epochs=0", "--num_epochs=1", "--validate_every=1", "--warmup_steps=0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Kacheln für Läufe")
    write_generated_chatearthnet(folder, train=6, val=2)
    return folder


def start(
    data: Path, output: Path, language: str, *options: str, largest_file: int = -1
) -> TrainingRun:
    arguments = [f"--data_dir={data}", f"--output_dir={output}", f"--vlm_model={language}"]
    log = output.with_suffix(".log")
    return TrainingRun([*arguments, *OPTIONS, *options], log, largest_file)


def finish(run: TrainingRun) -> None:
    code, printed = run.finish()
    assert code == 0, printed


def weights(folder: Path, count: int = 3) -> dict[str, torch.Tensor]:
    files = sorted(p for p in folder.rglob("*.safetensors") if "checkpoints" not in p.parts)
    assert len(files) == count
    return {f"{p.name}/{n}": t for p in files for n, t in load_file(p).items()}


def losses(folder: Path) -> list[dict]:
    log = json.loads((folder / "training_log.json").read_text())
    return [{k: e[k] for k in ("stage", "step", "loss")} for e in log]


# The file that a run has written when it is killed, and the seconds after: while a checkpoint is
# half written, inside a step, and between two steps.
KILLS = [(".encoder-1.part", 0), ("encoder-1", 0.05), (".1.part", 0), ("1", 0.02)]


@pytest.mark.slow
@pytest.mark.end_to_end
@pytest.mark.parametrize(
    "kills",
    [KILLS[1:3], pytest.param(KILLS, marks=pytest.mark.nightly)],
    ids=["two", "four"],
)
def test_killed_run_ends_with_the_same_weights(kills, data, tmp_path, tiny_language):
    finish(start(data, tmp_path / "uninterrupted", tiny_language))

    output = tmp_path / "interrupted"
    checkpoints = output / "checkpoints"
    resume: list[str] = []
    for file, pause in kills:
        run = start(data, output, tiny_language, *resume)
        wait_for(checkpoints / file, run)
        time.sleep(pause)
        run.kill()
        if (checkpoints / "last").exists():
            resume = ["--resume=last"]
    run = start(data, output, tiny_language, *resume, "--num_workers=1")
    wait_for(checkpoints / "4", run)
    os.killpg(run.pid, signal.SIGTERM)  # to its worker too, as from a launcher
    code, printed = run.finish()
    assert code == 143 and "continue with --resume last" in printed, printed
    finish(start(data, output, tiny_language, "--resume=last", "--num_workers=1"))

    assert_same_weights(tmp_path / "uninterrupted", output)
    assert losses(tmp_path / "uninterrupted") == losses(output)
    names = {p.name for p in (output / "checkpoints").iterdir()}
    assert names == {"last", "encoder-1", "encoder-2", *map(str, range(1, 7))}
    bridge = OlmoEarthVLMBridge.from_pretrained(output / "checkpoints" / "last", device="cpu")
    assert bridge.config.training["steps"] == 6


def assert_same_weights(one: Path, other: Path, count: int = 3) -> None:
    first, second = weights(one, count), weights(other, count)
    assert all(torch.equal(first[name], second[name]) for name in first | second)


@pytest.fixture(scope="module")
def two_steps(data, tiny_language, tmp_path_factory) -> Path:
    """The output folder of a run of two steps, which is to be copied."""
    output = tmp_path_factory.mktemp("Läufe mit Pausen") / "run"
    finish(start(data, output, tiny_language, *TWO_STEPS, "--max_steps=2"))
    return output


@pytest.fixture
def copied(two_steps, tmp_path) -> Path:
    return shutil.copytree(two_steps, tmp_path / "run", symlinks=True)


@pytest.mark.slow
def test_resuming_with_another_batch_size_uses_each_sample(data, copied, tiny_language):
    first = copied / "checkpoints" / "1"
    options = [*TWO_STEPS, "--num_epochs=2", "--batch_size=4", f"--resume={first}"]
    code, printed = start(data, copied, tiny_language, *options).finish()
    assert code == 0, printed
    then = "The checkpoint was written with 1 process, a batch size of 2 and 1 accumulation step"
    assert f"{then}; this run has 1, 4 and 1." in printed
    assert "Loading weights" not in printed  # transformers' bar
    log = json.loads((copied / "training_log.json").read_text())
    last = [entry for entry in log if "epoch" in entry][-1]
    # A step of two tiles, one of the four that were left, and two of the second epoch.
    assert (last["step"], last["epoch"]) == (4, 2.0)
    assert 0 < last["learning_rate"] < 3e-4 / 2


@pytest.mark.slow
def test_run_killed_after_its_last_step_ends_as_before(data, two_steps, copied, tiny_language):
    finish(start(data, copied, tiny_language, *TWO_STEPS, "--max_steps=2", "--resume=last"))
    assert_same_weights(two_steps, copied)
    assert losses(two_steps) == losses(copied)


@pytest.mark.slow
@pytest.mark.nightly
def test_resumed_run_shows_the_same_maps(data, tmp_path, tiny_language):
    """The encoder changes in each step, and samples show maps of the encoder before the first."""
    options = [*TWO_STEPS, "--max_steps=3", "--segmentation_epochs=1", "--scene_context"]
    options += ["--context_share=1", "--encoder_learning_rate=0.01"]
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    finish(start(data, straight, tiny_language, *options))
    shutil.copytree(straight, resumed, symlinks=True)
    first = resumed / "checkpoints" / "1"
    finish(start(data, resumed, tiny_language, *options, f"--resume={first}"))
    assert losses(straight) == losses(resumed)
    assert_same_weights(straight, resumed, count=4)


def read_files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_second_run_in_a_folder_needs_to_be_asked_for(data, copied, tiny_language):
    before = read_files(copied)
    code, printed = start(data, copied, tiny_language, *TWO_STEPS).finish()
    assert code == 2 and read_files(copied) == before
    assert printed.splitlines()[-1] == (
        f"earthvlm: {copied} holds a run already: continue it with --resume last, choose another "
        "--output_dir or replace it with --overwrite_output_dir."
    )
    options = [*TWO_STEPS, "--max_steps=1", "--overwrite_output_dir"]
    finish(start(data, copied, tiny_language, *options))
    assert {path.name for path in (copied / "checkpoints").iterdir()} == {"1", "last"}
    assert len(losses(copied)) < len(json.loads(before[copied / "training_log.json"]))


def test_run_is_only_replaced_by_its_own_checkpoints(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for output in (first, second):
        check_output(output, "bundled", None, overwrite=False)
        write_checkpoint(output, "1", lambda folder: (folder / "file").touch())
    own, other = (find_checkpoint("last", output) for output in (first, second))
    check_output(first, str(own), own, overwrite=False)
    with pytest.raises(ValueError, match="first holds a run already: continue it with --resume"):
        check_output(first, str(other), other, overwrite=False)
    with pytest.raises(ValueError, match="would remove .*1, which is to be trained: choose"):
        check_output(first, str(own), None, overwrite=True)
    remove_checkpoints(first, own)
    assert own.is_dir()
    check_output(first, str(other), other, overwrite=True)
    remove_checkpoints(first, other)
    assert not own.exists() and other.is_dir()
    (first / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="first holds a run already: choose another --output_dir"):
        check_output(first, None, None, overwrite=False)


@pytest.mark.slow
def test_full_disk_keeps_what_was_saved(data, copied, tiny_language):
    before = read_files(copied)
    options = [*TWO_STEPS, "--resume=last"]
    code, printed = start(data, copied, tiny_language, *options, largest_file=100_000).finish()
    assert code == 2 and "Traceback" not in printed, printed
    assert "No checkpoint at step 3: " in printed and "Training continues." in printed
    assert printed.splitlines()[-1].startswith("earthvlm: ")
    assert read_files(copied) == before


def test_failed_checkpoint_leaves_the_earlier_one(tmp_path):
    def write(text):
        return lambda folder: (folder / "file").write_text(text)

    def fail(folder):
        (folder / "file").write_text("half")
        raise OSError("No space left on device")

    write_checkpoint(tmp_path, "1", write("one"))
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path, "2", fail)
    assert find_checkpoint("last", tmp_path).name == "1"
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "last"]
    assert os.readlink(tmp_path / "checkpoints" / "last") == "1"


def test_damaged_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no checkpoint: it has no state.pt"):
        read_state(tmp_path)
    assert read_random_states(tmp_path, 0) is None
    write_state(tmp_path, {"optimizer": torch.ones(1000)}, [{"torch": torch.ones(1000)}])
    for path, read in (("state.pt", read_state), ("random_0.pt", read_random_states)):
        whole = (tmp_path / path).read_bytes()
        for damaged in (whole[: len(whole) // 2], b"", b"nonsense"):
            (tmp_path / path).write_bytes(damaged)
            with pytest.raises(ValueError, match=f"{path} is damaged: resume from an earlier"):
                read(tmp_path, *([0] if read is read_random_states else []))


def test_replaced_checkpoint_is_never_missing(tmp_path, monkeypatch):
    def write(text):
        return lambda folder: (folder / "file").write_text(text)

    rename = Path.rename

    def killed(*_):
        raise KeyboardInterrupt

    def killed_between(path: Path, target: Path) -> Path:
        return killed() if path.name == ".1.part" else rename(path, target)

    write_checkpoint(tmp_path, "1", write("old"))
    for name, step, text in (("rename", killed_between, "old"), ("symlink_to", killed, "new")):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, step)
            with pytest.raises(KeyboardInterrupt):
                write_checkpoint(tmp_path, "1", write("new"))
        assert (find_checkpoint("last", tmp_path) / "file").read_text() == text
    write_checkpoint(tmp_path, "1", write("newest"))
    assert (find_checkpoint("last", tmp_path) / "file").read_text() == "newest"
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "last"]


def test_newest_checkpoints_are_kept(tmp_path):
    for name in ("segmentation-30", "encoder-20", "8", "9", "10"):
        write_checkpoint(tmp_path, name, lambda f: (f / "file").touch(), keep=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["10", "9", "last"]
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at"):
        find_checkpoint("last", tmp_path / "nowhere")


def test_save_total_limit_goes_by_step_not_by_time(tmp_path):
    """Copying a run changes the times of its folders."""
    for step in ("1", "2", "3"):
        write_checkpoint(tmp_path, step, lambda f: (f / "file").touch())
    (tmp_path / "checkpoints" / "best").mkdir()
    os.utime(tmp_path / "checkpoints" / "1", (2e9, 2e9))
    write_checkpoint(tmp_path, "10", lambda f: (f / "file").touch(), keep=2)
    kept = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"3", "10", "best", "last"}


def test_new_checkpoint_is_never_removed(tmp_path):
    """A run that resumed from an earlier step has checkpoints of later steps."""
    for step in ("1", "5", "6"):
        write_checkpoint(tmp_path, step, lambda f: (f / "file").touch())
    write_checkpoint(tmp_path, "2", lambda f: (f / "file").touch(), keep=1)
    kept = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"2", "5", "6", "last"}
    assert find_checkpoint("last", tmp_path).name == "2"


def test_full_disk_is_named(tmp_path):
    def write(folder):
        torch.save({"weights": torch.zeros(1_000_000)}, folder / "state.pt")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, -1))
        try:
            write_checkpoint(tmp_path, "1", write)
        except OSError as error:
            (tmp_path / "message").write_text(str(error))

    process = multiprocessing.get_context("fork").Process(target=limited)
    process.start()
    process.join()
    root = tmp_path / "checkpoints"
    assert (tmp_path / "message").read_text() == f"the disk of {root} is full (File too large)"
    assert not [*root.iterdir()]


def test_losses_resume_on_the_device_of_new_ones():
    running = RunningLosses(SimpleNamespace(device=torch.device("meta")))
    running.load_state_dict({"caption": [1.0, 2.0], "contrastive": []})
    running.add({"caption": torch.zeros((), device="meta")}, answer_tokens=7)
    assert torch.stack(running.losses["caption"]).shape == (3,)


def test_fewer_gpus_restore_their_own_states(monkeypatch):
    """With more GPUs than before, those without a state change nothing."""
    device, restored = torch.device("cuda:0"), []

    def restore(state: torch.Tensor, index: object) -> None:
        if torch.device(index).index > 0:
            raise IndexError  # as torch does for a missing GPU
        restored.append((int(state), torch.device(index)))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda index: torch.tensor(7))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_rng_state", restore)
    states = random_states(device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    restore_random_states(states, device)
    assert restored == [(7, device)]
    restore_random_states(random_states(torch.device("cpu")), device)
    restore_random_states(states, torch.device("cpu"))
    assert len(restored) == 1


def test_random_numbers_continue(tmp_path):
    import numpy as np

    cpu = torch.device("cpu")
    torch.save(random_states(cpu), tmp_path / "random.pt")
    drawn = random.random(), np.random.rand(), torch.rand(1)
    restore_random_states(torch.load(tmp_path / "random.pt", weights_only=True), cpu)
    assert drawn == (random.random(), np.random.rand(), torch.rand(1))
