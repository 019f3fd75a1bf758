"""Attention maps of an answer: from its words, through the queries, to patches of the scene.

Attention shows which patches were weighted, not why the model answered as it did, and does not
prove an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from earthvlm.models.language.chat_templates import Message
from earthvlm.scenes.analysis.map_geotiff import write_map
from earthvlm.scenes.scene import Scene

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from earthvlm.bridge.model import OlmoEarthVLMBridge

MOST_ATTENTION = 254  # of a byte; 255 is no data


@dataclass(frozen=True)
class AnswerAttention:
    """The attention map of each word of an answer.

    Attributes:
        words: the answer, split where its words begin; joined, they are the answer.
        maps: float32 `[words, rows, columns]`, a value for each patch; each map sums to 1.
        baseline: `[rows, columns]`, the queries' mean attention for any answer; sums to 1.
        patch_size: pixels to a side of a patch; the last ones may reach over the scene's edge.
    """

    words: tuple[str, ...]
    maps: np.ndarray
    baseline: np.ndarray
    patch_size: int

    @property
    def mean(self) -> np.ndarray:
        """The mean map over the words, `[rows, columns]`."""
        return self.maps.mean(0)

    def relative_attention(self, word: int | None = None) -> np.ndarray:
        """Scale the answer's attention relative to the baseline to 0 to 1, `[rows, columns]`.

        For a word, relative to the whole answer. Queries attend to some patches for any answer;
        the ratio leaves what is particular to this answer, or to this word.
        """
        given, base = (self.mean, self.baseline) if word is None else (self.maps[word], self.mean)
        ratio = given / np.maximum(base, 1e-9)
        low, high = np.percentile(ratio, (5, 99))
        return ((ratio - low) / max(high - low, 1e-9)).clip(0, 1).astype(np.float32)


def write_attention_map(
    path: str | Path, attention: AnswerAttention, scene: Scene, word: int | None = None
) -> None:
    """Write an answer's relative attention, or a word's, as a cloud-optimized GeoTIFF.

    It has the scene's grid and pixels. The values are 0, the least attention, to 254, with a colour
    table from black to yellow. Raises FileNotFoundError where the folder does not exist.
    """
    from matplotlib import colormaps

    values = np.rint(attention.relative_attention(word) * MOST_ATTENTION).astype(np.uint8)
    rows, columns = (
        np.minimum(np.arange(side) // attention.patch_size, patches - 1)
        for side, patches in zip((scene.height, scene.width), values.shape, strict=True)
    )
    shades = colormaps["inferno"](np.linspace(0, 1, MOST_ATTENTION + 1), bytes=True)
    write_map(
        Path(path),
        values[rows[:, None], columns],
        {value: (int(r), int(g), int(b)) for value, (r, g, b, _) in enumerate(shades)},
        title="relative attention, 0 to 254",
        grid=scene.grid,
        date=scene.date,
    )


@torch.inference_mode()
def attend(
    bridge: OlmoEarthVLMBridge, scene: Scene, messages: Sequence[Message]
) -> AnswerAttention:
    """Compute the attention maps of a conversation's last answer.

    The language model processes the conversation again. Its attention from each token of the answer
    to the scene's queries (mean over heads and the upper half of the layers) is multiplied by each
    query's cross-attention over the patches. Do not call this while the bridge answers: it switches
    the model to eager attention until it returns.

    Raises ValueError for a conversation that does not end with an answer.
    """
    if not messages or messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
        raise ValueError(
            "There is no answer yet: ask a question first, then open its attention map."
        )
    prompt = bridge.language.encode(messages, bridge.write_context(scene))
    seen = bridge.memory.overview(scene)
    tokens = bridge.encoder([bridge.prepare(seen)])
    queries, over_patches = bridge.fusion(
        tokens.tokens, tokens.positions, tokens.mask, return_attention=True
    )
    ids = torch.tensor([prompt.ids], device=bridge.device)
    at, count = prompt.scene_at, queries.shape[1]
    embeds = bridge.language.embed_around(ids, queries, at)
    # A token was chosen by the state before it, so its attention is in the row above.
    answer = _last_answer(prompt.labels, bridge.language.stop_ids)
    rows = torch.tensor(answer, device=bridge.device) + count - 1
    to_queries = _attend_to(bridge.language.model, embeds, rows, slice(at, at + count))
    to_queries = to_queries / to_queries.sum(1, keepdim=True).clamp(min=1e-9)
    to_patches = (to_queries @ over_patches[0].float()).cpu().numpy()
    height, width = tokens.grids[0]
    baseline = over_patches[0].float().mean(0).reshape(height, width, -1).sum(2).cpu().numpy()
    maps = to_patches.reshape(len(answer), height, width, -1).sum(3)
    pieces = [bridge.language.tokenizer.decode(prompt.ids[i]) for i in answer]
    patch = bridge.encoder.patch_size * (scene.height // seen.height)
    return _join_words(pieces, maps, baseline, patch)


def _last_answer(labels: Sequence[int], stop_ids: Sequence[int]) -> list[int]:
    """Return the indices of the last answer's tokens, up to its stop token.

    Some chat templates label a line break after the stop token as the assistant's.
    """
    end = len(labels)
    while end and labels[end - 1] == -100:
        end -= 1
    start = end
    while start and labels[start - 1] != -100:
        start -= 1
    stops = (index for index in range(start, end) if labels[index] in stop_ids)
    return list(range(start, next(stops, end)))


def _attend_to(model: PreTrainedModel, embeds: Tensor, rows: Tensor, columns: slice) -> Tensor:
    """Average the attention of rows to columns over heads and upper layers, `[rows, columns]`.

    Hooks take it from each layer, so that full attention matrices are not kept.
    """
    decoder = model.get_decoder()
    found: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: tuple[Tensor, Tensor]) -> None:
        weights = output[1]
        found.append(weights[0][:, rows, columns].float().mean(0))

    upper = decoder.layers[len(decoder.layers) // 2 :]
    hooks = [layer.self_attn.register_forward_hook(keep) for layer in upper]
    try:
        with _eager_attention(model):
            decoder(inputs_embeds=embeds, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(found).mean(0)


@contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Switch the model to eager attention, since fused kernels return no weights."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _join_words(
    pieces: Sequence[str], maps: np.ndarray, baseline: np.ndarray, patch_size: int
) -> AnswerAttention:
    """Join tokens into words; a word's map is the mean of its tokens' maps."""
    words: list[list[int]] = []
    for index, piece in enumerate(pieces):
        if not words or piece[:1].isspace():
            words.append([])
        words[-1].append(index)
    joined = tuple("".join(pieces[i] for i in word) for word in words)
    mean = np.stack([maps[word].mean(0) for word in words]).astype(np.float32)
    return AnswerAttention(joined, mean, baseline.astype(np.float32), patch_size)
