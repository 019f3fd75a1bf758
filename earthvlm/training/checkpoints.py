"""Checkpoints of a training run: written atomically, with everything a run needs to resume.

A checkpoint is a saved bridge, ready for use, together with the state of the training: the
optimizer, the schedule, the random number generators and the position inside the epoch. Frozen
weights are not part of it.
"""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from earthvlm.training.config import STAGES

FOLDER = "checkpoints"
LAST = "last"
STEP_FILE = "training_step.json"
STATE_FILE = "state.pt"
RANDOM_FILE = "random_{rank}.pt"
# Names of checkpoint folders: the step, prefixed by the stage unless it is the bridge's.
NAME = re.compile(r"(?:(encoder|queries|head)-)?(\d+)")
# Errors of a full disk, an exhausted quota, and a file beyond its size limit.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PROBE_BYTES = 1 << 20


@dataclass(frozen=True)
class Progress:
    """The position of a run.

    stage: the current stage; step: of that stage; epoch: counted from 0.
    samples: of this epoch, used by all processes together.
    batches: pairs of a sample count and a batch size: up to that sample of the epoch, the batches
        of all processes together had that size.
    """

    stage: str
    step: int
    epoch: int
    samples: int
    processes: int
    batch_size: int
    accumulation_steps: int
    batches: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Progress:
        """Read a checkpoint's progress.

        Raises FileNotFoundError or ValueError, naming the file, if it is missing or damaged.
        """
        path = folder / STEP_FILE
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise FileNotFoundError(f"{folder} is no checkpoint: it has no {STEP_FILE}.") from None
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"{path} is damaged: {error}.") from error

    def write(self, folder: Path) -> None:
        """Write the progress as JSON into a checkpoint's folder."""
        (folder / STEP_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")


def write_checkpoint(output: Path, name: str, write: Callable[[Path], None], keep: int = 0) -> Path:
    """Write a checkpoint atomically, point `last` at it, and remove old ones.

    keep: how many to keep of this one and those of earlier steps; 0 keeps all. Checkpoints of later
        steps, which exist if a run resumed from an earlier one, are always kept.
    Raises OSError if it cannot be written; earlier checkpoints are then unchanged.
    """
    root = output / FOLDER
    part, folder, replaced = (root / n for n in (f".{name}.part", name, f".{name}.old"))
    _write_part(part, write)
    if folder.is_dir():  # after resuming from an earlier one
        shutil.rmtree(replaced, ignore_errors=True)
        folder.rename(replaced)
    part.rename(folder)
    link = root / f".{LAST}.part"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    os.replace(link, root / LAST)
    _sync(root)
    shutil.rmtree(replaced, ignore_errors=True)
    if keep:
        positions = {path: found for path in _folders(root) if (found := _position(path.name))}
        earlier = [path for path, found in positions.items() if found <= positions[folder]]
        for old in sorted(earlier, key=positions.__getitem__)[:-keep]:
            shutil.rmtree(old)
    return folder


def checkpoint_name(stage: str, step: int) -> str:
    """The name of a checkpoint's folder: "encoder-40", or "40" in the bridge's stage."""
    return str(step) if stage == "bridge" else f"{stage}-{step}"


def _position(name: str) -> tuple[int, int] | None:
    """The stage's number and the step in a checkpoint's name; None for any other name."""
    match = NAME.fullmatch(name)
    return (list(STAGES).index(match[1] or "bridge"), int(match[2])) if match else None


def write_files(folder: Path, write: Callable[[Path], None]) -> None:
    """Write files to a temporary folder, then move them into a folder, replacing their namesakes.

    Raises OSError if they cannot be written; the folder is then unchanged.
    """
    part = folder / ".part"
    _write_part(part, write)
    for path in sorted(p for p in part.rglob("*") if p.is_file()):
        target = folder / path.relative_to(part)
        target.parent.mkdir(exist_ok=True)
        os.replace(path, target)
    shutil.rmtree(part)


def _write_part(part: Path, write: Callable[[Path], None]) -> None:
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        write(part)
        for path in (*part.rglob("*"), part):
            _sync(path)
    except BaseException as error:
        full = _find_disk_error(part)
        shutil.rmtree(part, ignore_errors=True)
        # torch reports a full disk as "unexpected pos", safetensors without an errno.
        if isinstance(error, OSError | RuntimeError | SafetensorError):
            if full:
                raise OSError(f"the disk of {part.parent} is full ({full})") from error
            if not isinstance(error, OSError):
                raise OSError(next(iter(str(error).splitlines()), repr(error))) from error
        raise


def _find_disk_error(folder: Path) -> str | None:
    """The system's error for a write into a folder on a full disk; None if the write succeeds."""
    try:
        with (folder / ".probe").open("wb", buffering=0) as file:
            # A single write may be short without an error.
            written = 0
            while written < PROBE_BYTES:
                written += file.write(bytes(PROBE_BYTES - written))
    except OSError as error:
        return os.strerror(error.errno) if error.errno in DISK_FULL else None
    return None


def _sync(path: Path) -> None:
    """Flush a file, or a folder's list of files, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folders(root: Path) -> list[Path]:
    return [p for p in root.iterdir() if p.name[0] != "." and p.is_dir() and not p.is_symlink()]


def find_checkpoint(resume: str, output: Path) -> Path:
    """The checkpoint that `--resume` names: a folder, or "last" for the newest one.

    Raises FileNotFoundError if there is none.
    """
    folder = output / FOLDER / LAST if resume == LAST else Path(resume)
    if not folder.is_dir() and folder.is_symlink():
        # The run was killed while it replaced a checkpoint of the same name: the old one is whole.
        folder = folder.with_name(f".{os.readlink(folder)}.old")
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no checkpoint at {folder}.")
    return folder.resolve()


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of this process's random number generators, in types that load without pickle.

    device: where the process computes; a GPU has its own generator.
    """
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def write_state(folder: Path, state: dict[str, Any], rng_states: Sequence[dict]) -> None:
    """Write a stage's state, and each process's random states, into a checkpoint."""
    torch.save(state, folder / STATE_FILE)
    for rank, states in enumerate(rng_states):
        torch.save(states, folder / RANDOM_FILE.format(rank=rank))


def read_state(folder: Path) -> dict[str, Any]:
    """Read a stage's state from a checkpoint.

    Raises FileNotFoundError or ValueError, naming the file, if it is missing or damaged.
    """
    return _load(folder / STATE_FILE)


def read_random_states(folder: Path, rank: int) -> dict[str, Any] | None:
    """Read a process's random states; None if the checkpoint is of fewer processes.

    Raises ValueError, naming the file, if it is damaged.
    """
    path = folder / RANDOM_FILE.format(rank=rank)
    return _load(path) if path.is_file() else None


def _load(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path.parent} is no checkpoint: it has no {path.name}.") from None
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise ValueError(f"{path} is damaged: resume from an earlier checkpoint.") from error


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Restore what `random_states` returned, on this process's device or another's."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
