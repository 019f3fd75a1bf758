"""What a run leaves on disk, its bridge, log, curve and checkpoints, and goes on from."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from earthvlm.bridge.config import CURVE_FILE, LOG_FILE, SAMPLES_FOLDER, sample_picture
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.captioned_scenes import CaptionedScenes
from earthvlm.data.chatearthnet import find_hub_id
from earthvlm.data.tile_statistics import summarize_tiles
from earthvlm.scenes.distribution_shift import TrainingStatistics
from earthvlm.training.checkpoints import (
    Progress,
    checkpoint_name,
    random_states,
    read_random_states,
    read_state,
    write_checkpoint,
    write_files,
    write_state,
)
from earthvlm.training.config import DEFAULTS, TrainingConfig
from earthvlm.training.logging import plot_losses
from earthvlm.training.optimizer_state import StageState
from earthvlm.training.sampler import EpochSampler
from earthvlm.training.validation import sample_tiles

SAMPLE_PIXELS = 128


class RunDirectory:
    """A run's files. The main process alone writes them; all of them read, and call this together.

    checkpoint: a folder that `write_checkpoint` made of an earlier run, whose bridge this one is;
        the run then goes on from there.

    log: what the run has to tell so far, entry by entry. stage: the one that goes on, or None.
    last_saved: the folder with the newest weights, or None.
    """

    def __init__(
        self,
        bridge: OlmoEarthVLMBridge,
        train_tiles: CaptionedScenes,
        val_tiles: CaptionedScenes,
        config: TrainingConfig,
        accelerator: Accelerator,
        checkpoint: Path | None = None,
    ) -> None:
        self.bridge, self.config, self.accelerator = bridge, config, accelerator
        self.train_tiles, self.val_tiles = train_tiles, val_tiles
        self.output = Path(config.output_dir)
        self.log: list[dict] = []
        self.earlier_stages = _stages_before(bridge.config.training, checkpoint is not None)
        self.earlier_seconds = 0.0
        self.started = time.time()
        self.progress: Progress | None = None
        self.last_saved = checkpoint
        if checkpoint is not None:
            self._read(checkpoint)

    @property
    def stage(self) -> str | None:
        """The stage that is training, or None between stages."""
        return self.progress.stage if self.progress else None

    @cached_property
    def training_statistics(self) -> TrainingStatistics:
        """Statistics of the training tiles, read once."""
        return summarize_tiles(self.train_tiles)

    def seconds(self) -> float:
        """How long the run has trained, before it was broken off too."""
        return self.earlier_seconds + time.time() - self.started

    def save(self) -> None:
        """Write the trained bridge, with its log and curve, into the output folder."""
        weights = self.bridge.weights()
        if self.accelerator.is_main_process:
            step = self.log[-1]["step"]
            write_files(self.output, lambda folder: self._write_bridge(folder, step, weights))
            self.last_saved = self.output

    # Going on

    def _read(self, folder: Path) -> None:
        self.progress = Progress.read(folder)
        self.checkpoint = folder
        self.log = json.loads((folder / LOG_FILE).read_text())
        # Entries of validations do not have it.
        self.earlier_seconds = max((entry.get("seconds", 0.0) for entry in self.log), default=0.0)
        now = self.accelerator.num_processes, self.config.batch_size, self.config.accumulation_steps
        then = self.progress.processes, self.progress.batch_size, self.progress.accumulation_steps
        if now != then:
            self.accelerator.print(
                f"The checkpoint is of {then[0]} processes, batches of {then[1]} and {then[2]} of "
                f"them a step; this run has {now[0]}, {now[1]} and {now[2]}. It goes on after the "
                "same samples, with other steps."
            )

    def steps_to_take(
        self, stage: str, sampler: EpochSampler, steps_an_epoch: int, epochs: int
    ) -> int:
        """Steps of a stage in all: those before a checkpoint, which may be of another size, too."""
        progress = self.progress
        if progress is None or progress.stage != stage or not progress.batches:
            return steps_an_epoch * epochs
        size = sampler.batch_size * self.config.accumulation_steps
        if size == progress.batches[-1][1] * progress.accumulation_steps:
            return steps_an_epoch * epochs
        rest = -(-max(len(sampler) - progress.samples, 0) // size)
        return progress.step + rest + (epochs - progress.epoch - 1) * steps_an_epoch

    def restore(
        self, stage: str, state: StageState, sampler: EpochSampler
    ) -> tuple[int, int, dict | None]:
        """Step, epoch and random states to go on from: those of the checkpoint, in its stage.

        Raises FileNotFoundError or ValueError, naming the file, where the checkpoint is damaged.
        """
        if self.stage != stage:
            return 0, 0, None
        state.load_state_dict(read_state(self.checkpoint))
        progress, self.progress = self.progress, None
        whole = progress.samples >= len(sampler)  # the epoch was at its end
        if not whole:
            sampler.used = progress.samples
            *earlier, (_, size) = progress.batches or [(0, sampler.batch_size)]
            same = size == sampler.batch_size
            sampler.earlier = tuple(map(tuple, earlier if same else progress.batches))
        drawn = read_random_states(self.checkpoint, self.accelerator.process_index)
        return progress.step, progress.epoch + whole, drawn

    # Checkpoints

    def write_checkpoint(
        self, stage: str, step: int, epoch: int, state: StageState, sampler: EpochSampler
    ) -> Path | None:
        """The checkpoint's folder, on the main process; None where it could not be written."""
        config, accelerator = self.config, self.accelerator
        # Not as metrics are gathered: that leaves out what filled up an epoch's last batch.
        states = gather_object([random_states(accelerator.device)])
        # All processes hold a part of what is sharded.
        weights = self.bridge.weights()
        kept = state.state_dict()
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
            asdict(config),
            [*sampler.earlier, (sampler.used, sampler.batch_size)],
        )

        def write(folder: Path) -> None:
            self._write_bridge(folder, step, weights)
            write_state(folder, kept, states)
            progress.write(folder)

        try:
            self.last_saved = write_checkpoint(
                self.output, checkpoint_name(stage, step), write, config.save_total_limit
            )
            return self.last_saved
        except OSError as error:
            accelerator.print(f"No checkpoint at step {step}: {error}. Training goes on.")
            return None

    def _write_bridge(self, folder: Path, step: int, weights: dict[str, dict[str, Tensor]]) -> None:
        seconds = round(self.seconds())
        earlier = sum(stage["seconds"] for stage in self.earlier_stages)
        arguments = {  # the card prints these
            name: value
            for name, value in asdict(self.config).items()
            if not name.endswith("_dir") and value != DEFAULTS[name]
        }
        arguments["feature_cache_dir"] = (
            "CACHE" if self.config.feature_cache_dir else None
        )  # no path of ours
        self.bridge.record_training(
            f"trained for {_duration(seconds + earlier)} on {len(self.train_tiles):,} Sentinel-2 "
            "tiles",
            {
                "arguments": arguments,
                "steps": step,
                "seconds": seconds,
                "device": _device_name(self.accelerator.device),
                "torch": torch.__version__,
                "patch_size": self.bridge.config.patch_size,
                "embedding_patch_size": self.bridge.config.embedding_patch_size,
                "dataset": find_hub_id(self.train_tiles.tiles),
                "earlier": self.earlier_stages,
            },
            self.training_statistics,
        )
        self.bridge.save_pretrained(folder, weights=weights)
        (folder / LOG_FILE).write_text(json.dumps(self.log, indent=1) + "\n")
        if any(entry["stage"] != "validation" for entry in self.log):  # which come after some steps
            plot_losses(self.log, folder / CURVE_FILE)
        if any(entry["stage"] == "validation" for entry in self.log):
            (folder / SAMPLES_FOLDER).mkdir(exist_ok=True)
            for scene, tile in sample_tiles(self.val_tiles):
                scene.thumbnail(SAMPLE_PIXELS).save(sample_picture(folder, tile.name))


def _stages_before(training: dict, resumed: bool) -> list[dict]:
    """What the bridge was trained in before this run, in order, as its configuration tells."""
    earlier = training.get("earlier", [])
    last = {name: value for name, value in training.items() if name != "earlier"}
    return earlier if resumed or not last else [*earlier, last]


def _duration(seconds: float) -> str:
    """In the unit that suits it: "40 s", "12 min", "3.1 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
