"""Training over Accelerate: the encoder, then queries on mosaics, then the whole bridge."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader

from earthvlm.bridge import OlmoEarthVLMBridge
from earthvlm.bridge_config import CURVE_FILE, LOG_FILE, SAMPLES_FOLDER, sample_picture
from earthvlm.chatearthnet import ChatEarthNet, Tile
from earthvlm.checkpoints import (
    STATE_FILE,
    Progress,
    StopSignal,
    random_states,
    restore_random_states,
    write_checkpoint,
    write_files,
)
from earthvlm.conversations import DESCRIBE, describe
from earthvlm.loaders import StageLoaders
from earthvlm.objectives import TrainingModel, total_loss
from earthvlm.publishing import TrainingPublisher
from earthvlm.scene import Scene
from earthvlm.sentences import embed_sentences
from earthvlm.trackers import log_samples
from earthvlm.training_config import TrainingConfig
from earthvlm.training_data import (
    Batch,
    EpochSampler,
)
from earthvlm.training_log import LossWindow, plot_losses
from earthvlm.weights import unsharded, whole

STAGES = ("encoder", "queries", "bridge")
GRADIENT_NORM = 1.0
# A loss beyond this is no longer learning: a mean over tokens starts near 10 at most.
EXPLODED = 1000.0
LOG_EVERY = 10
SAMPLE_PIXELS = 128
# Optimizers' states by parameters' names, whole: they load into any number of processes. What never
# had a gradient has none.
WHOLE_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False)


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
        parts: list[tuple[nn.Module, float]] = [
            (bridge.fusion, config.query_learning_rate or rate),
            (bridge.head, config.head_learning_rate or rate),
        ]
        if stage != "queries":
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
        step, first_epoch, states = self._restore(stage, optimizer, scheduler, sampler, window)
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
            if states is not None and not sampler.used:
                restore_random_states(states)
                states = None
            for batches in _windows(loader, config.accumulation_steps):
                if states is not None:  # inside an epoch: after the loader drew its own number
                    restore_random_states(states)
                    states = None
                losses = self._step(model, batches, optimizer, parameters, step + 1)
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
                    self._write_checkpoint(place, sampler, optimizer, scheduler, window)
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

    def _step(
        self,
        model: nn.Module,
        batches: list[Batch],
        optimizer: torch.optim.Optimizer,
        parameters: list[nn.Parameter],
        step: int,
    ) -> dict[str, Tensor]:
        """One step over some batches; every answer token and every scene counts alike in it.

        Returns losses by name, means over this process's batches.
        """
        accelerator = self.accelerator
        counts = torch.tensor(
            [[b.answer_tokens for b in batches], [b.size for b in batches]],
            device=accelerator.device,
            dtype=torch.float,
        )
        totals = accelerator.reduce(counts.sum(1), "sum")
        shares = counts / totals.clamp(min=1)[:, None] * accelerator.num_processes
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=accelerator.device))
        for index, batch in enumerate(batches):
            last = index == len(batches) - 1
            with nullcontext() if last else accelerator.no_sync(model):
                with accelerator.autocast():
                    losses = model(batch, self._embed(batch.sentences))
                tokens = losses.pop("answer_tokens", None)
                weights = {
                    # What is gathered from all processes counts once a batch.
                    "contrastive": torch.tensor(1 / len(batches), device=accelerator.device),
                    "caption": shares[0, index],
                }
                weighted = {n: v * weights.get(n, shares[1, index]) for n, v in losses.items()}
                loss = total_loss(weighted)
                if not torch.isfinite(loss) or loss > EXPLODED:
                    raise ValueError(
                        f"The loss is {loss.item():g} at step {step}, with "
                        f"{', '.join(batch.names) or 'scenes put together'}: a lower learning "
                        "rate may help."
                    )
                accelerator.backward(loss)
            for name, value in losses.items():
                sums[name] += value.detach() / len(batches)
            if tokens is not None:
                sums["answer_tokens"] += tokens
        accelerator.clip_grad_norm_(parameters, GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()
        return sums

    def _is_asked_to_stop(self) -> bool:
        asked = torch.tensor(float(self.stop.asked), device=self.accelerator.device)
        return self.accelerator.reduce(asked, "sum").item() > 0

    def _embed(self, sentences: list[str]) -> Tensor:
        """Sentence embeddings: those of a batch together, the same whatever came before."""
        device = self.accelerator.device
        return torch.from_numpy(embed_sentences(sentences, str(device))).to(device)

    @torch.no_grad()
    def _validate(self, step: int) -> None:
        """Loss on the validation tiles as they are, and a few answers to read."""
        self.model.eval()
        totals: dict[str, float] = defaultdict(float)
        batches = 0
        for batch in self.accelerator.prepare_data_loader(self.loaders.validation(self.val_tiles)):
            with self.accelerator.autocast():
                losses = self.model(batch, self._embed(batch.sentences))
            losses.pop("answer_tokens")
            for name, value in losses.items():
                totals[name] += value.item()
            batches += 1
        validation = {name: total / batches for name, total in totals.items()}
        # What is sharded answers only if all processes ask it together.
        if not self._is_main and not isinstance(self.model, FSDPModule):
            return
        samples = []
        with unsharded(self.model):
            for scene, tile in self._sample_tiles():
                answer = self.bridge.generate(scene, DESCRIBE[0])
                truth = describe(tile.facts) if tile.facts else tile.captions[0]
                samples.append({"image": tile.name, "answer": answer, "truth": truth})
        if not self._is_main:
            return
        entry = {"stage": "validation", "step": step, "loss": validation, "samples": samples}
        self.log.append(entry)
        self.accelerator.log({f"validation/{n}": v for n, v in validation.items()}, step=step)
        log_samples(self.accelerator, samples, step)
        self.accelerator.print(f"step {step}: validation {json.dumps(validation)}")
        for sample in samples[:2]:
            self.accelerator.print(f"  {sample['image']}: {sample['answer']}")

    def _sample_tiles(self) -> Iterator[tuple[Scene, Tile]]:
        for index in np.unique(np.linspace(0, len(self.val_tiles) - 1, 4).astype(int)):
            yield self.val_tiles[int(index)]

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
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        sampler: EpochSampler,
        window: LossWindow,
    ) -> tuple[int, int, dict | None]:
        """Step, epoch and random states to go on from: those of the checkpoint, in its stage."""
        if self.progress is None or self.progress.stage != stage:
            return 0, 0, None
        state = torch.load(self.checkpoint / STATE_FILE, map_location="cpu", weights_only=True)
        set_optimizer_state_dict(
            self.model, optimizer.optimizer, state["optimizer"], options=WHOLE_STATE
        )
        scheduler.load_state_dict(state["scheduler"])
        if self.accelerator.scaler and state.get("scaler"):
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.model.probe is not None:
            set_model_state_dict(self.model.probe, state["probe"], options=WHOLE_STATE)
        for name, values in state["window"].items():
            window.losses[name] = [torch.tensor(v) for v in values]
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
        sampler: EpochSampler,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        window: LossWindow,
    ) -> None:
        stage, step, epoch = place
        config, accelerator = self.config, self.accelerator
        states = accelerator.gather_for_metrics([random_states()], use_gather_object=True)
        # All processes hold a part of what is sharded.
        weights = self.bridge.weights()
        probe = self.model.probe.state_dict() if self.model.probe is not None else {}
        state = {
            "optimizer": get_optimizer_state_dict(
                self.model, optimizer.optimizer, options=WHOLE_STATE
            ),
            "scheduler": scheduler.state_dict(),
            "probe": {name: whole(tensor) for name, tensor in probe.items()},
            "window": {n: [x.item() for x in v] for n, v in window.losses.items()},
            "scaler": accelerator.scaler.state_dict() if accelerator.scaler else {},
        }
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
            torch.save(state, folder / STATE_FILE)
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
        arguments = {k: v for k, v in asdict(self.config).items() if not k.endswith("_dir")}
        self.bridge.with_training(
            f"trained for {step:,} steps on {len(self.train_tiles):,} Sentinel-2 tiles",
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
            for scene, tile in self._sample_tiles():
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


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
