"""Where an answer looked: attention from its words, through the queries, to places in the scene.

Attention shows what was weighed in, not why something was said, and is no proof of an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from earthvlm.models.chat_templates import Message
from earthvlm.scenes.scene import Scene

if TYPE_CHECKING:
    from earthvlm.bridge.model import OlmoEarthVLMBridge


@dataclass(frozen=True)
class AnswerAttention:
    """Where each word of an answer looked.

    words: the answer, cut where its words begin; joined, they are the answer.
    maps: float32 `[words, rows, columns]`, one value a patch of the encoder; each map sums to 1.
    baseline: `[rows, columns]`, where the queries look whatever is said; it sums to 1.
    """

    words: tuple[str, ...]
    maps: np.ndarray
    baseline: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """The mean over the words, `[rows, columns]`."""
        return self.maps.mean(0)

    def relative_attention(self, word: int | None = None) -> np.ndarray:
        """How much more an answer looked at each patch than the queries usually do: 0 to 1.

        For a word: how much more than the whole answer did. The queries look at some places always;
        divided by that, what is left is the answer's, or the word's, own.
        """
        looked, base = (self.mean, self.baseline) if word is None else (self.maps[word], self.mean)
        ratio = looked / np.maximum(base, 1e-9)
        low, high = np.percentile(ratio, (5, 99))
        return ((ratio - low) / max(high - low, 1e-9)).clip(0, 1).astype(np.float32)


@torch.inference_mode()
def attend(
    bridge: OlmoEarthVLMBridge, scene: Scene, messages: Sequence[Message]
) -> AnswerAttention:
    """Where the last answer of a conversation looked in its scene.

    The language model reads the conversation once more. Its attention from each token of the answer
    to the scene's queries (mean over heads and the upper half of the layers) is multiplied by each
    query's cross-attention over the patches. Not for use while the bridge answers another: the
    model computes with plain attention for as long as this takes.

    Raises ValueError where the conversation does not end with an answer.
    """
    if not messages or messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
        raise ValueError("There is no answer yet: ask something first, then see where it looked.")
    prompt = bridge.language.encode(messages)
    tokens = bridge.encoder([bridge.prepare(scene)])
    queries, over_patches = bridge.fusion(
        tokens.tokens, tokens.positions, tokens.mask, return_attention=True
    )
    ids = torch.tensor([prompt.ids], device=bridge.device)
    at, count = prompt.scene_at, queries.shape[1]
    embeds = bridge.language.embed_around(ids, queries, at)
    # The state before a token chose it, so its row of attention is the one above.
    answer = _last_answer(prompt.labels, bridge.language.stop_ids)
    rows = torch.tensor(answer, device=bridge.device) + count - 1
    to_queries = _attend_to(bridge.language.model, embeds, rows, slice(at, at + count))
    to_queries = to_queries / to_queries.sum(1, keepdim=True).clamp(min=1e-9)
    to_patches = (to_queries @ over_patches[0].float()).cpu().numpy()
    height, width = tokens.grids[0]
    baseline = over_patches[0].float().mean(0).reshape(height, width, -1).sum(2).cpu().numpy()
    maps = to_patches.reshape(len(answer), height, width, -1).sum(3)
    pieces = [bridge.language.tokenizer.decode(prompt.ids[i]) for i in answer]
    return _join_words(pieces, maps, baseline)


def _last_answer(labels: Sequence[int], stop_ids: Sequence[int]) -> list[int]:
    """Where the tokens of the last answer stand, up to its stop token.

    A template may have the speaker say a line break behind that.
    """
    end = len(labels)
    while end and labels[end - 1] == -100:
        end -= 1
    start = end
    while start and labels[start - 1] != -100:
        start -= 1
    stops = (index for index in range(start, end) if labels[index] in stop_ids)
    return list(range(start, next(stops, end)))


def _attend_to(model: nn.Module, embeds: Tensor, rows: Tensor, columns: slice) -> Tensor:
    """Attention of some rows to some columns, `[rows, columns]`, mean over heads and upper layers.

    Taken layer by layer while it is computed, so that no whole attention matrix is kept.
    """
    decoder = model.get_decoder()
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: tuple[Tensor, Tensor | None]) -> None:
        weights = output[1]
        seen.append(weights[0][:, rows, columns].float().mean(0))

    upper = decoder.layers[len(decoder.layers) // 2 :]
    hooks = [layer.self_attn.register_forward_hook(keep) for layer in upper]
    try:
        with _plain_attention(model):
            decoder(inputs_embeds=embeds, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(seen).mean(0)


@contextmanager
def _plain_attention(model: nn.Module) -> Iterator[None]:
    """Let the model compute attention in the open, where fused kernels give no weights."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _join_words(pieces: Sequence[str], maps: np.ndarray, baseline: np.ndarray) -> AnswerAttention:
    """Join tokens into words, each word's map being the mean of its tokens'."""
    words: list[list[int]] = []
    for index, piece in enumerate(pieces):
        if not words or piece[:1].isspace():
            words.append([])
        words[-1].append(index)
    joined = tuple("".join(pieces[i] for i in word) for word in words)
    mean = np.stack([maps[word].mean(0) for word in words]).astype(np.float32)
    return AnswerAttention(joined, mean, baseline.astype(np.float32))
