"""The training loop over Accelerate, stage by stage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.captioned_scenes import CaptionedScenes
from earthvlm.scenes.places.formatting import describe_count
from earthvlm.storage.sharding import summon_full_params
from earthvlm.training.batches.sampler import EpochSampler
from earthvlm.training.checkpointing.checkpoints import random_states, restore_random_states
from earthvlm.training.checkpointing.publisher import TrainingPublisher
from earthvlm.training.checkpointing.run_directory import RunDirectory
from earthvlm.training.config import STAGES, TrainingConfig
from earthvlm.training.dataloaders import StageLoaders
from earthvlm.training.logging import RunningLosses, log_samples
from earthvlm.training.losses.training_model import TrainingModel
from earthvlm.training.optimizer import StageState, parameter_groups
from earthvlm.training.process import GracefulShutdown, TrainingInterrupted
from earthvlm.training.step import (
    TrainingFailure,
    accumulation_groups,
    describe_worker_death,
    train_step,
)
from earthvlm.training.validation import sample_answers, validation_losses

if TYPE_CHECKING:
    from tqdm import tqdm
    from transformers import PreTrainedModel

LOG_EVERY = 10


@dataclass
class StageRun:
    """A stage while it runs.

    steps, epochs: in total. step, epoch: the current ones; epochs are counted from 0.
    rng_states: random states to restore before the next step, or None.
    saved: the last step with a checkpoint.
    """

    stage: str
    model: nn.Module
    loader: DataLoader
    sampler: EpochSampler
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    state: StageState
    steps: int
    epochs: int
    bar: tqdm
    step: int
    epoch: int
    rng_states: dict[str, object] | None
    saved: int


class Trainer:
    """Trains a bridge on tiles with captions and writes it to `output_dir`.

    All processes run the loop; only the main one writes files and shows progress.

    Args:
        command: the command that started the run, for the bridge's record.
        checkpoint: a folder written by `write_checkpoint`, whose bridge `bridge` is, to resume
            from.
        publisher: publishes the trained bridge, and checkpoints every `hub_push_steps`.
    """

    def __init__(
        self,
        bridge: OlmoEarthVLMBridge,
        train_tiles: CaptionedScenes,
        val_tiles: CaptionedScenes,
        config: TrainingConfig,
        accelerator: Accelerator,
        *,
        command: str = "",
        checkpoint: Path | None = None,
        publisher: TrainingPublisher | None = None,
    ) -> None:
        self.bridge, self.config, self.accelerator = bridge, config, accelerator
        self.publisher = publisher
        self.val_tiles = val_tiles
        self._validation_loader: DataLoader | None = None
        self.loaders = StageLoaders(bridge, config, accelerator, train_tiles)
        self.model = TrainingModel(bridge)
        self.files = RunDirectory(
            bridge, train_tiles, val_tiles, config, accelerator, command, checkpoint
        )
        validated = [e["step"] for e in self.files.log if e["stage"] == "validation"]
        self._validated = max(validated, default=0)

    def run(self) -> None:
        """Train stage by stage; save the bridge with its log and curve.

        Raises TrainingInterrupted after a signal, and TrainingFailure if training cannot continue.
        Both name the checkpoint that was written before.
        """
        with GracefulShutdown() as self.shutdown:
            self._train_stages()
        self.files.save()
        if self._is_main and self.publisher is not None:
            self.publisher.finish(self.files.output)

    def _train_stages(self) -> None:
        self.model.to(self.accelerator.device)
        if self.config.gradient_checkpointing:
            language_model = cast("PreTrainedModel", self.bridge.language_model)
            language_model.activation_checkpointing_enable({"use_reentrant": False})
        stages = list(STAGES)
        for stage in stages[stages.index(self.files.stage or stages[0]) :]:
            epochs = getattr(self.config, STAGES[stage])
            if epochs:
                with self.shutdown.interruptible(f"before the stage {stage}"):
                    loader = getattr(self.loaders, stage)(self.model)
                self._train(stage, loader, epochs)
                # Otherwise Accelerate would keep this stage's optimizer with the next one's.
                self.accelerator.free_memory()

    @property
    def _is_main(self) -> bool:
        return self.accelerator.is_main_process

    def _train(self, stage: str, loader: DataLoader, epochs: int) -> None:
        run = self._start(stage, loader, epochs)
        if stage == "bridge" and _due(run.step, self.config.validate_every):
            self._validate(run.step)  # if the run was interrupted before it
        try:
            self._take_steps(run)
        except TrainingInterrupted:
            raise
        except TrainingFailure as error:
            raise TrainingFailure(f"{error} {self._keep_weights(run)}") from error
        except Exception as error:
            if self.accelerator.num_processes > 1:
                raise  # only in this process: the others cannot take part in saving
            death, kept = describe_worker_death(error), self._keep_weights(run)
            if death is not None:
                raise TrainingFailure(f"{death} {kept}") from error
            self.accelerator.print(kept)
            raise
        finally:
            run.bar.close()
        if stage == "bridge":
            self.files.save()  # before the validation, which could fail
            with self.shutdown.interruptible(f"bridge step {run.step}, before its validation"):
                self._validate(run.step)

    def _start(self, stage: str, loader: DataLoader, epochs: int) -> StageRun:
        from tqdm import tqdm
        from transformers import get_scheduler

        config, accelerator = self.config, self.accelerator
        sampler = cast("EpochSampler", loader.sampler)
        if not self.bridge.config.freeze_olmoearth:
            # A rate of 0 trains nothing, so its gradients need not be computed either.
            self.bridge.encoder.requires_grad_(config.encoder_learning_rate > 0)
        groups = parameter_groups(self.model, stage, config)
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
        model, optimizer, loader = accelerator.prepare(self.model, optimizer, loader)
        # After preparing, because sharding replaces parameters.
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        steps_per_epoch = -(-len(loader) // config.accumulation_steps)
        steps = self.files.steps_to_take(stage, sampler, steps_per_epoch, epochs)
        if config.max_steps and stage == "bridge":
            steps = min(steps, config.max_steps)
        warmup = min(config.warmup_steps, steps // 5)
        if warmup < config.warmup_steps:
            accelerator.print(
                f"{stage}: the rate warms up over {describe_count(warmup, 'step')}, a fifth of "
                f"{steps}, instead of --warmup_steps {config.warmup_steps}."
            )
        # Not prepared: Accelerate would step it once for each process.
        scheduler = get_scheduler(config.schedule, optimizer.optimizer, warmup, steps)
        running = RunningLosses(accelerator)
        trains_encoder = any(p.requires_grad for p in self.bridge.encoder.parameters())
        mapper = self.loaders.mapper if trains_encoder else None
        state = StageState(accelerator, self.model, optimizer.optimizer, scheduler, running, mapper)
        step, epoch, rng_states = self.files.restore(stage, state, sampler)
        bar = tqdm(
            total=steps,
            initial=step,
            disable=not self._is_main,
            desc=stage,
            unit="step",
            mininterval=1,
        )
        return StageRun(
            stage,
            model,
            loader,
            sampler,
            optimizer,
            parameters,
            state,
            steps,
            epochs,
            bar,
            step,
            epoch,
            rng_states,
            step,
        )

    def _take_steps(self, run: StageRun) -> None:
        config, accelerator, sampler = self.config, self.accelerator, run.sampler
        for epoch in range(run.epoch, run.epochs):
            if run.step >= run.steps:  # a run that was killed after its last step resumes here
                break
            run.epoch = sampler.epoch = epoch
            self._set_training(run.stage, run.model)
            if not sampler.used:
                self._restore_random_states(run)
            for batches in accumulation_groups(accelerator, run.loader, config.accumulation_steps):
                # Inside an epoch, after the data loader drew its own random number.
                self._restore_random_states(run)
                losses = train_step(
                    accelerator, run.model, batches, run.optimizer, run.parameters, run.step + 1
                )
                rate = float(run.state.scheduler.get_last_lr()[-1])
                run.state.scheduler.step()
                run.step += 1
                run.state.running_losses.add(losses, sum(b.answer_tokens for b in batches))
                sampler.used += sum(b.size for b in batches) * accelerator.num_processes
                if run.step % LOG_EVERY == 0 or run.step == run.steps:
                    progress = run.epoch + min(sampler.used / len(sampler), 1)
                    entry = run.state.running_losses.entry(run.stage, run.step, progress, rate)
                    run.bar.set_postfix(self._log(run.stage, entry))
                run.bar.update()
                self._after_step(run)
                if run.step == run.steps:
                    break
            sampler.used, sampler.earlier = 0, ()

    def _restore_random_states(self, run: StageRun) -> None:
        if run.rng_states is not None:
            restore_random_states(run.rng_states, self.accelerator.device)
            run.rng_states = None

    def _after_step(self, run: StageRun) -> None:
        """Validate and write a checkpoint when due. Raises TrainingInterrupted after a signal.

        A stage's last checkpoint is written before its validation, which could fail.
        """
        config, step = self.config, run.step
        interrupted = self._is_interrupted()
        ends = interrupted or step == run.steps
        if run.stage == "bridge" and _due(step, config.validate_every) and not ends:
            self._validate(step)
            self._set_training(run.stage, run.model)
        if ends or _due(step, config.save_every) or _due(step, config.hub_push_steps):
            folder = self._write_checkpoint(run)
            if folder and self.publisher and _due(step, config.hub_push_steps):
                self.publisher.publish_soon(folder, step)
        if interrupted:
            where = f", saved in {self.files.last_saved}" if self.files.last_saved else ""
            raise TrainingInterrupted(f"{run.stage} step {step}{where}", self.shutdown.number)

    def _write_checkpoint(self, run: StageRun) -> Path | None:
        run.saved = run.step
        return self.files.write_checkpoint(run.stage, run.step, run.epoch, run.state, run.sampler)

    def _keep_weights(self, run: StageRun) -> str:
        """Save the weights of the last complete step after a failure, and return where."""
        try:
            if run.step > run.saved:
                self._write_checkpoint(run)
        except (RuntimeError, ValueError) as error:  # such as a failed GPU
            self.accelerator.print(f"The last weights cannot be saved: {error}")
        folder = self.files.last_saved
        if folder is None:
            return "Nothing was trained yet, so nothing is saved."
        return (
            f"The last good weights are saved in {folder}: continue with --resume last, or with "
            f"other arguments and --model_path {folder}."
        )

    def _log(self, stage: str, entry: dict) -> dict[str, object]:
        """Log an entry, and return the part that the progress bar shows."""
        entry["seconds"] = round(self.files.seconds(), 1)
        self.files.log.append(entry)
        losses, rate = entry["loss"], entry["learning_rate"]
        tracked = {f"{stage}/{name}": value for name, value in losses.items()}
        self.accelerator.log(tracked | {f"{stage}/learning_rate": rate}, step=entry["step"])
        shown = {name: f"{value:.3f}" for name, value in losses.items()}
        return shown | {"lr": f"{rate:.1e}", "tok/s": entry["tokens_per_second"]}

    def _set_training(self, stage: str, model: nn.Module) -> None:
        """Enable dropout in the trained parts except the encoder; frozen parts stay in eval mode.

        OlmoEarth skips layers at random in training mode. A small encoder on augmented tiles fits
        worse with that, and several processes would not equal one. The search head has dropout only
        in its own stage, where scenes are not augmented.
        """
        model.train()
        self.bridge.encoder.eval()
        self.bridge.head.train(stage == "head")
        if self.bridge.vision is not None and self.bridge.config.freeze_vlm_vision:
            self.bridge.vision.eval()

    def _is_interrupted(self) -> bool:
        """Whether any process has received a signal. All processes call this together."""
        requested = torch.tensor(float(self.shutdown.requested), device=self.accelerator.device)
        return self.accelerator.reduce(requested, "sum").item() > 0

    def _validate(self, step: int) -> None:
        """Validate, once for each step. An error is reported and does not end the run.

        The random states of the training are unchanged afterwards.
        """
        if step == self._validated:
            return
        self._validated = step
        device = self.accelerator.device
        rng_states = random_states(device)
        try:
            self._log_validation(step)
        except (ValueError, OSError) as error:
            self.accelerator.print(f"No validation at step {step}: {error}")
        restore_random_states(rng_states, device)

    def _log_validation(self, step: int) -> None:
        """Log the losses on the validation tiles, and a few answers."""
        accelerator = self.accelerator
        if self._validation_loader is None:
            loader = self.loaders.validation(self.val_tiles)
            self._validation_loader = accelerator.prepare_data_loader(loader)
        losses = validation_losses(accelerator, self.model, self._validation_loader)
        # A sharded model answers only if all processes ask it together.
        if not self._is_main and not isinstance(self.model, FSDPModule):
            return
        with summon_full_params(self.model):
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


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
