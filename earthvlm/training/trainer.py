"""Training over Accelerate: encoder, queries on mosaics, the whole bridge, the search head."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.bridge.publish import TrainingPublisher
from earthvlm.data.captioned_scenes import CaptionedScenes
from earthvlm.storage.sharding import summon_full_params
from earthvlm.training.checkpoints import (
    GracefulShutdown,
    TrainingInterrupted,
    random_states,
    restore_random_states,
)
from earthvlm.training.config import STAGES, TrainingConfig
from earthvlm.training.dataloaders import StageLoaders
from earthvlm.training.logging import RunningLosses, log_samples
from earthvlm.training.losses import TrainingModel
from earthvlm.training.optimizer_state import StageState
from earthvlm.training.run_directory import RunDirectory
from earthvlm.training.sampler import EpochSampler
from earthvlm.training.step import (
    TrainingFailure,
    accumulation_groups,
    describe_worker_death,
    train_step,
)
from earthvlm.training.validation import sample_answers, validation_losses

if TYPE_CHECKING:
    from tqdm import tqdm

LOG_EVERY = 10


@dataclass
class StageRun:
    """A stage as it runs.

    steps, epochs: in all. step, epoch: where it stands, epochs counted from 0. drawn: random states
    to restore before the next step. saved: the last step with a checkpoint.
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
    drawn: dict[str, object] | None
    saved: int


