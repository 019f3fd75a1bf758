"""Scenes with their conversations as a batch, and what a bridge makes of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from earthvlm.models.chat_templates import Prompt
from earthvlm.models.language_model import LanguageModel
from earthvlm.models.moondream2_vision import prefix_attention
from earthvlm.models.olmoearth import PreparedScene, SceneTokens

# What the encoder saw of a batch is kept until it is read: 0.03 GB for a nano encoder.
PATCHES_IN_BATCH = 65_536


@dataclass(frozen=True)
class BridgeBatch:
    """Scenes with a conversation each, ready for a bridge's `forward`.

    ids, labels: `[B, L]` without the scene's own tokens; padding has label -100.
    mask: `[B, L]`, True where there is a token.
    scene_at: where the scene stands among the ids, the same in all.
    tokens: what the encoder saw, where that is known already; scenes are then not needed.
    """

    scenes: list[PreparedScene]
    ids: Tensor
    labels: Tensor
    mask: Tensor
    scene_at: int
    tokens: SceneTokens | None = None


@dataclass(frozen=True)
class BridgeOutput:
    """What a bridge returns for a batch.

    loss: mean cross-entropy over answer tokens. answer_tokens: their number.
    scene_embedding: `[B, 384]`, unit length. tokens, queries: what `encode` returns.
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
    """Pad conversations into a batch. Raises ValueError where the scene's place differs."""
    if len({p.scene_at for p in prompts}) != 1:
        raise ValueError("All conversations of a batch must place the scene alike.")
    longest = max(len(p.ids) for p in prompts)
    ids = torch.full((len(prompts), longest), pad_id)
    labels = torch.full((len(prompts), longest), -100)
    mask = torch.zeros((len(prompts), longest), dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt.ids)] = torch.tensor(prompt.ids)
        labels[row, : len(prompt.ids)] = torch.tensor(prompt.labels)
        mask[row, : len(prompt.ids)] = True
    return BridgeBatch(list(scenes), ids, labels, mask, prompts[0].scene_at, tokens)


def plan_batches(sizes: Sequence[int], most_scenes: int) -> list[list[int]]:
    """Places of scenes in batches of like sizes, so that little is padded and memory suffices.

    sizes: in patches.
    """
    batches: list[list[int]] = []
    room = 0
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        if room == 0:
            batches.append([])
            # The first is the largest.
            room = min(most_scenes, max(1, PATCHES_IN_BATCH // max(1, sizes[place])))
        batches[-1].append(place)
        room -= 1
    return batches


def insert_scene(
    language: LanguageModel, ids: Tensor, scene: Tensor, mask: Tensor, scene_at: int
) -> tuple[Tensor, Tensor]:
    """Word embeddings with the scene's S vectors among them: `[B, L + S, D_text]`, and mask."""
    embeds = language.embed_around(ids, scene, scene_at)
    seen = mask.new_ones(scene.shape[:2])
    return embeds, torch.cat([mask[:, :scene_at], seen, mask[:, scene_at:]], dim=1).long()


def read_answers(
    language: LanguageModel, batch: BridgeBatch, scene: Tensor, picture_tokens: int = 0
) -> tuple[Tensor, Tensor]:
    """Logits of the answers' tokens `[T, V]`, and labels `[B, L]` that say which those are.

    scene: `[B, S, D_text]`. picture_tokens: so many of its first are read in both directions.
    """
    device = scene.device
    embeds, mask = insert_scene(
        language, batch.ids.to(device), scene, batch.mask.to(device), batch.scene_at
    )
    if picture_tokens:
        mask = prefix_attention(mask, batch.scene_at + picture_tokens, embeds.dtype)
    model = language.model
    hidden = model.get_decoder()(
        inputs_embeds=embeds, attention_mask=mask, use_cache=False
    ).last_hidden_state
    # The vocabulary is large and answers are short: logits only where they are scored.
    # Behind the prefix, the state before a token stands `scene length` further on.
    labels = batch.labels.to(device)[:, batch.scene_at :]
    first = batch.scene_at + scene.shape[1]
    states = hidden[:, first - 1 : -1]
    return model.get_output_embeddings()(states[labels != -100]).float(), labels
