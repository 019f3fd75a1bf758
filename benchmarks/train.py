"""Measure training speed, change by change, from the original recipe to the current one.

python -m benchmarks.train [--data_dir CHATEARTHNET] [--vlm_model ID]

The original recipe reads tiles one at a time on the main thread, encodes them in every epoch, pads
every sample to 256 tokens, computes logits for all tokens, and uses float32. Each row changes one
thing and keeps the changes of the rows before; bfloat16 is left out where the processor multiplies
float32 faster. Without --data_dir the tiles are generated, with 256 x 256 pixels and captions of 40
to 200 tokens, as in ChatEarthNet.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.report import report
from earthvlm.bridge.batch import BridgeBatch, insert_scene
from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.chatearthnet.dataset import ChatEarthNet
from earthvlm.models.olmoearth import join_tokens
from earthvlm.scenes.bands import BANDS, CHATEARTHNET_FOLDERS
from earthvlm.storage.tensors import multiplies_bfloat16
from earthvlm.training.batches.feature_cache import FeatureCache
from earthvlm.training.batches.sampler import EpochSampler
from earthvlm.training.batches.samples import Sample, TrainingSamples
from tests.support.generated_chatearthnet import write_generated_chatearthnet

PADDED_TO = 256
TILES = 64
LAYOUTS: dict[Any, float] = {None: 1.0}  # tiles as they are


@dataclass(frozen=True)
class Recipe:
    """The settings of a row; see the module's docstring."""

    by_length: bool = False
    answer_logits: bool = False
    workers: int = 0
    cached: bool = False
    half: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, help="ChatEarthNet; generated tiles otherwise")
    parser.add_argument("--vlm_model", default="embedded", help="the language model")
    parser.add_argument("--olmoearth_model", default="random-v1.2-nano", help="the encoder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3, help="measured, after one for warmup")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each recipe")
    arguments = parser.parse_args()
    bands = {band for group in CHATEARTHNET_FOLDERS.values() for band in group}
    bridge = OlmoEarthVLMBridge(
        arguments.olmoearth_model,
        arguments.vlm_model,
        device=arguments.device,
        dtype=torch.float32,
        bands=tuple(band for band in BANDS if band in bands),
    )
    with tempfile.TemporaryDirectory() as temporary:
        data = arguments.data_dir or _generate(Path(temporary))
        # No tile cache, because an epoch of the whole dataset would not fit in memory.
        tiles = ChatEarthNet(data, "train", memory=0)
        cache = FeatureCache(Path(temporary) / "cache", bridge.encoder, tiles)
        cache.fill(16, lambda: None)
        recipes = _recipes(bridge.device)
        rates: dict[str, list[float]] = {name: [] for name in recipes}
        # Interleaved, so that other load on the machine affects all recipes.
        for name, recipe in list(recipes.items()) * arguments.rounds:
            step = _step(bridge, recipe)
            batches = _batches(bridge, tiles, cache, recipe, arguments.batch_size)
            seconds = _measure(step, batches, arguments.steps, bridge.device)
            rates[name] += [arguments.batch_size / s for s in seconds]
    report("train", rates, "samples/s")
    first, *others = map(statistics.median, rates.values())
    ratios = {name: [rate / first] for name, rate in zip(list(rates)[1:], others, strict=True)}
    report("train_ratio", ratios, "relative")


def _recipes(device: torch.device) -> dict[str, Recipe]:
    recipes = {"original": Recipe()}
    recipe = recipes["+ logits of answer tokens only"] = Recipe(answer_logits=True)
    recipe = recipes["+ batches by length"] = replace(recipe, by_length=True)
    recipe = recipes["+ two workers"] = replace(recipe, workers=2)
    recipe = recipes["+ feature cache"] = replace(recipe, cached=True)
    if device.type == "cuda" or multiplies_bfloat16(device):
        recipes["+ bfloat16"] = replace(recipe, half=True)
    return recipes


