"""Checkpoints of a training run: each whole or absent, and all a run needs to go on.

A checkpoint is a saved bridge, ready for use, with what training needs to go on beside it: the
optimizer, the schedule, the random numbers' states and the place inside the epoch. Weights that do
not train are not in it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from safetensors import SafetensorError

FOLDER = "checkpoints"
LAST = "last"
STEP_FILE = "training_step.json"
STATE_FILE = "state.pt"
RANDOM_FILE = "random_{rank}.pt"


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
    """Write a checkpoint aside, rename it, point `last` at it, and remove the oldest ones.

    keep: how many stay; 0 keeps all.
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
        for old in sorted(_folders(root), key=_age)[:-keep]:
            shutil.rmtree(old)
    return folder


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
        shutil.rmtree(aside, ignore_errors=True)
        # What torch and safetensors make of a disk that is full.
        if isinstance(error, RuntimeError | SafetensorError):
            raise OSError(str(error).splitlines()[0]) from error
        raise


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folders(root: Path) -> list[Path]:
    return [p for p in root.iterdir() if p.name[0] != "." and p.is_dir() and not p.is_symlink()]


def _age(folder: Path) -> float:
    return folder.stat().st_mtime


def find_checkpoint(resume: str, output: Path) -> Path:
    """The folder that `--resume` names: "last" is the newest of the output folder."""
    folder = output / FOLDER / LAST if resume == LAST else Path(resume)
    if not folder.is_dir() and folder.is_symlink():
        # Killed while a checkpoint took the place of another of its name: both are whole.
        whole = [*_folders(folder.parent), *folder.parent.glob(".*.old")]
        folder = max(whole, key=_age, default=folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no checkpoint at {folder}.")
    return folder.resolve()


def random_states() -> dict[str, object]:
    """The states of all random numbers of this process, in types that load without pickle."""
    kind, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
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


def restore_random_states(states: dict[str, object]) -> None:
    """Go on drawing where `random_states` was called."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


class StopSignal:
    """Notes, while it is entered, that the process was asked to end (SIGTERM).

    The loop then ends after its step.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopSignal:
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: object) -> None:
        self.asked = True
