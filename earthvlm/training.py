"""Training over Accelerate: the encoder, then queries on mosaics, then the whole bridge."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
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
)
from earthvlm.conversations import DESCRIBE, describe
from earthvlm.encoder import join_tokens
from earthvlm.facts import SceneFacts
from earthvlm.mosaics import CROPS, MOSAICS, EncodedCrop, TokenMosaics, collate_mosaics
from earthvlm.objectives import TrainingModel, total_loss
from earthvlm.publishing import TrainingPublisher
from earthvlm.scene import Scene
from earthvlm.sentences import embed_sentences
from earthvlm.token_cache import TokenCache
from earthvlm.trackers import log_samples
from earthvlm.training_config import TrainingConfig
from earthvlm.training_data import (
    CROP_LAYOUTS,
    LAYOUTS,
    Batch,
    EpochSampler,
    Layout,
    Sample,
    SampleKey,
    TrainingSamples,
    balancing_weights,
)
from earthvlm.weights import whole

STAGES = ("encoder", "queries", "bridge")
GRADIENT_NORM = 1.0
# A loss beyond this is no longer learning: a mean over tokens starts near 10 at most.
EXPLODED = 1000.0
LOG_EVERY = 10
SAMPLE_PIXELS = 128
# Optimizers' states by parameters' names, whole: they load into any number of processes. What never
# had a gradient has none.
WHOLE_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False)
# How often every tile is among the crops that are encoded once for `--query_epochs`.
CROP_EPOCHS = 2


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
        config: TrainingConfig,
        accelerator: Accelerator,
        checkpoint: Path | None = None,
        publisher: TrainingPublisher | None = None,
    ) -> None:
        self.bridge, self.config, self.accelerator = bridge, config, accelerator
        self.publisher = publisher
        self.output = Path(config.output_dir)
        self.train_tiles = ChatEarthNet(config.data_dir, "train", config.captions)
        self.val_tiles = ChatEarthNet(config.data_dir, "val", config.captions)
        if config.balance:
            self._need_facts("--balance")
        if self.train_tiles.skipped:
            accelerator.print(f"{self.train_tiles.skipped:,} unusable tiles are left out.")
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
        self.stop = StopSignal()
        self.model = TrainingModel(self.bridge).to(self.accelerator.device)
        if self.config.gradient_checkpointing:
            self.bridge.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        epochs = {
            "encoder": self.config.encoder_epochs,
            "queries": self.config.query_epochs,
            "bridge": self.config.num_epochs,
        }
        first = STAGES.index(self.progress.stage) if self.progress else 0
        for stage in STAGES[first:]:
            if epochs[stage]:
                loader = getattr(self, f"_{stage}_loader")()
                self._train(stage, loader, epochs[stage])
        weights = self.bridge.weights()
        if self._is_main:
            self._save(self.output, self.log[-1]["step"], weights)
            if self.publisher is not None:
                self.publisher.finish(self.output)

    # What each stage learns from

    def _encoder_loader(self) -> DataLoader:
        self._need_facts("--encoder_epochs")
        return self._loader(self.train_tiles, with_words=False, layouts=CROP_LAYOUTS)

    def _queries_loader(self) -> DataLoader:
        """Mosaics of encoded crops; the encoder stays as it is."""
        self._need_facts("--query_epochs")
        mosaics = TokenMosaics(self._encode_crops(), self.config.seed)
        size = self.config.encoder_batch_size // 2
        return DataLoader(
            mosaics,
            batch_size=size,
            sampler=self._sampler([crop.facts for crop in mosaics.crops], size, MOSAICS),
            collate_fn=collate_mosaics,
        )

    def _bridge_loader(self) -> DataLoader:
        cache = self._cache() if self.config.cache_tokens else None
        return self._loader(self.train_tiles, with_words=True, layouts=LAYOUTS, cache=cache)

    def _cache(self) -> TokenCache:
        bridge, accelerator = self.bridge, self.accelerator
        if not bridge.config.freeze_olmoearth or bridge.vision is not None:
            raise ValueError("--cache_tokens needs --freeze_olmoearth, and no vision tower.")
        cache = TokenCache(Path(self.config.cache_tokens), bridge.encoder, self.train_tiles)
        cache.fill(
            self.config.encoder_batch_size,
            accelerator.wait_for_everyone,
            accelerator.local_process_index,
            int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
            show_progress=self._is_main,
        )
        return cache

    @torch.no_grad()
    def _encode_crops(self) -> list[EncodedCrop]:
        from tqdm import tqdm

        crops = []
        encoder = self.bridge.encoder.eval()
        loader = self._loader(self.train_tiles, with_words=False, layouts=CROPS)
        for epoch in range(CROP_EPOCHS):
            loader.sampler.epoch = epoch
            for batch in tqdm(loader, desc="encoding crops", disable=not self._is_main):
                with self._unsharded():
                    seen = encoder(batch.scenes)
                for tokens, (rows, columns), facts in zip(
                    seen.tokens, seen.grids, batch.facts, strict=True
                ):
                    grid = tokens[: rows * columns * encoder.band_sets]
                    grid = grid.unflatten(0, (rows, columns, encoder.band_sets))
                    crops.append(EncodedCrop(grid.clone(), facts))
        return crops

    @contextmanager
    def _unsharded(self) -> Iterator[None]:
        """Parts of the model can be called by themselves in here; in shards they could not."""
        sharded = isinstance(self.model, FSDPModule)
        if sharded:
            self.model.unshard()
        yield
        if sharded:
            self.model.reshard()

    def _need_facts(self, argument: str) -> None:
        if not self.train_tiles.has_facts:
            raise ValueError(f"{argument} needs a facts.json with every tile in --data_dir.")

    @property
    def _is_main(self) -> bool:
        return self.accelerator.is_main_process

    def _sampler(
        self,
        facts: list[SceneFacts | None],
        size: int,
        layouts: Mapping[Layout, float],
        length_of: Callable[[SampleKey], int] | None = None,
    ) -> EpochSampler:
        # Batches that all processes take at one time are of one layout.
        size *= self.accelerator.num_processes
        weights = balancing_weights(facts) if self.config.balance else None
        return EpochSampler(len(facts), size, self.config.seed, layouts, weights, length_of)

    def _loader(
        self,
        tiles: ChatEarthNet,
        with_words: bool,
        layouts: Mapping[Layout, float] | None,
        cache: TokenCache | None = None,
    ) -> DataLoader:
        """Tiles varied and put together, or, without layouts, some of them as they are."""
        config = self.config
        size = config.batch_size if with_words else config.encoder_batch_size
        samples = TrainingSamples(tiles, self.bridge, config.seed, with_words, cache)
        count = min(config.validate_tiles or len(samples), len(samples))
        spread = np.linspace(0, len(samples) - 1, count).astype(int)
        sampler = [SampleKey(0, int(index)) for index in spread]
        if layouts:
            length_of = samples.length_of if with_words else None
            sampler = self._sampler([t.facts for t in tiles], size, layouts, length_of)
        return DataLoader(
            samples,
            batch_size=size,
            sampler=sampler,
            collate_fn=self._collate,
            num_workers=config.num_workers,
            worker_init_fn=_end_when_asked,
            persistent_workers=config.num_workers > 0,
        )

    def _collate(self, samples: list[Sample]) -> Batch:
        scenes = [s.scene for s in samples if s.scene is not None]
        tokens = [s.tokens.float() for s in samples if s.tokens is not None]
        prompts = [s.prompt for s in samples if s.prompt is not None]
        facts = [s.facts for s in samples]
        seen = join_tokens(tokens) if tokens else None
        return Batch(
            bridge=self.bridge.collate(scenes, prompts, seen) if prompts else None,
            scenes=scenes,
            facts=None if None in facts else facts,
            sentences=[s.sentence for s in samples],
            names=[s.name for s in samples],
        )

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
        steps = steps_an_epoch * epochs
        if config.max_steps and stage == "bridge":
            steps = min(steps, config.max_steps)
        warmup = min(config.warmup_steps, steps // 5)
        # Stepped once a step whatever the number of processes, so it is not prepared.
        scheduler = get_scheduler(config.schedule, optimizer.optimizer, warmup, steps)
        window = _Window(accelerator)
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
                    progress = epoch + (step % steps_an_epoch) / steps_an_epoch
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
                    place = stage, step, epoch, sampler.used
                    self._write_checkpoint(place, optimizer, scheduler, window)
                if asked:
                    bar.close()
                    raise Stopped(f"{stage} step {step}")
                if step == steps:
                    break
            sampler.used = 0
            if step == steps:
                break
        bar.close()
        if stage == "bridge" and not _due(step, config.validate_every):
            self._validate(step)

    def _set_training(self, model: nn.Module) -> None:
        """Dropout in what learns; what is frozen, or only encodes ahead, stays as in use."""
        model.train()
        if self.bridge.config.freeze_olmoearth:
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
        for batch in self.accelerator.prepare_data_loader(
            self._loader(self.val_tiles, with_words=True, layouts=None)
        ):
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
        with self._unsharded():
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
        for index in np.linspace(0, len(self.val_tiles) - 1, 4).astype(int):
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

    def _restore(
        self,
        stage: str,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        sampler: EpochSampler,
        window: _Window,
    ) -> tuple[int, int, dict | None]:
        """Step, epoch and random states to go on from: those of the checkpoint, in its stage."""
        if self.progress is None or self.progress.stage != stage:
            return 0, 0, None
        state = torch.load(self.checkpoint / STATE_FILE, map_location="cpu", weights_only=True)
        set_optimizer_state_dict(
            self.model, optimizer.optimizer, state["optimizer"], options=WHOLE_STATE
        )
        scheduler.load_state_dict(state["scheduler"])
        if self.model.probe is not None:
            set_model_state_dict(self.model.probe, state["probe"], options=WHOLE_STATE)
        for name, values in state["window"].items():
            window.losses[name] = [torch.tensor(v) for v in values]
        progress, self.progress = self.progress, None
        whole = progress.samples >= len(sampler)  # the epoch was at its end
        sampler.used = 0 if whole else progress.samples
        rank = self.accelerator.process_index
        own = self.checkpoint / f"random_{rank}.pt"
        states = torch.load(own, weights_only=True) if own.is_file() else None
        return progress.step, progress.epoch + whole, states

    def _write_checkpoint(
        self,
        place: tuple[str, int, int, int],
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        window: _Window,
    ) -> None:
        stage, step, epoch, samples = place
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
        }
        if not self._is_main:
            return
        progress = Progress(
            stage,
            step,
            epoch,
            samples,
            accelerator.num_processes,
            config.batch_size,
            config.accumulation_steps,
            asdict(config),
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


class _Window:
    """Losses since the last log entry."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.processes = accelerator.num_processes
        self.losses: dict[str, list[Tensor]] = defaultdict(list)
        self.began = time.time()

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self.losses[name].append(value)

    def entry(self, stage: str, step: int, epoch: float, rates: list[float]) -> dict:
        means = {n: torch.stack(v).float().mean().item() for n, v in self.losses.items()}
        tokens = means.pop("answer_tokens", 0.0) * len(self.losses.get("answer_tokens", ()))
        rate = tokens * self.processes / (time.time() - self.began)
        self.losses.clear()
        self.began = time.time()
        return {
            "stage": stage,
            "step": step,
            "epoch": round(epoch, 3),
            "loss": means,
            "learning_rate": rates[-1],
            "tokens_per_second": round(rate),
        }


def _end_when_asked(_: int) -> None:
    """Workers inherit the handler that waits for the end of a step; they have no steps."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


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


def plot_losses(log: list[dict], path: Path) -> None:
    """Draw each loss of the last stage over its steps, validation beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss", title="Training")
    last = [entry["stage"] for entry in log if entry["stage"] != "validation"][-1]
    for stage, style in ((last, "-"), ("validation", "o--")):
        entries = [entry for entry in log if entry["stage"] == stage]
        for name in entries[0]["loss"] if entries else ():
            steps = [entry["step"] for entry in entries]
            axes.plot(steps, [e["loss"][name] for e in entries], style, label=f"{name} ({stage})")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
