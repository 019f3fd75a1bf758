"""What training minimises: captions, query targets, land cover, and the contrastive loss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.bridge.segmentation import segment_tokens
from earthvlm.data.labels import LAND_COVER, SceneLabels
from earthvlm.data.pixel_labels import PixelLabels
from earthvlm.models.olmoearth import SceneTokens
from earthvlm.models.query_encoder import SCENE_TEMPERATURE
from earthvlm.training.batches.samples import Batch
from earthvlm.training.losses.query_targets import QueryTargets
from earthvlm.training.losses.segmentation_loss import segmentation_loss

CAPTION_WEIGHT = 1.0
CONTRASTIVE_WEIGHT = 0.2
QUERY_TARGETS_WEIGHT = 2.0
LAND_COVER_WEIGHT = 1.0
SEGMENTATION_WEIGHT = 1.0
# Sentences within this cosine distance count as descriptions of each other's scenes.
TEXT_TEMPERATURE = 0.05
HIDDEN = -1e4  # a logit whose probability is 0, in half precision too


class Normalizer(Enum):
    """What a loss is a mean over, in a batch and so in a step of several batches."""

    ANSWER_TOKENS = "answer tokens"
    SCENES = "scenes"
    BATCHES = "batches"

    def count(self, batch: Batch) -> int:
        """The number of those in a batch."""
        counts = {Normalizer.ANSWER_TOKENS: batch.answer_tokens, Normalizer.SCENES: batch.size}
        return counts.get(self, 1)


class Loss(NamedTuple):
    """A loss of one batch, as a tuple, because DDP and FSDP look for tensors in tuples.

    value: a mean, as a scalar. weight: in the sum that is minimised. normalizer: see `Normalizer`.
    """

    value: Tensor
    weight: float
    normalizer: Normalizer


class LandCoverProbe(nn.Module):
    """Predicts land cover, cloud and haze from each token; discarded after training."""

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
        """Mean absolute error of the shares, summed over each cell's and each scene's mean.

        Args:
            tokens: `[B, N, D_olmo]`, of which a scene's first rows x columns x band_sets are its.
            grids: rows and columns of each scene's patches.
        """
        logits = self.layer(tokens).float()
        groups = defaultdict(list)  # scenes of the same grid and cell layout
        for index, (grid, known) in enumerate(zip(grids, labels, strict=True)):
            groups[grid, known.cloud.shape].append(index)
        losses = []
        for (grid, cells), indices in groups.items():
            count = grid[0] * grid[1]
            patches = logits[indices, : count * band_sets].unflatten(1, (count, band_sets)).mean(2)
            patches = patches.transpose(1, 2).unflatten(2, grid)
            cover = F.adaptive_avg_pool2d(patches[:, :-2].softmax(1), cells)
            sky = F.adaptive_avg_pool2d(patches[:, -2:].sigmoid(), cells)
            true_cover, true_sky = (
                torch.from_numpy(np.stack([read(labels[i]) for i in indices])).to(logits)
                for read in (
                    lambda k: np.ascontiguousarray(k.land_cover.transpose(2, 0, 1)),
                    lambda k: np.stack([k.cloud, k.haze]),
                )
            )
            true_sky = torch.where(true_sky.isnan(), sky.detach(), true_sky)  # haze may be unknown
            clear = 1 - true_sky[:, :1]
            error = (cover - true_cover) * clear
            by_cell = error.abs().sum(1).mean((1, 2))
            by_scene = error.mean((2, 3)).abs().sum(1)
            losses.append(by_cell + by_scene + (sky - true_sky).abs().sum(1).mean((1, 2)))
        return torch.cat(losses).mean()


class TrainingModel(nn.Module):
    """The bridge and the parts that only training needs, under one forward."""

    def __init__(self, bridge: OlmoEarthVLMBridge) -> None:
        super().__init__()
        self.bridge = bridge
        trains_encoder = not bridge.config.freeze_olmoearth
        self.probe = LandCoverProbe(bridge.encoder.dim) if trains_encoder else None
        self.query_targets = QueryTargets(bridge.language, bridge.config.num_geo_queries)

    @property
    def _no_split_modules(self) -> list[str]:
        """The layers that sharding keeps whole, as Accelerate asks for them."""
        return list(self.bridge.language.model._no_split_modules)

    def forward(self, batch: Batch, sentences: Tensor) -> dict[str, Loss]:
        """Losses by name; a batch without conversations has no caption loss.

        sentences: the embeddings of the batch's sentences, `[B, D_sentence]`.
        """
        bridge = self.bridge
        losses: dict[str, Loss] = {}
        if batch.pixel_labels is not None:
            return {"segmentation": self._segmentation_loss(batch, batch.pixel_labels)}
        tokens: SceneTokens | None = None
        if batch.pooled is not None:
            embedding = bridge.head.embed(*(part.to(bridge.device) for part in batch.pooled))
        elif batch.bridge is not None:
            output = bridge(batch.bridge)
            tokens, queries, embedding = output.tokens, output.queries, output.scene_embedding
            losses["caption"] = Loss(output.loss, CAPTION_WEIGHT, Normalizer.ANSWER_TOKENS)
        else:
            if batch.tokens is None:
                tokens = bridge.encoder(batch.scenes)
            else:
                tokens = batch.tokens.to(bridge.device)
            queries = bridge.resample(tokens)
            embedding = bridge.head(queries, tokens.tokens, tokens.mask)
        contrastive = contrastive_loss(gather_rows(embedding), gather_rows(sentences))
        losses["contrastive"] = Loss(contrastive, CONTRASTIVE_WEIGHT, Normalizer.BATCHES)
        # Word embeddings are targets only while they do not train themselves.
        embeddings_fixed = batch.bridge is None or bridge.config.use_lora
        if batch.labels is not None and tokens is not None and embeddings_fixed:
            targets = self.query_targets(queries, batch.labels)
            losses["query_targets"] = Loss(targets, QUERY_TARGETS_WEIGHT, Normalizer.SCENES)
            if self.probe is not None and batch.bridge is None and batch.tokens is None:
                cover = self.probe(
                    tokens.tokens, tokens.grids, bridge.encoder.band_sets, batch.labels
                )
                losses["land_cover"] = Loss(cover, LAND_COVER_WEIGHT, Normalizer.SCENES)
        return losses

    def _segmentation_loss(self, batch: Batch, labels: Sequence[PixelLabels]) -> Loss:
        bridge, total = self.bridge, torch.zeros((), device=self.bridge.device)
        assert bridge.segmentation_head is not None
        groups = defaultdict(list)  # scenes of one size and patch size
        for index, scene in enumerate(batch.scenes):
            groups[scene.pixels.shape, scene.patch_size].append(index)
        for indices in groups.values():
            scenes = [batch.scenes[i] for i in indices]
            logits = segment_tokens(bridge.encoder, bridge.segmentation_head, scenes)
            loss = segmentation_loss(logits, [labels[i] for i in indices])
            total = total + loss * len(indices) / len(batch.scenes)
        return Loss(total, SEGMENTATION_WEIGHT, Normalizer.SCENES)


def gather_rows(tensor: Tensor) -> Tensor:
    """The rows of all processes; gradients flow to this process's own."""
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
    """Contrast scenes `[B, 384]` with their sentences `[B, 384]`, both of unit length.

    Many scenes share a description, so the targets are soft: the sentences' similarities. A
    cosine term keeps scenes near their sentences even in batches with few other scenes. A row of
    zeros is a scene without a sentence, which is left out.
    """
    sentences = sentences.to(scenes)
    # Without a branch on values, for which a GPU would have to be waited for.
    described = sentences.any(1)
    other = ~(described[:, None] & described)
    targets = (sentences @ sentences.T / TEXT_TEMPERATURE).masked_fill(other, HIDDEN).softmax(1)
    logits = (scenes @ sentences.T / SCENE_TEMPERATURE).masked_fill(other, HIDDEN)
    both = [F.cross_entropy(each, targets, reduction="none") for each in (logits, logits.T)]
    losses = (both[0] + both[1]) / 2 + 1 - (scenes * sentences).sum(1)
    return (losses * described).sum() / described.sum().clamp(min=1)