def _generate(folder: Path) -> Path:
    """Write tiles of ChatEarthNet's size, with captions of as varied lengths."""
    write_generated_chatearthnet(folder, train=TILES, val=1, side=256)
    path = folder / "json_files" / "ChatEarthNet_caps_35_train.json"
    entries = json.loads(path.read_text())
    rng = random.Random(0)
    words = sorted({word for entry in entries for word in entry["caption"].split()})
    for entry in entries:
        entry["caption"] = " ".join(rng.choices(words, k=rng.randint(35, 175)))
    path.write_text(json.dumps(entries))
    return folder


def _batches(
    bridge: OlmoEarthVLMBridge,
    tiles: ChatEarthNet,
    cache: FeatureCache,
    recipe: Recipe,
    batch_size: int,
) -> Iterator[BridgeBatch]:
    tiles.tiles = [replace(tile, labels=None) for tile in tiles.tiles]
    kept = cache if recipe.cached else None
    samples = TrainingSamples(tiles, bridge, seed=0, cache=kept)
    length_of = samples.length_of if recipe.by_length else None
    sampler = EpochSampler(len(samples), batch_size, 0, LAYOUTS, length_of=length_of)

    def collate(drawn: list[Sample]) -> BridgeBatch:
        prompts = [sample.prompt for sample in drawn if sample.prompt]
        if kept is None:
            batch = bridge.collate([sample.scene for sample in drawn if sample.scene], prompts)
        else:
            tokens = join_tokens([s.tokens.float() for s in drawn if s.tokens is not None])
            batch = bridge.collate([], prompts, tokens)
        return batch if recipe.by_length else _pad(batch)

    loader = DataLoader(
        samples, batch_size, sampler=sampler, collate_fn=collate, num_workers=recipe.workers
    )
    while True:
        yield from loader
        sampler.epoch += 1


def _pad(batch: BridgeBatch) -> BridgeBatch:
    """Pad or cut every sample to PADDED_TO tokens."""

    def fit(tensor: Tensor, fill: int | bool) -> Tensor:
        missing = max(PADDED_TO - tensor.shape[1], 0)
        return torch.nn.functional.pad(tensor, (0, missing), value=fill)[:, :PADDED_TO]

    ids, labels, mask = fit(batch.ids, 0), fit(batch.labels, -100), fit(batch.mask, False)
    return replace(batch, ids=ids, labels=labels, mask=mask)


def _step(bridge: OlmoEarthVLMBridge, recipe: Recipe) -> Callable[[BridgeBatch], None]:
    for parameter in bridge.language_model.parameters():
        if not parameter.requires_grad:  # trained parameters stay in float32, as in training
            parameter.data = parameter.data.to(torch.bfloat16 if recipe.half else torch.float32)
    parameters = [p for p in bridge.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 1e-4)

    def step(batch: BridgeBatch) -> None:
        with torch.autocast(bridge.device.type, torch.bfloat16, enabled=recipe.half):
            loss = bridge(batch).loss if recipe.answer_logits else _loss_of_all(bridge, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _loss_of_all(bridge: OlmoEarthVLMBridge, batch: BridgeBatch) -> Tensor:
    """The language model's own loss, with logits for every token."""
    scene = bridge.encode(batch.scenes)[1]
    device = bridge.device
    embeds, mask = insert_scene(
        bridge.language, batch.ids.to(device), scene, batch.mask.to(device), batch.scene_at
    )
    unscored = batch.labels.new_full(scene.shape[:2], -100)
    before, after = batch.labels.split(
        [batch.scene_at, batch.labels.shape[1] - batch.scene_at], dim=1
    )
    labels = torch.cat([before, unscored, after], dim=1).to(device)
    model = bridge.language.model
    return model(inputs_embeds=embeds, attention_mask=mask, labels=labels, use_cache=False).loss


def _measure(
    step: Callable[[BridgeBatch], None],
    batches: Iterator[BridgeBatch],
    count: int,
    device: torch.device,
) -> list[float]:
    """Seconds of each step, including the wait for its batch, after a warmup step."""
    seconds = []
    for _ in range(count + 1):
        start = time.perf_counter()
        step(next(batches))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


if __name__ == "__main__":
    main()
