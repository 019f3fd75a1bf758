"""Batches of scenes with their conversations, and the logits of the answers in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from earthvlm.models.attention_masks import make_prefix_mask
from earthvlm.models.language.chat_templates import Prompt
from earthvlm.models.language.language_model import LanguageModel
from earthvlm.models.olmoearth import PreparedScene, SceneTokens

# Patches whose tokens are in memory at once: 0.03 GB for a nano encoder.
MAX_BATCH_PATCHES = 65_536


@dataclass(frozen=True)
class BridgeBatch:
    """Scenes with a conversation each, ready for a bridge's `forward`.

    Attributes:
        scenes: not needed where `tokens` are given.
        ids: token ids `[B, L]` without the scene's vectors.
        labels: `[B, L]`, the ids of answers; -100 elsewhere, padding included.
        mask: `[B, L]`, True where there is a token.
        scene_at: the index among the ids at which the scene is inserted, the same in all rows.
        tokens: OlmoEarth's tokens, where they are known already.
    """

    scenes: list[PreparedScene]
    ids: Tensor
    labels: Tensor
    mask: Tensor
    scene_at: int
    tokens: SceneTokens | None = None


@dataclass(frozen=True)
class BridgeOutput:
    """What a bridge's `forward` computes.

    Attributes:
        loss: mean cross-entropy over the answers' tokens.
        answer_tokens: how many tokens the answers have.
        scene_embedding: `[B, 384]`, unit length.
        tokens: OlmoEarth's tokens.
        queries: the query outputs, `[B, Q, D_text]`.
    """

    loss: Tensor
    answer_tokens: Tensor
    scene_embedding: Tensor
    tokens: SceneTokens
    queries: Tensor


def pad_batch(
    scenes: Sequence[PreparedScene],
    prompts: Sequence[Prompt],
    tokens: SceneTokens | None,
    pad_id: int,
) -> BridgeBatch:
    """Pad conversations into a batch.

    Raises ValueError for prompts that insert the scene at different indices.
    """
    if len({p.scene_at for p in prompts}) != 1:
        raise ValueError("All conversations of a batch must insert the scene at the same index.")
    longest = max(len(p.ids) for p in prompts)
    ids = torch.full((len(prompts), longest), pad_id)
    labels = torch.full((len(prompts), longest), -100)
    mask = torch.zeros((len(prompts), longest), dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt.ids)] = torch.tensor(prompt.ids)
        labels[row, : len(prompt.ids)] = torch.tensor(prompt.labels)
        mask[row, : len(prompt.ids)] = True
    return BridgeBatch(list(scenes), ids, labels, mask, prompts[0].scene_at, tokens)


def plan_batches(sizes: Sequence[int], max_scenes: int) -> list[list[int]]:
    """Group the indices of scenes by size, so that batches need little padding and fit in memory.

    sizes: of the scenes, in patches.
    """
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        if room == 0:
            batches.append([])
            # The first scene of a batch is its largest.
            room = min(max_scenes, max(1, MAX_BATCH_PATCHES // max(1, sizes[index])))
        batches[-1].append(index)
        room -= 1
    return batches


def insert_scene(
    language: LanguageModel, ids: Tensor, scene: Tensor, mask: Tensor, scene_at: int
) -> tuple[Tensor, Tensor]:
    """Insert scenes `[B, S, D_text]` into word embeddings: `[B, L + S, D_text]`, and the mask."""
    embeds = language.embed_around(ids, scene, scene_at)
    ones = mask.new_ones(scene.shape[:2])
    return embeds, torch.cat([mask[:, :scene_at], ones, mask[:, scene_at:]], dim=1).long()


def compute_answer_logits(
    language: LanguageModel, batch: BridgeBatch, scene: Tensor, image_tokens: int = 0
) -> tuple[Tensor, Tensor]:
    """Compute the logits `[T, V]` of the answers' tokens, and the labels `[B, L]` of those tokens.

    Args:
        language: the language model.
        batch: the conversations.
        scene: the scenes' vectors, `[B, S, D_text]`.
        image_tokens: how many of a scene's first vectors attend to each other in both directions.
    """
    device = scene.device
    embeds, mask = insert_scene(
        language, batch.ids.to(device), scene, batch.mask.to(device), batch.scene_at
    )
    if image_tokens:
        mask = make_prefix_mask(mask, batch.scene_at + image_tokens, embeds.dtype)
    model = language.model
    hidden = model.get_decoder()(
        inputs_embeds=embeds, attention_mask=mask, use_cache=False
    ).last_hidden_state
    # The vocabulary is large and answers are short, so logits are computed for answers alone.
    # After the scene, the state before a token lies `S` further on than its label.
    labels = batch.labels.to(device)[:, batch.scene_at :]
    first = batch.scene_at + scene.shape[1]
    states = hidden[:, first - 1 : -1]
    return model.get_output_embeddings()(states[labels != -100]).float(), labels


def sum_answer_losses(
    language: LanguageModel, batch: BridgeBatch, scene: Tensor, image_tokens: int = 0
) -> tuple[Tensor, Tensor]:
    """Sum each row's negative log-likelihood of its answers, `[B]`, and count their tokens, `[B]`.

    The arguments are those of `compute_answer_logits`.
    """
    logits, labels = compute_answer_logits(language, batch, scene, image_tokens)
    scored = labels != -100
    losses = torch.zeros(labels.shape, device=labels.device)
    losses[scored] = F.cross_entropy(logits, labels[scored], reduction="none")
    return losses.sum(1), scored.sum(1)
