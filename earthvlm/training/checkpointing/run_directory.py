"""The files of a run: its bridge, log, loss curve and checkpoints."""

from __future__ import annotations

import json
import time
from functools import cached_property
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from earthvlm.bridge.config import (
    CONFIG_FILE,
    CURVE_FILE,
    LOG_FILE,
    SAMPLES_FOLDER,
    sample_picture,
)
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.captioned_scenes import CaptionedScenes
from earthvlm.data.tile_statistics import summarize_tiles
from earthvlm.scenes.analysis.distribution_shift import TrainingStatistics
from earthvlm.scenes.places.formatting import describe_count
from earthvlm.storage.files import replace_files
from earthvlm.training.batches.sampler import EpochSampler
from earthvlm.training.checkpointing.checkpoints import (
    Progress,
    checkpoint_name,
    random_states,
    read_random_states,
    read_state,
    write_checkpoint,
    write_state,
)
from earthvlm.training.config import TrainingConfig
from earthvlm.training.logging import plot_losses
from earthvlm.training.optimizer import StageState
from earthvlm.training.validation import sample_tiles

SAMPLE_PIXELS = 128


class RunDirectory:
    """The output folder of a run. All processes read it; only the main process writes.

    Args:
        command: the command that started the run, for the bridge's record.
        checkpoint: a folder written by `write_checkpoint`, whose bridge `bridge` is, to resume
            from; None starts a new run.

    Attributes:
        log: the entries so far.
        last_saved: the folder with the newest weights, or None.
    """

    def __init__(
        self,
        bridge: OlmoEarthVLMBridge,
        train_tiles: CaptionedScenes,
        val_tiles: CaptionedScenes,
        config: TrainingConfig,
        accelerator: Accelerator,
        command: str,
        checkpoint: Path | None = None,
    ) -> None:
        self.bridge, self.config, self.accelerator = bridge, config, accelerator
        self.train_tiles, self.val_tiles = train_tiles, val_tiles
        self.command = command
        self.output = Path(config.output_dir)
        self.log: list[dict] = []
        self.earlier_runs = earlier_runs(bridge.config.training, checkpoint is not None)
        self.earlier_seconds = 0.0
        self.started = time.time()
        self.progress: Progress | None = None
        self.last_saved = checkpoint
        if checkpoint is not None:
            self._read(checkpoint)

    @property
    def stage(self) -> str | None:
        """The stage to resume; None for a new run and once it has been restored."""
        return self.progress.stage if self.progress else None

    @cached_property
    def training_statistics(self) -> TrainingStatistics:
        """Statistics of the training tiles, read once."""
        return summarize_tiles(self.train_tiles)

    def seconds(self) -> float:
        """How long the run has trained, including the time before interruptions."""
        return self.earlier_seconds + time.time() - self.started

    def save(self) -> None:
        """Write the trained bridge, with its log and curve, to the output folder.

        All processes call this together.
        """
        weights = self.bridge.weights()
        if self.accelerator.is_main_process:
            step = self.log[-1]["step"]
            with replace_files(self.output, last=CONFIG_FILE) as folder:
                self._write_bridge(folder, step, weights)
            self.last_saved = self.output

    # Resuming

    def _read(self, folder: Path) -> None:
        self.progress = Progress.read(folder)
        self.checkpoint = folder
        self.log = json.loads((folder / LOG_FILE).read_text("utf-8"))
        # Entries of validations have no time.
        self.earlier_seconds = max((entry.get("seconds", 0.0) for entry in self.log), default=0.0)
        now = self.accelerator.num_processes, self.config.batch_size, self.config.accumulation_steps
        then = self.progress.processes, self.progress.batch_size, self.progress.accumulation_steps
        if now != then:
            self.accelerator.print(
                f"The checkpoint was written with {describe_count(then[0], 'process')}, a "
                f"batch size of {then[1]} and {describe_count(then[2], 'accumulation step')}; "
                f"this run has {now[0]}, {now[1]} and {now[2]}. It continues "
                "with the samples that are left, in other steps."
            )

    def steps_to_take(
        self, stage: str, sampler: EpochSampler, steps_per_epoch: int, epochs: int
    ) -> int:
        """All steps of a stage, including those before a checkpoint with other batch sizes."""
        progress = self.progress
        if progress is None or progress.stage != stage or not progress.batches:
            return steps_per_epoch * epochs
        size = sampler.batch_size * self.config.accumulation_steps
        if size == progress.batches[-1][1] * progress.accumulation_steps:
            return steps_per_epoch * epochs
        remaining = -(-max(len(sampler) - progress.samples, 0) // size)
        return progress.step + remaining + (epochs - progress.epoch - 1) * steps_per_epoch

    def restore(
        self, stage: str, state: StageState, sampler: EpochSampler
    ) -> tuple[int, int, dict | None]:
        """Step, epoch and random states to start a stage from: the checkpoint's, in its stage.

        Raises FileNotFoundError or ValueError, naming the file, if the checkpoint is damaged.
        """
        progress = self.progress
        if progress is None or progress.stage != stage:
            return 0, 0, None
        state.load_state_dict(read_state(self.checkpoint))
        self.progress = None
        epoch_ended = progress.samples >= len(sampler)
        if not epoch_ended:
            sampler.used = progress.samples
            *earlier, (_, size) = progress.batches or [(0, sampler.batch_size)]
            same = size == sampler.batch_size
            batches = earlier if same else progress.batches
            sampler.earlier = tuple((used, size) for used, size in batches)
        rng_states = read_random_states(self.checkpoint, self.accelerator.process_index)
        return progress.step, progress.epoch + epoch_ended, rng_states

    # Checkpoints

    def write_checkpoint(
        self, stage: str, step: int, epoch: int, state: StageState, sampler: EpochSampler
    ) -> Path | None:
        """Write a checkpoint; all processes call this together.

        Returns its folder on the main process, and None if it could not be written.
        """
        config, accelerator = self.config, self.accelerator
        # Not `gather_for_metrics`, which drops what filled up an epoch's last batch.
        rng_states = gather_object([random_states(accelerator.device)])
        # All processes hold a part of a sharded model.
        weights = self.bridge.weights()
        stage_state = state.state_dict()
        if not accelerator.is_main_process:
            return None
        progress = Progress(
            stage,
            step,
            epoch,
            sampler.used,
            accelerator.num_processes,
            config.batch_size,
            config.accumulation_steps,
            [*sampler.earlier, (sampler.used, sampler.batch_size)],
        )

        def write(folder: Path) -> None:
            self._write_bridge(folder, step, weights)
            write_state(folder, stage_state, rng_states)
            progress.write(folder)

        try:
            self.last_saved = write_checkpoint(
                self.output, checkpoint_name(stage, step), write, config.save_total_limit
            )
        except OSError as error:
            accelerator.print(f"No checkpoint at step {step}: {error}. Training continues.")
            return None
        return self.last_saved

    def _write_bridge(self, folder: Path, step: int, weights: dict[str, dict[str, Tensor]]) -> None:
        seconds = round(self.seconds())
        total = seconds + sum(run["seconds"] for run in self.earlier_runs)
        self.bridge.record_training(
            f"trained for {_duration(total)} on {len(self.train_tiles):,} Sentinel-2 tiles",
            {
                "command": self.command,
                "steps": step,
                "seconds": seconds,
                "device": _device_name(self.accelerator.device),
                "torch": torch.__version__,
                "dataset": self.train_tiles.hub_id,
                "earlier": self.earlier_runs,
            },
            self.training_statistics,
        )
        self.bridge.save_pretrained(folder, weights=weights)
        (folder / LOG_FILE).write_text(json.dumps(self.log, indent=1) + "\n", "utf-8")
        if any(entry["stage"] != "validation" for entry in self.log):
            plot_losses(self.log, folder / CURVE_FILE)
        if any(entry["stage"] == "validation" for entry in self.log):
            (folder / SAMPLES_FOLDER).mkdir(exist_ok=True)
            for scene, tile in sample_tiles(self.val_tiles):
                scene.thumbnail(SAMPLE_PIXELS).save(sample_picture(folder, tile.name))


def earlier_runs(training: dict, resumed: bool) -> list[dict]:
    """The records of the runs that trained a bridge before this one, in order.

    training: the bridge's record. resumed: whether it was loaded from a checkpoint of this run.
    """
    earlier = training.get("earlier", [])
    last = {name: value for name, value in training.items() if name != "earlier"}
    return earlier if resumed or not last else [*earlier, last]


def _duration(seconds: float) -> str:
    """A duration in a unit of fitting size: "40 s", "12 min", "3.1 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
