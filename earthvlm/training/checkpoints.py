"""Checkpoints of a training run: each whole or absent, and all a run needs to go on.

A checkpoint is a saved bridge, ready for use, with what training needs to go on beside it: the
optimizer, the schedule, the random numbers' states and the place inside the epoch. Weights that do
not train are not in it.
"""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from safetensors import SafetensorError

from earthvlm.training.config import STAGES

FOLDER = "checkpoints"
LAST = "last"
STEP_FILE = "training_step.json"
STATE_FILE = "state.pt"
RANDOM_FILE = "random_{rank}.pt"
# A checkpoint's folder: the step, after the stage's name where that is not the bridge.
NAME = re.compile(r"(?:(encoder|queries|head)-)?(\d+)")
# What the operating system answers where a disk, a quota or the largest file is full.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PROBE_BYTES = 1 << 20


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    stage: what is being trained. step: of that stage. epoch: counted from 0. samples: how many of
    the epoch's were used, by all processes together. arguments: of the run. batches: up to which
    of the epoch's samples the batches of all processes together had which size.
    """

    stage: str
    step: int
    epoch: int
    samples: int
    processes: int
    batch_size: int
    accumulation_steps: int
    arguments: dict[str, object]
    batches: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Progress:
        """Raises FileNotFoundError or ValueError, naming the file, where it is none."""
        path = folder / STEP_FILE
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise FileNotFoundError(f"{folder} is no checkpoint: it has no {STEP_FILE}.") from None
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"{path} is damaged: {error}.") from error

    def write(self, folder: Path) -> None:
        """Write it as JSON into a checkpoint's folder."""
        (folder / STEP_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")


def write_checkpoint(output: Path, name: str, write: Callable[[Path], None], keep: int = 0) -> Path:
    """Write a checkpoint aside, rename it, point `last` at it, and remove earlier ones.

    keep: how many stay of this one and those of earlier steps; 0 keeps all. Checkpoints of later
        steps, which a run that resumed from an earlier one finds, always stay.
    Raises OSError where it cannot be written; the earlier ones are then as they were.
    """
    root = output / FOLDER
    aside, folder, replaced = (root / n for n in (f".{name}.part", name, f".{name}.old"))
    _write_aside(aside, write)
    if folder.is_dir():  # of a run that went on from an earlier one
        shutil.rmtree(replaced, ignore_errors=True)
        folder.rename(replaced)
    aside.rename(folder)
    link = root / f".{LAST}.part"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    os.replace(link, root / LAST)
    _sync(root)
    shutil.rmtree(replaced, ignore_errors=True)
    if keep:
        places = {path: place for path in _folders(root) if (place := _place(path.name))}
        earlier = [path for path, place in places.items() if place <= places.get(folder, place)]
        for old in sorted(earlier, key=places.get)[:-keep]:
            shutil.rmtree(old)
    return folder


def checkpoint_name(stage: str, step: int) -> str:
    """The name of a checkpoint's folder, such as "encoder-40", or "40" of the bridge's stage."""
    return str(step) if stage == "bridge" else f"{stage}-{step}"


def _place(name: str) -> tuple[int, int] | None:
    """Where in a run a checkpoint so named stands; None for a folder that is none."""
    match = NAME.fullmatch(name)
    return match and (list(STAGES).index(match[1] or "bridge"), int(match[2]))


def write_files(folder: Path, write: Callable[[Path], None]) -> None:
    """Write files aside, then let them take the place of those of their names in a folder.

    Raises OSError where they cannot be written; what was there is then as it was.
    """
    aside = folder / ".part"
    _write_aside(aside, write)
    for path in sorted(p for p in aside.rglob("*") if p.is_file()):
        target = folder / path.relative_to(aside)
        target.parent.mkdir(exist_ok=True)
        os.replace(path, target)
    shutil.rmtree(aside)


def _write_aside(aside: Path, write: Callable[[Path], None]) -> None:
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        write(aside)
        for path in (*aside.rglob("*"), aside):
            _sync(path)
    except BaseException as error:
        full = _why_full(aside)
        shutil.rmtree(aside, ignore_errors=True)
        # torch reports a full disk as "unexpected pos", safetensors without its number.
        if isinstance(error, OSError | RuntimeError | SafetensorError):
            if full:
                raise OSError(f"the disk of {aside.parent} is full ({full})") from error
            if not isinstance(error, OSError):
                raise OSError(next(iter(str(error).splitlines()), repr(error))) from error
        raise


def _why_full(folder: Path) -> str | None:
    """What the system answers to a write into a folder whose disk is full; None where it is not."""
    try:
        with (folder / ".probe").open("wb", buffering=0) as file:
            # A single write may be cut short without an error.
            written = 0
            while written < PROBE_BYTES:
                written += file.write(bytes(PROBE_BYTES - written))
    except OSError as error:
        return os.strerror(error.errno) if error.errno in FULL else None
    return None


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folders(root: Path) -> list[Path]:
    return [p for p in root.iterdir() if p.name[0] != "." and p.is_dir() and not p.is_symlink()]


def find_checkpoint(resume: str, output: Path) -> Path:
    """The folder that `--resume` names: "last" is the newest of the output folder."""
    folder = output / FOLDER / LAST if resume == LAST else Path(resume)
    if not folder.is_dir() and folder.is_symlink():
        # Killed while a checkpoint took the place of another of its name: that one is whole.
        folder = folder.with_name(f".{os.readlink(folder)}.old")
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no checkpoint at {folder}.")
    return folder.resolve()


def random_states(device: torch.device) -> dict[str, object]:
    """The states of all random numbers of this process, in types that load without pickle.

    device: the one that the process computes on; a GPU has random numbers of its own.
    """
    kind, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def write_state(folder: Path, state: dict[str, object], drawn: Sequence[dict]) -> None:
    """Write what a stage needs to go on, and each process's random states, into a checkpoint."""
    torch.save(state, folder / STATE_FILE)
    for rank, states in enumerate(drawn):
        torch.save(states, folder / RANDOM_FILE.format(rank=rank))


def read_state(folder: Path) -> dict[str, object]:
    """Raises FileNotFoundError or ValueError, naming the file, where a checkpoint is damaged."""
    return _load(folder / STATE_FILE)


def read_random_states(folder: Path, rank: int) -> dict[str, object] | None:
    """A process's random states; None where the checkpoint is of fewer processes."""
    path = folder / RANDOM_FILE.format(rank=rank)
    return _load(path) if path.is_file() else None


def _load(path: Path) -> dict[str, object]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path.parent} is no checkpoint: it has no {path.name}.") from None
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise ValueError(f"{path} is damaged: go on from an earlier checkpoint.") from error


def restore_random_states(states: dict[str, object], device: torch.device) -> None:
    """Go on drawing where `random_states` was called, on this process's device or another's."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


class TrainingInterrupted(Exception):
    """A run that was asked to end; its text says after which step.

    number: of the signal that asked.
    """

    def __init__(self, after: str, number: int) -> None:
        super().__init__(after)
        self.number = number


class GracefulShutdown:
    """Notes, while it is entered, that the process was asked to end (SIGTERM or SIGINT).

    The loop then ends after its step. A second SIGINT interrupts it at once.
    """

    def __init__(self) -> None:
        self.number = 0
        self._waiting: str | None = None

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self.number != 0

    def __enter__(self) -> GracefulShutdown:
        numbers = (signal.SIGTERM, signal.SIGINT)
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self, when: str) -> Iterator[None]:
        """Raise TrainingInterrupted at once in here, where nothing in a checkpoint changes."""
        self._waiting = when
        try:
            if self.asked:
                raise TrainingInterrupted(when, self.number)
            yield
        finally:
            self._waiting = None

    def _note(self, number: int, _: object) -> None:
        if self.number == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        if self._waiting is not None:
            raise TrainingInterrupted(self._waiting, number)