class Trainer:
    """Trains a bridge on ChatEarthNet-like data and writes it to `output_dir`.

    Every process runs the loop; the main one alone writes files and shows progress.
    checkpoint: a folder that `write_checkpoint` made of an earlier run, whose bridge this one is;
        the run then goes on from there.
    publisher: publishes the bridge when it is trained, and on the way as `hub_push_steps` says.
    """

    def __init__(
        self,
        bridge: OlmoEarthVLMBridge,
        train_tiles: CaptionedScenes,
        val_tiles: CaptionedScenes,
        config: TrainingConfig,
        accelerator: Accelerator,
        checkpoint: Path | None = None,
        publisher: TrainingPublisher | None = None,
    ) -> None:
        self.bridge, self.config, self.accelerator = bridge, config, accelerator
        self.publisher = publisher
        self.val_tiles = val_tiles
        self._validation_loader: DataLoader | None = None
        self.loaders = StageLoaders(bridge, config, accelerator, train_tiles)
        self.files = RunDirectory(bridge, train_tiles, val_tiles, config, accelerator, checkpoint)
        done = [e["step"] for e in self.files.log if e["stage"] == "validation"]
        self._validated = max(done, default=0)

    def run(self) -> None:
        """Train what is asked for, stage by stage; save the bridge with its log and curve.

        Raises TrainingInterrupted where the process was asked to end, and TrainingFailure where
        training cannot continue, both once a checkpoint is written; their text names it.
        """
        with GracefulShutdown() as self.stop:
            self._train_stages()
        self.files.save()
        if self._is_main and self.publisher is not None:
            self.publisher.finish(self.files.output)

    def _train_stages(self) -> None:
        self.model = TrainingModel(self.bridge).to(self.accelerator.device)
        if self.config.gradient_checkpointing:
            self.bridge.language_model.activation_checkpointing_enable({"use_reentrant": False})
        stages = list(STAGES)
        for stage in stages[stages.index(self.files.stage or stages[0]) :]:
            epochs = getattr(self.config, STAGES[stage])
            if epochs:
                with self.stop.at_once(f"before the stage {stage}"):
                    loader = getattr(self.loaders, stage)(self.model)
                self._train(stage, loader, epochs)
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
            group
            for part, rate in parts
            for group in _split_by_decay(part, rate, config.weight_decay)
        ]
        return [group for group in groups if group["params"]]

    def _train(self, stage: str, loader: DataLoader, epochs: int) -> None:
        run = self._start(stage, loader, epochs)
        if stage == "bridge" and _due(run.step, self.config.validate_every):
            self._validate(run.step)  # where a run was stopped before it
        try:
            self._take_steps(run)
        except TrainingInterrupted:
            raise
        except TrainingFailure as error:
            raise TrainingFailure(f"{error} {self._keep_weights(run)}") from error
        except Exception as error:
            if self.accelerator.num_processes > 1:
                raise  # in this process alone: the others cannot save with it
            death, kept = describe_worker_death(error), self._keep_weights(run)
            if death is not None:
                raise TrainingFailure(f"{death} {kept}") from error
            self.accelerator.print(kept)
            raise
        finally:
            run.bar.close()
        if stage == "bridge":
            self.files.save()  # whatever becomes of the validation
            with self.stop.at_once(f"bridge step {run.step}, before its validation"):
                self._validate(run.step)

    def _start(self, stage: str, loader: DataLoader, epochs: int) -> StageRun:
        from tqdm import tqdm
        from transformers import get_scheduler

        config, accelerator, sampler = self.config, self.accelerator, loader.sampler
        optimizer = torch.optim.AdamW(self._groups(stage), betas=(0.9, 0.95))
        model, optimizer, loader = accelerator.prepare(self.model, optimizer, loader)
        # After preparing: what is sharded has other parameters than before.
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        steps_an_epoch = -(-len(loader) // config.accumulation_steps)
        steps = self.files.steps_to_take(stage, sampler, steps_an_epoch, epochs)
        if config.max_steps and stage == "bridge":
            steps = min(steps, config.max_steps)
        warmup = min(config.warmup_steps, steps // 5)
        if warmup < config.warmup_steps:
            accelerator.print(
                f"{stage}: the rate rises over {warmup} steps, a fifth of {steps}, not over "
                f"--warmup_steps {config.warmup_steps}."
            )
        # Stepped once a step whatever the number of processes, so it is not prepared.
        scheduler = get_scheduler(config.schedule, optimizer.optimizer, warmup, steps)
        window = RunningLosses(accelerator)
        state = StageState(accelerator, self.model, optimizer.optimizer, scheduler, window)
        step, epoch, drawn = self.files.restore(stage, state, sampler)
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
            drawn,
            step,
        )

    def _take_steps(self, run: StageRun) -> None:
        config, accelerator, sampler = self.config, self.accelerator, run.sampler
        for epoch in range(run.epoch, run.epochs):
            if run.step >= run.steps:  # inside an epoch, where a run was killed at its end too
                break
            run.epoch = sampler.epoch = epoch
            self._set_training(run.stage, run.model)
            if not sampler.used:
                self._restore_random_states(run)
            for batches in accumulation_groups(accelerator, run.loader, config.accumulation_steps):
                # Inside an epoch: after the loader drew its own number.
                self._restore_random_states(run)
                losses = train_step(
                    accelerator, run.model, batches, run.optimizer, run.parameters, run.step + 1
                )
                rate = run.state.scheduler.get_last_lr()[-1]
                run.state.scheduler.step()
                run.step += 1
                run.state.window.add(losses)
                sampler.used += sum(b.size for b in batches) * accelerator.num_processes
                if run.step % LOG_EVERY == 0 or run.step == run.steps:
                    progress = run.epoch + min(sampler.used / len(sampler), 1)
                    entry = run.state.window.entry(run.stage, run.step, progress, rate)
                    run.bar.set_postfix(self._note(run.stage, entry))
                run.bar.update()
                self._after_step(run)
                if run.step == run.steps:
                    break
            sampler.used, sampler.earlier = 0, ()

    def _restore_random_states(self, run: StageRun) -> None:
        if run.drawn is not None:
            restore_random_states(run.drawn, self.accelerator.device)
            run.drawn = None

    def _after_step(self, run: StageRun) -> None:
        """Validate and write a checkpoint when due. Raises TrainingInterrupted when asked to stop.

        A stage's last checkpoint comes before its validation, which could fail.
        """
        config, step = self.config, run.step
        asked = self._is_asked_to_stop()
        ends = asked or step == run.steps
        if run.stage == "bridge" and _due(step, config.validate_every) and not ends:
            self._validate(step)
            self._set_training(run.stage, run.model)
        if ends or _due(step, config.save_every) or _due(step, config.hub_push_steps):
            folder = self._write_checkpoint(run)
            if folder and self.publisher and _due(step, config.hub_push_steps):
                self.publisher.publish_soon(folder, step)
        if asked:
            where = f", saved in {self.files.last_saved}" if self.files.last_saved else ""
            raise TrainingInterrupted(f"{run.stage} step {step}{where}", self.stop.number)

    def _write_checkpoint(self, run: StageRun) -> Path | None:
        run.saved = run.step
        return self.files.write_checkpoint(run.stage, run.step, run.epoch, run.state, run.sampler)

    def _keep_weights(self, run: StageRun) -> str:
        """Save what the last whole step made, where training cannot continue, and say where."""
        try:
            if run.step > run.saved:
                self._write_checkpoint(run)
        except (RuntimeError, ValueError) as error:  # of a GPU that failed, say
            self.accelerator.print(f"The last weights cannot be saved: {error}")
        folder = self.files.last_saved
        if folder is None:
            return "Nothing was trained yet, so nothing is saved."
        return (
            f"The last good weights are saved in {folder}: continue with --resume last, or with "
            f"other arguments and --model_path {folder}."
        )

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
        """Validate once a step; what fails is said, and never ends a run.

        Draws no random numbers that training would have drawn.
        """
        if step == self._validated:
            return
        self._validated = step
        device = self.accelerator.device
        drawn = random_states(device)
        try:
            self._measure(step)
        except (ValueError, OSError) as error:
            self.accelerator.print(f"No validation at step {step}: {error}")
        restore_random_states(drawn, device)

    def _measure(self, step: int) -> None:
        """Loss on the validation tiles as they are, and a few answers to read."""
        accelerator = self.accelerator
        if self._validation_loader is None:
            loader = self.loaders.validation(self.val_tiles)
            self._validation_loader = accelerator.prepare_data_loader(loader)
        losses = validation_losses(accelerator, self.model, self._validation_loader)
        # What is sharded answers only if all processes ask it together.
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


def _first_given(*rates: float | None) -> float:
    """The first that is not None: a rate of 0 leaves what it is for as it is."""
    return next(rate for rate in rates if rate is not None)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _split_by_decay(part: nn.Module, rate: float, weight_decay: float) -> list[dict]:
    """The trained parameters of a part in two groups: weights of layers, which decay, and others.

    Biases, norms, embeddings, positions and queries have no reason to be small.
    """
    decaying = {
        id(parameter)
        for module in part.modules()
        if not isinstance(module, nn.Embedding)
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim > 1 and name.endswith("weight")
    }
    trained = [p for p in part.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if (id(p) in decaying) == decays], "lr": rate}
        | {"weight_decay": weight_decay if decays else 0.0}
        for decays in (True, False)
    ]
