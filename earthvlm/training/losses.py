"""What training minimises: answers, soft words, land cover, and scenes beside sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.data.labels import LAND_COVER, SceneLabels
from earthvlm.training.query_targets import QueryTargets
from earthvlm.training.samples import Batch

CONTRASTIVE_WEIGHT = 0.2
QUERY_TARGETS_WEIGHT = 2.0
LAND_COVER_WEIGHT = 1.0
# Sentences within this cosine distance count as descriptions of each other's scenes.
TEXT_TEMPERATURE = 0.05
SCENE_TEMPERATURE = 0.05


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
        labels: Sequence[SceneLabels],
    ) -> Tensor:
        """Mean absolute error of the shares over cells, halves of weight on cells and on scenes."""
        logits = self.layer(tokens).float()
        alike = defaultdict(list)  # scenes of one grid and one cell layout go together
        for index, (grid, known) in enumerate(zip(grids, labels, strict=True)):
            alike[grid, known.cloud.shape].append(index)
        losses = []
        for (grid, cells), indices in alike.items():
            count = grid[0] * grid[1]
            seen = logits[indices, : count * band_sets].unflatten(1, (count, band_sets)).mean(2)
            seen = seen.transpose(1, 2).unflatten(2, grid)
            cover = F.adaptive_avg_pool2d(seen[:, :-2].softmax(1), cells)
            sky = F.adaptive_avg_pool2d(seen[:, -2:].sigmoid(), cells)
            known_cover, known_sky = (
                torch.from_numpy(np.stack([f(labels[i]) for i in indices])).to(logits)
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
        self.query_targets = QueryTargets(bridge.language, bridge.config.num_geo_queries)

    @property
    def _no_split_modules(self) -> list[str]:
        """The layers that sharding keeps whole, as accelerate asks for them."""
        return list(self.bridge.language.model._no_split_modules)

    def forward(self, batch: Batch, sentences: Tensor) -> dict[str, Tensor]:
        """Losses by name; without conversations, those of encoder, queries and search alone."""
        bridge = self.bridge
        losses = {}
        if batch.pooled is not None:
            device = bridge.device
            embedding = bridge.head.place(*(part.to(device) for part in batch.pooled))
        elif batch.bridge is None:
            known = batch.tokens is not None
            tokens = batch.tokens.to(bridge.device) if known else bridge.encoder(batch.scenes)
            queries = bridge.resample(tokens)
            embedding = bridge.head(queries, tokens.tokens, tokens.mask)
        else:
            output = bridge(batch.bridge)
            tokens, queries, embedding = output.tokens, output.queries, output.scene_embedding
            losses["caption"] = output.loss
            losses["answer_tokens"] = output.answer_tokens
        losses["contrastive"] = contrastive_loss(_gathered(embedding), _gathered(sentences))
        # Words are targets for as long as their embeddings stand still.
        words_move = batch.bridge is not None and not bridge.config.use_lora
        if batch.labels is not None and not words_move:
            losses["query_targets"] = self.query_targets(queries, batch.labels)
            if self.probe is not None and batch.bridge is None and batch.tokens is None:
                losses["land_cover"] = self.probe(
                    tokens.tokens, tokens.grids, bridge.encoder.band_sets, batch.labels
                )
        return losses


def _gathered(tensor: Tensor) -> Tensor:
    """The rows of all processes, with gradients for this process's own."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return tensor
    return _GatherRows.apply(tensor)


class _GatherRows(torch.autograd.Function):
    """Concatenates the rows of all processes; each gets the sum of its rows' gradients."""

    @staticmethod
    def forward(_ctx: object, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()  # reduced in place, and autograd's own
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


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
    """The weighted sum of those of a step's losses that are minimised."""
    weights = {
        "caption": 1.0,
        "contrastive": CONTRASTIVE_WEIGHT,
        "query_targets": QUERY_TARGETS_WEIGHT,
        "land_cover": LAND_COVER_WEIGHT,
    }
    return sum(weights[name] * losses[name] for name in weights if name in losses)
