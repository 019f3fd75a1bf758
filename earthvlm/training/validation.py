"""Validation during training: losses on validation tiles, and answers about a few of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.captioned_scenes import CaptionedScenes, Tile
from earthvlm.data.questions.scene_sentences import describe
from earthvlm.data.questions.templates import DESCRIBE
from earthvlm.scenes.scene import Scene
from earthvlm.training.losses.training_model import Normalizer
from earthvlm.training.step import accumulation_groups, compute_losses

SAMPLES = 4


@torch.no_grad()
def validation_losses(
    accelerator: Accelerator, model: nn.Module, loader: DataLoader
) -> dict[str, float]:
    """Mean losses by name over all processes: per answer token, or per scene.

    All processes call this together. Leaves the model in evaluation mode.
    loader: prepared by the accelerator.

    Raises TrainingFailure for a tile that cannot be read.
    """
    model.eval()
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(2, device=accelerator.device))
    for (batch,) in accumulation_groups(accelerator, loader, 1):
        for name, loss in compute_losses(accelerator, model, batch).items():
            # Losses of whole batches too, so that a last small batch does not count too much.
            per_token = loss.normalizer is Normalizer.ANSWER_TOKENS
            count = batch.answer_tokens if per_token else batch.size
            value = loss.value.float()
            sums[name] += torch.stack([value * count, torch.full_like(value, count)])
    totals = accelerator.reduce(dict(sums), "sum")
    return {name: (total[0] / total[1]).item() for name, total in totals.items()}


def sample_answers(bridge: OlmoEarthVLMBridge, tiles: CaptionedScenes) -> list[dict[str, str]]:
    """The bridge's descriptions of the sample tiles, with their references.

    A tile that has only conversations is asked the first question of one.
    """
    samples = []
    for scene, tile in sample_tiles(tiles):
        question, reference = ask_tile(tile)
        answer = str(bridge.generate(scene, question))
        samples.append({"image": tile.name, "answer": answer, "reference": reference})
    return samples


def ask_tile(tile: Tile) -> tuple[str, str]:
    """A question about a tile and its reference answer: a description, where it has one."""
    if tile.labels:
        return DESCRIBE[0], describe(tile.labels)
    if tile.captions:
        return DESCRIBE[0], tile.captions[0]
    question, answer, *_ = tile.conversations[0]
    return question["content"], answer["content"]


def sample_tiles(tiles: CaptionedScenes) -> Iterator[tuple[Scene, Tile]]:
    """A few tiles, spread evenly, with their scenes."""
    for index in np.unique(np.linspace(0, len(tiles) - 1, SAMPLES).astype(int)):
        tile = tiles.tiles[int(index)]
        yield tiles.read(tile), tile
