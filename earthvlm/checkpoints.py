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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

FOLDER = "checkpoints"
LAST = "last"
STEP_FILE = "training_step.json"
STATE_FILE = "state.pt"


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    stage: what is being trained. step: of that stage. epoch: counted from 0. samples: how many of
    the epoch's were used, by all processes together. arguments: of the run.
    """

    stage: str
    step: int
    epoch: int
    samples: int
    processes: int
    batch_size: int
    accumulation_steps: int
    arguments: dict[str, object]

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
        (folder / STEP_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")


def write_checkpoint(output: Path, name: str, write: Callable[[Path], None], keep: int = 0) -> Path:
    """Write a checkpoint aside, rename it, point `last` at it, and remove the oldest ones.

    keep: how many stay; 0 keeps all. What fails while writing leaves the earlier ones as they were.
    """
    root = output / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    aside, folder = root / f".{name}.part", root / name
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        write(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    link = root / f".{LAST}.part"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    os.replace(link, root / LAST)
    if keep:
        others = [p for p in root.iterdir() if p.is_dir() and not p.is_symlink()]
        others = sorted((p for p in others if p.name[0] != "."), key=lambda p: p.stat().st_mtime)
        for old in others[:-keep]:
            shutil.rmtree(old)
    return folder


def find_checkpoint(resume: str, output: Path) -> Path:
    """The folder that `--resume` names: "last" is the newest of the output folder."""
    folder = output / FOLDER / LAST if resume == LAST else Path(resume)
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


def restore_random_states(states: dict[str, object]) -> None:
    """Go on drawing where `random_states` was called."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


class StopSignal:
    """Notes that the process was asked to end (SIGTERM), for the loop to end after its step."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: object) -> None:
        self.asked = True
