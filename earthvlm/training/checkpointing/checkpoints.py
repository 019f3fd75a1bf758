"""Checkpoints of a training run: written atomically, with everything a run needs to resume.

A checkpoint is a saved bridge, ready for use, together with the state of the training: the
optimizer, the schedule, the random number generators and the position inside the epoch. Frozen
weights are not part of it.
"""

from __future__ import annotations

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

from earthvlm.bridge.config import CONFIG_FILE
from earthvlm.storage.files import IS_WINDOWS, fsync, interrupted_folder, replace_folder
from earthvlm.training.config import STAGES

FOLDER = "checkpoints"
LAST = "last"
STEP_FILE = "training_step.json"
STATE_FILE = "state.pt"
RANDOM_FILE = "random_{rank}.pt"
# Names of checkpoint folders: the step, prefixed by the stage unless it is the bridge's.
NAME = re.compile(rf"(?:({'|'.join(STAGES)})-)?(\d+)")


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
            return cls(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            raise FileNotFoundError(f"{folder} is no checkpoint: it has no {STEP_FILE}.") from None
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"{path} is damaged: {error}.") from error

    def write(self, folder: Path) -> None:
        """Write the progress as JSON into a checkpoint's folder."""
        (folder / STEP_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")


def write_checkpoint(output: Path, name: str, write: Callable[[Path], None], keep: int = 0) -> Path:
    """Write a checkpoint atomically, point `last` at it, and remove old ones.

    keep: how many to keep of this one and those of earlier steps; 0 keeps all. Checkpoints of later
        steps, which exist if a run resumed from an earlier one, are always kept.
    Raises OSError if it cannot be written; earlier checkpoints are then unchanged.
    """
    root = output / FOLDER
    folder = root / name
    with replace_folder(folder) as temporary:
        write(temporary)
    _point_last_at(name, root)
    if keep:
        positions = {path: found for path in _folders(root) if (found := _position(path.name))}
        earlier = [path for path, found in positions.items() if found <= positions[folder]]
        for old in sorted(earlier, key=positions.__getitem__)[:-keep]:
            shutil.rmtree(old)
    return folder


def _point_last_at(name: str, root: Path) -> None:
    """Let `last` be a link to a checkpoint, or a file with its name where links cannot be made."""
    link = root / f".{LAST}.part"
    link.unlink(missing_ok=True)
    try:
        if IS_WINDOWS:  # which replaces no link to a folder
            raise NotImplementedError
        link.symlink_to(name)
    except (OSError, NotImplementedError):
        link.write_text(name, "utf-8")
    os.replace(link, root / LAST)
    fsync(root)


def checkpoint_name(stage: str, step: int) -> str:
    """The name of a checkpoint's folder: "encoder-40", or "40" in the bridge's stage."""
    return str(step) if stage == "bridge" else f"{stage}-{step}"


def _position(name: str) -> tuple[int, int] | None:
    """The stage's number and the step in a checkpoint's name; None for any other name."""
    match = NAME.fullmatch(name)
    return (list(STAGES).index(match[1] or "bridge"), int(match[2])) if match else None


def _folders(root: Path) -> list[Path]:
    return [p for p in root.iterdir() if p.name[0] != "." and p.is_dir() and not p.is_symlink()]


def find_checkpoint(resume: str, output: Path) -> Path:
    """The checkpoint that `--resume` names: a folder, or "last" for the newest one.

    Raises FileNotFoundError if there is none.
    """
    folder = output / FOLDER / LAST if resume == LAST else Path(resume)
    if resume == LAST and folder.is_file():
        folder = folder.parent / folder.read_text("utf-8").strip()
    elif not folder.is_dir() and folder.is_symlink():
        folder = folder.parent / os.readlink(folder)
    if interrupted_folder(folder).is_dir() and not folder.is_dir():
        # The run was killed while it replaced a checkpoint of the same name: the old one is whole.
        folder = interrupted_folder(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no checkpoint at {folder}.")
    return folder.resolve()


def check_output(
    output: Path, model_path: str | None, checkpoint: Path | None, overwrite: bool
) -> None:
    """Raise ValueError if a run would replace another one in `output`, and was not asked to.

    model_path: of the bridge to train. checkpoint: to resume from; of `output` or another folder.
    """
    if _is_of(output, checkpoint):
        return
    has_checkpoint = os.path.lexists(output / FOLDER / LAST)
    if not overwrite and (has_checkpoint or (output / CONFIG_FILE).is_file()):
        ways = ["continue it with --resume last"] if has_checkpoint else []
        ways += ["choose another --output_dir", "replace it with --overwrite_output_dir"]
        raise ValueError(f"{output} holds a run already: {', '.join(ways[:-1])} or {ways[-1]}.")
    if overwrite and model_path is not None and _is_of(output, Path(model_path)):
        raise ValueError(
            f"--overwrite_output_dir would remove {model_path}, which is to be trained: choose "
            "another --output_dir."
        )


def remove_checkpoints(output: Path, checkpoint: Path | None) -> None:
    """Remove the checkpoints in `output`, unless `checkpoint`, to resume from, is one of them."""
    if not _is_of(output, checkpoint):
        shutil.rmtree(output / FOLDER, ignore_errors=True)


def _is_of(output: Path, checkpoint: Path | None) -> bool:
    """Whether a folder is one of the checkpoints in `output`."""
    root = (output / FOLDER).resolve()
    return checkpoint is not None and checkpoint.resolve().is_relative_to(root)


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
