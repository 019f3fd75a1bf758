"""Training over Accelerate: encoder, queries on mosaics, the whole bridge, the search head."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader

from earthvlm.bridge import OlmoEarthVLMBridge
from earthvlm.chatearthnet import ChatEarthNet
from earthvlm.checkpoints import StopSignal, restore_random_states
from earthvlm.loaders import StageLoaders
from earthvlm.objectives import TrainingModel
from earthvlm.publishing import TrainingPublisher
from earthvlm.trackers import log_samples
from earthvlm.training_config import TrainingConfig
from earthvlm.training_data import Batch
from earthvlm.training_files import TrainingFiles
from earthvlm.training_log import LossWindow
from earthvlm.training_state import StageState
from earthvlm.training_step import take_step
from earthvlm.validation import sample_answers, validation_losses
from earthvlm.weights import unsharded

STAGES = ("encoder", "queries", "bridge", "head")
LOG_EVERY = 10


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
        self.val_tiles = val_tiles
        self.loaders = StageLoaders(bridge, config, accelerator, train_tiles)
        if train_tiles.skipped:
            accelerator.print(f"{train_tiles.skipped:,} unusable tiles are left out.")
        self.files = TrainingFiles(bridge, train_tiles, val_tiles, config, accelerator, checkpoint)

    def run(self) -> None:
        """Train what is asked for, stage by stage; save the bridge with its log and curve.

        Raises Stopped where the process was asked to end, once a checkpoint is written.
        """
        with StopSignal() as self.stop:
            self._train_stages()
        self.files.save()
        if self._is_main and self.publisher is not None:
            self.publisher.finish(self.files.output)

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
        for stage in STAGES[STAGES.index(self.files.stage or STAGES[0]) :]:
            if epochs[stage]:
                loader = getattr(self.loaders, stage)(self.model)
                self._train(stage, loader, epochs[stage])
                # Accelerate would go on with this stage's optimizer beside the next one's.
                self.accelerator.free_memory()

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
        steps = self.files.steps_to_take(stage, sampler, steps_an_epoch, epochs)
        if config.max_steps and stage == "bridge":
            steps = min(steps, config.max_steps)
        warmup = min(config.warmup_steps, steps // 5)
        # Stepped once a step whatever the number of processes, so it is not prepared.
        inner = optimizer.optimizer
        scheduler = get_scheduler(config.schedule, inner, warmup, steps)
        window = LossWindow(accelerator)
        state = StageState(accelerator, self.model, inner, scheduler, window)
        step, first_epoch, drawn = self.files.restore(stage, state, sampler)
        bar = tqdm(
            total=steps,
            initial=step,
            disable=not self._is_main,
            desc=stage,
            unit="step",
            mininterval=1,
        )
        for epoch in range(first_epoch, epochs):
            if step >= steps:  # in the middle of an epoch, where a run was killed at its end too
                break
            sampler.epoch = epoch
            self._set_training(stage, model)
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
                    bar.set_postfix(self._note(stage, entry))
                bar.update()
                if stage == "bridge" and _due(step, config.validate_every):
                    self._validate(step)
                    self._set_training(stage, model)
                asked = self._is_asked_to_stop()
                if asked or _due(step, config.save_every) or _due(step, config.push_every):
                    folder = self.files.write_checkpoint(stage, step, epoch, state, sampler)
                    if folder and self.publisher and _due(step, config.push_every):
                        self.publisher.publish_soon(folder, step)
                if asked:
                    bar.close()
                    raise Stopped(f"{stage} step {step}")
                if step == steps:
                    break
            sampler.used, sampler.earlier = 0, ()
        bar.close()
        if stage == "bridge" and not _due(step, config.validate_every):
            self._validate(step)

    def _note(self, stage: str, entry: dict) -> dict[str, object]:
        """Log an entry, and return what the progress bar shows of it."""
        entry["seconds"] = round(self.files.seconds(), 1)
        self.files.log.append(entry)
        losses, rate = entry["loss"], entry["learning_rate"]
        told = {f"{stage}/{name}": value for name, value in losses.items()}
        self.accelerator.log(told | {f"{stage}/learning_rate": rate}, step=entry["step"])
        shown = {name: f"{value:.3f}" for name, value in losses.items()}
        return shown | {"lr": f"{rate:.1e}", "tok/s": entry["tokens_per_second"]}

    def _set_training(self, stage: str, model: nn.Module) -> None:
        """Dropout in what learns, but for the encoder; what is frozen stays as in use.

        OlmoEarth skips layers at random while it trains, which a small one that sees every tile
        varied does not need: it fits worse, and processes would not equal one. The search head
        drops out only where it learns alone, from scenes that do not vary.
        """
        model.train()
        self.bridge.encoder.eval()
        self.bridge.head.train(stage == "head")
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
        self.files.log.append(entry)
        accelerator.log({f"validation/{n}": v for n, v in losses.items()}, step=step)
        log_samples(accelerator, samples, step)
        accelerator.print(f"step {step}: validation {json.dumps(losses)}")
        for sample in samples[:2]:
            accelerator.print(f"  {sample['image']}: {sample['answer']}")


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
