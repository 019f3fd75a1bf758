"""Training over Accelerate: the encoder on land cover, then the whole bridge on conversations."""

from __future__ import annotations

import json
import logging
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

from earthvlm.augmentation import augment, join_scenes
from earthvlm.bridge import BridgeBatch, OlmoEarthVLMBridge
from earthvlm.chatearthnet import ChatEarthNet
from earthvlm.conversations import (
    DESCRIBE,
    caption_conversation,
    describe,
    short_phrase,
    write_conversation,
)
from earthvlm.encoder import PreparedScene
from earthvlm.facts import LAND_COVER, SceneFacts
from earthvlm.language import Prompt
from earthvlm.scene import Scene
from earthvlm.sentences import embed_sentences
from earthvlm.soft_words import SoftWords

logger = logging.getLogger(__name__)

# How tiles are put together into larger scenes and zoomed (rows, columns, zoom), and how often.
LAYOUTS = {
    (1, 1, 1): 0.78,
    (1, 1, 0.75): 0.02,
    (1, 1, 1.5): 0.02,
    (2, 2, 1): 0.12,
    (1, 2, 1): 0.02,
    (2, 1, 1): 0.02,
    (3, 3, 1): 0.01,
    (4, 4, 1): 0.01,
}
CONTRASTIVE_WEIGHT = 0.2
SOFT_WORDS_WEIGHT = 2.0
LAND_COVER_WEIGHT = 1.0
# Sentences within this cosine distance count as descriptions of each other's scenes.
TEXT_TEMPERATURE = 0.05
SCENE_TEMPERATURE = 0.05
GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class TrainingConfig:
    """What a training run is asked for; see `train_accelerate.py --help` for each."""

    data_dir: str
    output_dir: str
    captions: str = "35"
    batch_size: int = 8
    accumulation_steps: int = 1
    num_epochs: int = 1
    encoder_epochs: int = 0
    encoder_batch_size: int = 64
    learning_rate: float = 3e-4
    encoder_learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    save_every: int = 0
    validate_every: int = 0
    validate_tiles: int = 0
    max_steps: int = 0
    num_workers: int = 2
    seed: int = 0
    mixed_precision: str = "no"


@dataclass(frozen=True)
class Sample:
    """A scene made ready in a worker. facts is None where only its caption is known."""

    scene: PreparedScene
    prompt: Prompt | None
    facts: SceneFacts | None
    sentence: str


@dataclass(frozen=True)
class Batch:
    """Samples with their conversations padded together."""

    bridge: BridgeBatch | None
    scenes: list[PreparedScene]
    facts: list[SceneFacts] | None
    sentences: list[str]


@dataclass(frozen=True)
class SampleKey:
    """Which sample is wanted: its epoch, its tile, and an index into `LAYOUTS` or None."""

    epoch: int
    index: int
    layout: int | None = None


