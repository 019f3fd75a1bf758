"""Training over Accelerate: encoder, queries on mosaics, the whole bridge, the search head."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader

from earthvlm.bridge import OlmoEarthVLMBridge
from earthvlm.bridge_config import CURVE_FILE, LOG_FILE, SAMPLES_FOLDER, sample_picture
from earthvlm.chatearthnet import ChatEarthNet
from earthvlm.checkpoints import (
    STATE_FILE,
    Progress,
    StopSignal,
    random_states,
    restore_random_states,
    write_checkpoint,
    write_files,
)
from earthvlm.loaders import StageLoaders
from earthvlm.objectives import TrainingModel
from earthvlm.publishing import TrainingPublisher
from earthvlm.trackers import log_samples
from earthvlm.training_config import TrainingConfig
from earthvlm.training_data import Batch, EpochSampler
from earthvlm.training_log import LossWindow, plot_losses
from earthvlm.training_state import StageState
from earthvlm.training_step import take_step
from earthvlm.validation import sample_answers, sample_tiles, validation_losses
from earthvlm.weights import unsharded

STAGES = ("encoder", "queries", "bridge", "head")
LOG_EVERY = 10
SAMPLE_PIXELS = 128


class Stopped(Exception):
    """A run that was asked to end, after its checkpoint was written."""


class Trainer:
    """Trains a bridge on ChatEarthNet-like data and writes it to `output_dir`.

    Every process runs the loop; the main one alone writes files and shows progress.
    checkpoint: a folder that `write_checkpoint` made of an earlier run, whose bridge this one is;
        the run then goes on from there.
    publisher: publishes the bridge when it is trained, and on the way as `push_every` says.
    """

    def __init__(
        self,
        bridge: OlmoEarthVLMBridge,
        train_tiles: ChatEarthNet,
        val_tiles: ChatEarthNet,
        config: TrainingConfig,
        accelerator: Accelerator,
        checkpoint: Path | None = None,
        publisher: TrainingPublisher | None = None,
    ) -> None:
        self.bridge, self.config, self.accelerator = bridge, config, accelerator
        self.publisher = publisher
        self.output = Path(config.output_dir)
        self.train_tiles, self.val_tiles = train_tiles, val_tiles
        self.loaders = StageLoaders(bridge, config, accelerator, train_tiles)
        if train_tiles.skipped:
            accelerator.print(f"{train_tiles.skipped:,} unusable tiles are left out.")
        self.log: list[dict] = []
        self.earlier_stages = _stages_before(bridge.config.training, checkpoint is not None)
        self.earlier_seconds = 0.0
        self.started = time.time()
        self.progress: Progress | None = None
        if checkpoint is not None:
            self._read_checkpoint(checkpoint)

    def run(self) -> None:
        """Train what is asked for, stage by stage; save the bridge with its log and curve.

        Raises Stopped where the process was asked to end, once a checkpoint is written.
        """
        with StopSignal() as self.stop:
            self._train_stages()
        weights = self.bridge.weights()
        if self._is_main:
            step = self.log[-1]["step"]
            write_files(self.output, lambda folder: self._save(folder, step, weights))
            if self.publisher is not None:
                self.publisher.finish(self.output)

    def _train_stages(self) -> None:
        self.model = TrainingModel(self.bridge).to(self.accelerator.device)
        if self.config.gradient_checkpointing:
            self.bridge.language_model.activation_checkpointing_enable({"use_reentrant": False})
        epochs = {
            "encoder": self.config.encoder_epochs,
            "queries": self.config.query_epochs,
            "bridge": self.config.num_epochs,
            "head": self.config.head_epochs,
        }
        first = STAGES.index(self.progress.stage) if self.progress else 0
        for stage in STAGES[first:]:
            if epochs[stage]:
                loader = getattr(self.loaders, stage)(self.model)
                self._train(stage, loader, epochs[stage])

    @property
    def _is_main(self) -> bool:
        return self.accelerator.is_main_process

    # What is trained, and how fast

    def _groups(self, stage: str) -> list[dict]:
        """The parameters that a stage trains, each with its learning rate."""
        bridge, config = self.bridge, self.config
        rate = config.encoder_learning_rate
        head = (bridge.head, _first_given(config.head_learning_rate, rate))
        parts: list[tuple[nn.Module, float]] = [
            (bridge.fusion, _first_given(config.query_learning_rate, rate)),
            head,
        ]
        if stage == "head":
            parts = [head]
        elif stage != "queries":
            parts.append((bridge.encoder, rate))
        if stage == "encoder" and self.model.probe is not None:
            parts.append((self.model.probe, rate))
        if stage == "bridge":
            parts.append((bridge.language_model, config.learning_rate))
            if bridge.vision is not None:
                parts.append((bridge.vision, config.learning_rate))
        groups = [
            {"params": [p for p in part.parameters() if p.requires_grad], "lr": rate}
            for part, rate in parts
        ]
        return [group for group in groups if group["params"]]

    def _train(self, stage: str, loader: DataLoader, epochs: int) -> None:
        from tqdm import tqdm
        from transformers import get_scheduler

        config, accelerator, sampler = self.config, self.accelerator, loader.sampler
        optimizer = torch.optim.AdamW(
            self._groups(stage), weight_decay=config.weight_decay, betas=(0.9, 0.95)
        )
        model, optimizer, loader = accelerator.prepare(self.model, optimizer, loader)
        # After preparing: what is sharded has other parameters than before.
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        steps_an_epoch = -(-len(loader) // config.accumulation_steps)
        steps = self._steps_to_take(stage, sampler, steps_an_epoch, epochs)
        if config.max_steps and stage == "bridge":
            steps = min(steps, config.max_steps)
        warmup = min(config.warmup_steps, steps // 5)
        # Stepped once a step whatever the number of processes, so it is not prepared.
        scheduler = get_scheduler(config.schedule, optimizer.optimizer, warmup, steps)
        window = LossWindow(accelerator)
        state = StageState(accelerator, self.model, optimizer.optimizer, scheduler, window)
        step, first_epoch, drawn = self._restore(stage, state, sampler)
        bar = tqdm(
            total=steps,
            initial=step,
            disable=not self._is_main,
            desc=stage,
            unit="step",
            mininterval=1,
        )
        for epoch in range(first_epoch, epochs):
            sampler.epoch = epoch
            self._set_training(model)
            if drawn is not None and not sampler.used:
                restore_random_states(drawn)
                drawn = None
            for batches in _windows(loader, config.accumulation_steps):
                if drawn is not None:  # inside an epoch: after the loader drew its own number
                    restore_random_states(drawn)
                    drawn = None
                losses = take_step(accelerator, model, batches, optimizer, parameters, step + 1)
                scheduler.step()
                step += 1
                window.add(losses)
                sampler.used += sum(b.size for b in batches) * accelerator.num_processes
                if step % LOG_EVERY == 0 or step == steps:
                    progress = epoch + min(sampler.used / len(sampler), 1)
                    entry = window.entry(stage, step, progress, scheduler.get_last_lr())
                    entry["seconds"] = round(self._seconds(), 1)
                    self.log.append(entry)
                    accelerator.log(
                        {f"{stage}/{k}": v for k, v in entry["loss"].items()}
                        | {f"{stage}/learning_rate": entry["learning_rate"]},
                        step=step,
                    )
                    bar.set_postfix(
                        {n: f"{v:.3f}" for n, v in entry["loss"].items()}
                        | {
                            "lr": f"{entry['learning_rate']:.1e}",
                            "tok/s": entry["tokens_per_second"],
                        }
                    )
                bar.update()
                if stage == "bridge" and _due(step, config.validate_every):
                    self._validate(step)
                    self._set_training(model)
                asked = self._is_asked_to_stop()
                if asked or _due(step, config.save_every) or _due(step, config.push_every):
                    place = stage, step, epoch
                    self._write_checkpoint(place, state, sampler)
                if asked:
                    bar.close()
                    raise Stopped(f"{stage} step {step}")
                if step == steps:
                    break
            sampler.used, sampler.earlier = 0, ()
            if step == steps:
                break
        bar.close()
        if stage == "bridge" and not _due(step, config.validate_every):
            self._validate(step)

    def _set_training(self, model: nn.Module) -> None:
        """Dropout in what learns, but for the encoder; what is frozen stays as in use.

        OlmoEarth skips layers at random while it trains, which a small one that sees every tile
        varied does not need: it fits worse, and processes would not equal one.
        """
        model.train()
        self.bridge.encoder.eval()
        if self.bridge.vision is not None and self.bridge.config.freeze_vlm_vision:
            self.bridge.vision.eval()

    def _is_asked_to_stop(self) -> bool:
        asked = torch.tensor(float(self.stop.asked), device=self.accelerator.device)
        return self.accelerator.reduce(asked, "sum").item() > 0

    def _validate(self, step: int) -> None:
        """Loss on the validation tiles as they are, and a few answers to read."""
        accelerator, loader = self.accelerator, self.loaders.validation(self.val_tiles)
        losses = validation_losses(accelerator, self.model, loader)
        # What is sharded answers only if all processes ask it together.
        if not self._is_main and not isinstance(self.model, FSDPModule):
            return
        with unsharded(self.model):
            samples = sample_answers(self.bridge, self.val_tiles)
        if not self._is_main:
            return
        entry = {"stage": "validation", "step": step, "loss": losses, "samples": samples}
        self.log.append(entry)
        accelerator.log({f"validation/{n}": v for n, v in losses.items()}, step=step)
        log_samples(accelerator, samples, step)
        accelerator.print(f"step {step}: validation {json.dumps(losses)}")
        for sample in samples[:2]:
            accelerator.print(f"  {sample['image']}: {sample['answer']}")

    # Files

    def _seconds(self) -> float:
        return self.earlier_seconds + time.time() - self.started

    def _read_checkpoint(self, folder: Path) -> None:
        self.progress = Progress.read(folder)
        self.checkpoint = folder
        self.log = json.loads((folder / LOG_FILE).read_text())
        self.earlier_seconds = self.log[-1]["seconds"] if self.log else 0.0
        now = self.accelerator.num_processes, self.config.batch_size, self.config.accumulation_steps
        then = self.progress.processes, self.progress.batch_size, self.progress.accumulation_steps
        if now != then:
            self.accelerator.print(
                f"The checkpoint is of {then[0]} processes, batches of {then[1]} and {then[2]} of "
                f"them a step; this run has {now[0]}, {now[1]} and {now[2]}. It goes on after the "
                "same samples, with other steps."
            )

    def _steps_to_take(
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

    def _restore(
        self,
        stage: str,
        state: StageState,
        sampler: EpochSampler,
    ) -> tuple[int, int, dict | None]:
        """Step, epoch and random states to go on from: those of the checkpoint, in its stage."""
        if self.progress is None or self.progress.stage != stage:
            return 0, 0, None
        state.load(torch.load(self.checkpoint / STATE_FILE, map_location="cpu", weights_only=True))
        progress, self.progress = self.progress, None
        whole = progress.samples >= len(sampler)  # the epoch was at its end
        if not whole:
            sampler.used = progress.samples
            *earlier, (_, size) = progress.batches or [(0, sampler.batch_size)]
            same = size == sampler.batch_size
            sampler.earlier = tuple(map(tuple, earlier if same else progress.batches))
        rank = self.accelerator.process_index
        own = self.checkpoint / f"random_{rank}.pt"
        states = torch.load(own, weights_only=True) if own.is_file() else None
        return progress.step, progress.epoch + whole, states

    def _write_checkpoint(
        self,
        place: tuple[str, int, int],
        state: StageState,
        sampler: EpochSampler,
    ) -> None:
        stage, step, epoch = place
        config, accelerator = self.config, self.accelerator
        states = accelerator.gather_for_metrics([random_states()], use_gather_object=True)
        # All processes hold a part of what is sharded.
        weights = self.bridge.weights()
        kept = state.whole()
        if not self._is_main:
            return
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
            self._save(folder, step, weights)
            torch.save(kept, folder / STATE_FILE)
            for rank, drawn in enumerate(states):
                torch.save(drawn, folder / f"random_{rank}.pt")
            progress.write(folder)

        name = str(step) if stage == "bridge" else f"{stage}-{step}"
        try:
            folder = write_checkpoint(self.output, name, write, config.keep_checkpoints)
        except OSError as error:
            accelerator.print(f"No checkpoint at step {step}: {error}. Training goes on.")
            return
        if self.publisher is not None and _due(step, config.push_every):
            self.publisher.publish_soon(folder, step)

    def _save(self, folder: Path, step: int, weights: dict[str, dict[str, Tensor]]) -> None:
        seconds = round(self._seconds())
        earlier = sum(stage["seconds"] for stage in self.earlier_stages)
        arguments = {k: v for k, v in asdict(self.config).items() if not k.endswith("_dir")}
        arguments["cache_tokens"] = "CACHE" if self.config.cache_tokens else None  # no path of ours
        self.bridge.with_training(
            f"trained for {_duration(seconds + earlier)} on {len(self.train_tiles):,} Sentinel-2 "
            "tiles",
            {
                "arguments": arguments,
                "steps": step,
                "seconds": seconds,
                "device": _device_name(self.accelerator.device),
                "torch": torch.__version__,
                "patch_size": self.bridge.config.patch_size,
                "dataset": self.train_tiles.hub_id,
                "earlier": self.earlier_stages,
            },
        )
        self.bridge.save_pretrained(folder, weights=weights)
        (folder / LOG_FILE).write_text(json.dumps(self.log, indent=1) + "\n")
        if self.log:  # its first entry comes after some steps
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


def _windows(loader: DataLoader, size: int) -> Iterator[list[Batch]]:
    """Batches of a step together; the last step of an epoch may have fewer."""
    window: list[Batch] = []
    for batch in loader:
        window.append(batch)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def _first_given(*rates: float | None) -> float:
    """The first that is not None: a rate of 0 leaves what it is for as it is."""
    return next(rate for rate in rates if rate is not None)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _duration(seconds: float) -> str:
    """In the unit that suits it: "40 s", "12 min", "3.1 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