class EpochSampler(Sampler[SampleKey]):
    """Every index once an epoch, shuffled by the seed; neighbours of one batch have one layout.

    Scenes of one size need no padding. The epoch travels with the index so that workers that
    outlive an epoch draw new variations, the same ones whatever their number.
    """

    def __init__(self, length: int, batch_size: int, seed: int) -> None:
        self.length, self.batch_size, self.seed, self.epoch = length, batch_size, seed, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[SampleKey]:
        numbers = np.random.default_rng((self.seed, self.epoch))
        order = numbers.permutation(self.length)
        odds = np.array(tuple(LAYOUTS.values()))
        layouts = numbers.choice(len(odds), p=odds / odds.sum(), size=self.length)
        for place, index in enumerate(order):
            yield SampleKey(self.epoch, int(index), int(layouts[place // self.batch_size]))


class TrainingSamples(Dataset):
    """Tiles made into samples: put together, varied, asked about.

    bridge: gives the encoder's preparation and the language model's prompt format.
    with_words: False prepares scenes and facts alone, for the encoder's own training.
    """

    def __init__(
        self,
        tiles: ChatEarthNet,
        bridge: OlmoEarthVLMBridge,
        seed: int,
        with_words: bool = True,
    ) -> None:
        self.tiles, self.seed, self.with_words = tiles, seed, with_words
        # Only what workers need: bound methods would carry the language model along.
        self.prepare = bridge.encoder.prepare
        self.encode = bridge.language.encode
        self.layouts = tuple(LAYOUTS)

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, key: SampleKey) -> Sample:
        numbers = np.random.default_rng((self.seed, key.epoch, key.index))
        rng = random.Random(int(numbers.integers(2**63)))
        scene, tile = self.tiles[key.index]
        if tile.facts is None:
            caption = rng.choice(tile.captions)
            messages, facts, sentence = caption_conversation(caption, rng), None, caption
        else:
            facts = tile.facts
            if key.layout is not None:
                scene, facts = self._vary(scene, facts, self.layouts[key.layout], numbers)
            messages = write_conversation(facts, rng)
            sentence = describe(facts) if rng.random() < 0.05 else short_phrase(facts, rng)
        prompt = self.encode(messages) if self.with_words else None
        return Sample(self.prepare(scene), prompt, facts, sentence)

    def _vary(
        self,
        scene: Scene,
        facts: SceneFacts,
        layout: tuple[int, int, float],
        numbers: np.random.Generator,
    ) -> tuple[Scene, SceneFacts]:
        rows, columns, zoom = layout
        pieces = [(scene, facts)]
        for index in numbers.integers(len(self.tiles), size=rows * columns - 1):
            other, tile = self.tiles[int(index)]
            pieces.append((other, tile.facts))
        numbers.shuffle(pieces)
        grid = [pieces[r * columns : (r + 1) * columns] for r in range(rows)]
        scene, facts = augment(*join_scenes(grid), numbers, zoom)
        year, month, day = numbers.integers((2016, 1, 1), (2026, 13, 29))
        return replace(scene, date=_date(year, month, day)), facts


def _date(year: int, month: int, day: int):
    import datetime

    return datetime.date(int(year), int(month), int(day))


class LandCoverProbe(nn.Module):
    """Reads land cover, cloud and haze off each token; used while training, then dropped."""

    def __init__(self, token_dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(token_dim, len(LAND_COVER) + 2)

    def forward(
        self,
        tokens: Tensor,
        grids: Sequence[tuple[int, int]],
        band_sets: int,
        facts: Sequence[SceneFacts],
    ) -> Tensor:
        """Mean absolute error of the shares over cells, halves of weight on cells and on scenes."""
        logits = self.layer(tokens).float()
        alike = defaultdict(list)  # scenes of one grid and one cell layout go together
        for index, (grid, known) in enumerate(zip(grids, facts, strict=True)):
            alike[grid, known.cloud.shape].append(index)
        losses = []
        for (grid, cells), indices in alike.items():
            count = grid[0] * grid[1]
            seen = logits[indices, : count * band_sets].unflatten(1, (count, band_sets)).mean(2)
            seen = seen.transpose(1, 2).unflatten(2, grid)
            cover = F.adaptive_avg_pool2d(seen[:, :-2].softmax(1), cells)
            sky = F.adaptive_avg_pool2d(seen[:, -2:].sigmoid(), cells)
            known_cover, known_sky = (
                torch.from_numpy(np.stack([f(facts[i]) for i in indices])).to(logits)
                for f in (
                    lambda k: np.ascontiguousarray(k.land_cover.transpose(2, 0, 1)),
                    lambda k: np.stack([k.cloud, k.haze]),
                )
            )
            clear = 1 - known_sky[:, :1]
            error = (cover - known_cover) * clear
            by_cell = error.abs().sum(1).mean((1, 2))
            by_scene = error.mean((2, 3)).abs().sum(1)
            losses.append(by_cell + by_scene + (sky - known_sky).abs().sum(1).mean((1, 2)))
        return torch.cat(losses).mean()


class TrainingModel(nn.Module):
    """The bridge and what else is needed to train it, under one forward."""

    def __init__(self, bridge: OlmoEarthVLMBridge) -> None:
        super().__init__()
        self.bridge = bridge
        trains = not bridge.config.freeze_olmoearth
        self.probe = LandCoverProbe(bridge.encoder.dim) if trains else None
        self.soft_words = SoftWords(bridge.language, bridge.config.num_geo_queries)

    def forward(self, batch: Batch, sentences: Tensor) -> dict[str, Tensor]:
        """Losses by name; without conversations, those of encoder, queries and search alone."""
        bridge = self.bridge
        losses = {}
        if batch.bridge is None:
            tokens, queries = bridge.see(batch.scenes)
            embedding = bridge.head(queries, tokens.tokens, tokens.mask)
        else:
            output = bridge(batch.bridge)
            tokens, queries, embedding = output.tokens, output.queries, output.scene_embedding
            losses["caption"] = output.loss
            losses["answer_tokens"] = output.answer_tokens
        losses["contrastive"] = contrastive_loss(embedding, sentences)
        if batch.facts is not None:
            losses["soft_words"] = self.soft_words(queries, batch.facts)
            if self.probe is not None:
                losses["land_cover"] = self.probe(
                    tokens.tokens, tokens.grids, bridge.encoder.band_sets, batch.facts
                )
        return losses


def contrastive_loss(scenes: Tensor, sentences: Tensor) -> Tensor:
    """Scenes `[B, 384]` beside their sentences `[B, 384]`, both of unit length.

    Many scenes share a description, so the targets are soft: how alike the sentences are. A
    cosine term keeps scenes near their sentences even where a batch holds few others.
    """
    sentences = sentences.to(scenes)
    alike = (sentences @ sentences.T / TEXT_TEMPERATURE).softmax(1)
    logits = scenes @ sentences.T / SCENE_TEMPERATURE
    both = F.cross_entropy(logits, alike) + F.cross_entropy(logits.T, alike)
    return both / 2 + (1 - (scenes * sentences).sum(1)).mean()


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    weights = {
        "caption": 1.0,
        "contrastive": CONTRASTIVE_WEIGHT,
        "soft_words": SOFT_WORDS_WEIGHT,
        "land_cover": LAND_COVER_WEIGHT,
    }
    return sum(weights[name] * losses[name] for name in weights if name in losses)


class Trainer:
    """Trains a bridge on ChatEarthNet-like data and writes it to `output_dir`.

    Every process runs the loop; the main one alone writes files and shows progress.
    """

    def __init__(
        self, bridge: OlmoEarthVLMBridge, config: TrainingConfig, accelerator: Accelerator
    ) -> None:
        self.bridge, self.config, self.accelerator = bridge, config, accelerator
        self.output = Path(config.output_dir)
        self.train_tiles = ChatEarthNet(config.data_dir, "train", config.captions)
        self.val_tiles = ChatEarthNet(config.data_dir, "val", config.captions)
        self.log: list[dict] = []
        self.embedded: dict[str, np.ndarray] = {}
        self.started = time.time()

    def run(self) -> None:
        """Train the encoder where asked to, then the bridge; save it with its log and curve."""
        self.model = TrainingModel(self.bridge).to(self.accelerator.device)
        if self.config.encoder_epochs:
            self._train_encoder()
        if self.config.num_epochs:
            self._train_bridge()
        if self.accelerator.is_main_process:
            self._save(self.output, self.log[-1]["step"])

    def _train_encoder(self) -> None:
        if not self.train_tiles.has_facts:
            raise ValueError("--encoder_epochs needs a facts.json with every tile in --data_dir.")
        self._loop(self._seeing_groups(), self.config.encoder_epochs, with_words=False)

    def _train_bridge(self) -> None:
        config = self.config
        adapter = [p for p in self.bridge.language_model.parameters() if p.requires_grad]
        groups = self._seeing_groups()
        groups.append({"params": adapter, "lr": config.learning_rate})
        self._loop([g for g in groups if g["params"]], config.num_epochs, with_words=True)

    def _seeing_groups(self) -> list[dict]:
        """All that comes before the language model, under one learning rate."""
        bridge, rate = self.bridge, self.config.encoder_learning_rate
        groups = [{"params": [*bridge.fusion.parameters(), *bridge.head.parameters()], "lr": rate}]
        if self.model.probe is not None:
            seeing = [*bridge.encoder.parameters(), *self.model.probe.parameters()]
            groups.append({"params": seeing, "lr": rate})
        return groups

    def _loader(self, tiles: ChatEarthNet, with_words: bool, vary: bool) -> DataLoader:
        config = self.config
        size = config.batch_size if with_words else config.encoder_batch_size
        samples = TrainingSamples(tiles, self.bridge, config.seed, with_words)
        count = min(config.validate_tiles or len(samples), len(samples))
        spread = np.linspace(0, len(samples) - 1, count).astype(int)
        fixed = [SampleKey(0, int(index)) for index in spread]
        return DataLoader(
            samples,
            batch_size=size,
            sampler=EpochSampler(len(samples), size, config.seed) if vary else fixed,
            collate_fn=self._collate,
            num_workers=config.num_workers,
            persistent_workers=config.num_workers > 0,
        )

    def _collate(self, samples: list[Sample]) -> Batch:
        scenes = [s.scene for s in samples]
        words = samples[0].prompt is not None
        facts = [s.facts for s in samples]
        return Batch(
            bridge=self.bridge.collate(scenes, [s.prompt for s in samples]) if words else None,
            scenes=scenes,
            facts=None if None in facts else facts,
            sentences=[s.sentence for s in samples],
        )

    def _loop(self, groups: list[dict], epochs: int, with_words: bool) -> None:
        from tqdm import tqdm
        from transformers import get_cosine_schedule_with_warmup

        config, accelerator = self.config, self.accelerator
        loader = self._loader(self.train_tiles, with_words, vary=True)
        sampler = loader.sampler
        optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay, betas=(0.9, 0.95))
        model, optimizer, loader = accelerator.prepare(self.model, optimizer, loader)
        steps_an_epoch = -(-len(loader) // config.accumulation_steps)
        steps = steps_an_epoch * epochs
        if config.max_steps and with_words:
            steps = min(steps, config.max_steps)
        warmup = min(config.warmup_steps, steps // 5)
        scheduler = get_cosine_schedule_with_warmup(optimizer, warmup, steps)
        parameters = [p for group in groups for p in group["params"]]
        stage = "bridge" if with_words else "encoder"
        bar = tqdm(
            total=steps,
            disable=not accelerator.is_main_process,
            desc=stage,
            unit="step",
            mininterval=1,
        )
        step, tokens_done, began = 0, 0, time.time()
        for epoch in range(epochs):
            sampler.epoch = epoch
            model.train()
            running: dict[str, list[Tensor]] = defaultdict(list)
            for batch in loader:
                with accelerator.accumulate(model):
                    sentences = self._embed(batch.sentences)
                    with accelerator.autocast():
                        losses = model(batch, sentences)
                    loss = total_loss(losses)
                    if not torch.isfinite(loss):
                        raise ValueError(f"The loss is {loss.item()} at step {step + 1}.")
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(parameters, GRADIENT_NORM)
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
                for name, value in losses.items():
                    running[name].append(value.detach())
                if not accelerator.sync_gradients:
                    continue
                step += 1
                if step % 10 == 0 or step == steps:
                    means = {n: torch.stack(v).float().mean().item() for n, v in running.items()}
                    tokens_done += sum(int(v) for v in running["answer_tokens"])
                    running.clear()
                    means.pop("answer_tokens", None)
                    rate = tokens_done / (time.time() - began) * accelerator.num_processes
                    entry = {
                        "stage": stage,
                        "step": step,
                        "epoch": round(epoch + (step % steps_an_epoch) / steps_an_epoch, 3),
                        "loss": means,
                        "learning_rate": scheduler.get_last_lr()[0],
                        "tokens_per_second": round(rate),
                        "seconds": round(time.time() - self.started, 1),
                    }
                    self.log.append(entry)
                    bar.set_postfix(
                        {n: f"{v:.3f}" for n, v in means.items()}
                        | {"lr": f"{entry['learning_rate']:.1e}", "tok/s": round(rate)}
                    )
                bar.update()
                if with_words and _due(step, config.validate_every):
                    self._validate(step)
                    model.train()
                if with_words and _due(step, config.save_every) and accelerator.is_main_process:
                    self._save(self.output / "checkpoints" / str(step), step)
                if step == steps:
                    break
            if step == steps:
                break
        bar.close()
        if with_words and not _due(step, config.validate_every):
            self._validate(step)

    def _embed(self, sentences: list[str]) -> Tensor:
        """Sentence embeddings; the same words come again and again, so they are kept."""
        device = self.accelerator.device
        new = [s for s in dict.fromkeys(sentences) if s not in self.embedded]
        if new:
            self.embedded.update(zip(new, embed_sentences(new, str(device)), strict=True))
        return torch.from_numpy(np.stack([self.embedded[s] for s in sentences])).to(device)

    @torch.no_grad()
    def _validate(self, step: int) -> None:
        """Loss on the validation tiles as they are, and a few answers to read."""
        self.model.eval()
        totals: dict[str, float] = defaultdict(float)
        batches = 0
        for batch in self.accelerator.prepare_data_loader(
            self._loader(self.val_tiles, with_words=True, vary=False)
        ):
            with self.accelerator.autocast():
                losses = self.model(batch, self._embed(batch.sentences))
            for name, value in losses.items():
                totals[name] += value.item()
            batches += 1
        totals.pop("answer_tokens")
        validation = {name: total / batches for name, total in totals.items()}
        if not self.accelerator.is_main_process:
            return
        samples = []
        for index in np.linspace(0, len(self.val_tiles) - 1, 4).astype(int):
            scene, tile = self.val_tiles[int(index)]
            answer = self.bridge.generate(scene, DESCRIBE[0])
            truth = describe(tile.facts) if tile.facts else tile.captions[0]
            samples.append({"image": tile.name, "answer": answer, "truth": truth})
        entry = {"stage": "validation", "step": step, "loss": validation, "samples": samples}
        self.log.append(entry)
        self.accelerator.print(f"step {step}: validation {json.dumps(validation)}")
        for sample in samples[:2]:
            self.accelerator.print(f"  {sample['image']}: {sample['answer']}")

    def _save(self, folder: Path, step: int) -> None:
        seconds = round(time.time() - self.started)
        arguments = {k: v for k, v in asdict(self.config).items() if not k.endswith("_dir")}
        self.bridge.with_training(
            f"trained for {step:,} steps on {len(self.train_tiles):,} Sentinel-2 tiles",
            {
                "arguments": arguments,
                "steps": step,
                "seconds": seconds,
                "device": _device_name(self.accelerator.device),
                "torch": torch.__version__,
            },
        )
        self.bridge.save_pretrained(folder)
        (folder / "training_log.json").write_text(json.dumps(self.log, indent=1) + "\n")
        plot_losses(self.log, folder / "loss_curve.png")


def plot_losses(log: list[dict], path: Path) -> None:
    """Draw each loss of the last stage over its steps, validation beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss", title="Training")
    last = "bridge" if any(entry["stage"] == "bridge" for entry in log) else "encoder"
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
