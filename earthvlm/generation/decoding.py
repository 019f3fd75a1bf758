"""Decoding with a language model: the state of what it has processed, and the token loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from earthvlm.generation.cpu_attention import start_cache
from earthvlm.generation.prompt_lookup import BATCH_DRAFT_TOKENS, DRAFT_TOKENS, AnswerCache
from earthvlm.generation.sampling import Sampling, fit_to_context
from earthvlm.models.attention_masks import make_prefix_mask
from earthvlm.models.language.chat_templates import Prompt
from earthvlm.models.language.language_model import LanguageModel
from earthvlm.models.threads import fit_threads


class DecoderState(Protocol):
    """A language model's keys and values of the tokens it has processed, for one row or several.

    Attributes:
        pads_drafts: whether drafts of a single row always have DRAFT_TOKENS tokens, because sums of
            other lengths round differently, and an answer should not depend on what the answer
            cache holds.
    """

    pads_drafts: bool

    @property
    def length(self) -> int:
        """The number of tokens in the state, padding included."""

    def forward(self, vectors: Tensor, bidirectional_prefix: int = 0) -> Tensor:
        """Process `[B, L, D]`; return the logits after the last token, `[B, V]`.

        bidirectional_prefix: how many of the first tokens attend to each other in both directions.
        """

    def forward_each(self, vectors: Tensor) -> Tensor:
        """Process `[B, L, D]`; return the logits after each token, `[B, L, V]`."""

    def crop(self, length: int) -> None:
        """Keep only the first `length` tokens."""

    def rollback(self, counts: Sequence[int]) -> None:
        """Drop the last tokens of each row, as many as `counts` says for it."""

    def select_rows(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""

    def release(self) -> None:
        """Free what others can use until the next forward pass."""


class TorchDecoderState:
    """A `DecoderState` by transformers.

    padding: `[B]`, how many of the first tokens of each row are padding, if any are. Tokens of
        `forward_shared` come before the padding.
    """

    pads_drafts = True

    def __init__(self, model: PreTrainedModel, padding: Tensor | None = None) -> None:
        self.model = model
        self.padding = padding
        self.cache = start_cache(model, 1)
        # `[B, length]`, True where a token is attended to; None where all are.
        self._mask: Tensor | None = None

    @property
    def length(self) -> int:
        """The number of tokens in the state, padding included."""
        return self.cache.get_seq_length()

    def forward(self, vectors: Tensor, bidirectional_prefix: int = 0) -> Tensor:
        """Process `[B, L, D]`; return the logits after the last token, `[B, V]`."""
        return self._forward(vectors, vectors.shape[1] - 1, bidirectional_prefix)[:, 0]

    def forward_shared(self, vectors: Tensor, rows: int) -> None:
        """Process the `[L, D]` with which all rows begin once, and copy its keys and values."""
        once = TorchDecoderState(self.model)
        once.forward(vectors[None])
        self.cache = start_cache(self.model, rows)
        for number, layer in enumerate(once.cache.layers):
            states = (s.expand(rows, -1, -1, -1) for s in (layer.keys, layer.values))
            self.cache.update(*states, number)

    def forward_each(self, vectors: Tensor) -> Tensor:
        """Process `[B, L, D]`; return the logits after each token, `[B, L, V]`."""
        return self._forward(vectors, 0)

    def _forward(self, vectors: Tensor, first: int, bidirectional_prefix: int = 0) -> Tensor:
        """Return the logits after the tokens from `first` on, `[B, L - first, V]`."""
        start, device = self.length, vectors.device
        if start == 0:
            self.cache = start_cache(self.model, len(vectors))
        self._extend_mask(vectors, start)
        attention_mask = positions = None
        if bidirectional_prefix or self._mask is not None:
            mask = self._mask
            if mask is None:
                end = start + vectors.shape[1]
                mask = torch.ones(len(vectors), end, dtype=torch.bool, device=device)
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, start:]
            attention_mask = (
                make_prefix_mask(mask, bidirectional_prefix, vectors.dtype)
                if bidirectional_prefix
                else mask.long()
            )
        # As indices: a slice would make torch copy the vocabulary's matrix, which doubles the time.
        kept = torch.arange(first, vectors.shape[1], device=device)
        output = self.model(
            inputs_embeds=vectors,
            attention_mask=attention_mask,
            position_ids=positions,
            cache=self.cache,
            use_cache=True,
            logits_to_keep=kept,
        )
        return output.logits

    def _extend_mask(self, vectors: Tensor, start: int) -> None:
        """Add the columns of new tokens to the mask, where there is padding or was a rollback."""
        if self.padding is not None:
            real = torch.arange(vectors.shape[1], device=vectors.device) >= self.padding[:, None]
            self._mask = torch.cat([real.new_ones(len(vectors), start), real], dim=1)
            self.padding = None
        elif self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(vectors.shape[:2])], dim=1)

    def crop(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        self.cache.crop(length - self.length)
        if self._mask is not None:
            self._mask = self._mask[:, :length]

    def rollback(self, counts: Sequence[int]) -> None:
        """Drop the last tokens of each row, as many as `counts` says for it.

        Tokens that other rows keep stay in the cache and are masked.
        """
        kept = self.length - min(counts)
        self.crop(kept)
        if max(counts) > min(counts):
            ends = torch.tensor(counts, device=self.model.device)[:, None]
            mask = torch.arange(kept, device=ends.device) < kept + min(counts) - ends
            self._mask = mask if self._mask is None else self._mask & mask

    def select_rows(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        kept = torch.tensor(rows, device=self.model.device)
        self.cache.batch_select_indices(kept)
        if self._mask is not None:
            self._mask = self._mask[kept]

    def release(self) -> None:
        """Do nothing: each state has a cache of its own."""


def decode(
    state: DecoderState,
    logits: Tensor,
    language: LanguageModel,
    sampling: Sampling,
    answer_cache: AnswerCache | None = None,
) -> Iterator[dict[int, list[int]]]:
    """Yield the next token ids of each row, by row, until all rows have stopped.

    With an answer cache, each step verifies draft tokens in one forward pass and keeps those that
    the model would have chosen, so answers are the same up to rounding.

    Args:
        state: holds the prompts; rows are removed from it as they stop.
        logits: after the prompts, `[B, V]`.
        language: embeds tokens and says which ones stop an answer.
        sampling: the length of the answers and how their tokens are chosen.
        answer_cache: where draft tokens are looked up; None decodes one token at a time.
    """
    rows = list(range(len(logits)))
    answers: list[list[int]] = [[] for _ in rows]
    drafts: list[tuple[int, ...]] = [() for _ in rows]
    logits = logits[:, None]
    while True:
        with torch.inference_mode():
            chosen = sampling.choose(logits.flatten(0, 1)).view(logits.shape[:2]).tolist()
            accepted = [_count_accepted(*pair) for pair in zip(drafts, chosen, strict=True)]
            rejected = [len(draft) - n for draft, n in zip(drafts, accepted, strict=True)]
            if any(rejected):
                state.rollback(rejected)
        step, active = {}, []
        for index, row in enumerate(rows):
            room = sampling.max_length - len(answers[row])
            tokens = chosen[index][: accepted[index] + 1][:room]
            stops = [n for n, token in enumerate(tokens) if token in language.stop_ids]
            tokens = tokens[: stops[0]] if stops else tokens
            answers[row] += tokens
            if tokens:
                step[row] = tokens
            if not stops and len(answers[row]) < sampling.max_length:
                active.append(index)
        if step:
            yield step
        if not active:
            return
        fit_threads()
        with torch.inference_mode():
            if len(active) < len(rows):
                active = _fill_gaps(active)
                rows = [rows[index] for index in active]
                state.select_rows(active)
            drafts = _propose_drafts(state, [answers[row] for row in rows], answer_cache)
            ids = [[answers[row][-1], *draft] for row, draft in zip(rows, drafts, strict=True)]
            vectors = language.embed(torch.tensor(ids, device=logits.device))
            if answer_cache is None:
                logits = state.forward(vectors)[:, None]
            else:
                logits = state.forward_each(vectors)


def _fill_gaps(active: list[int]) -> list[int]:
    """Order the rows so that the last ones fill the gaps of those that stopped, and few move."""
    count = len(active)
    last = [index for index in active if index >= count]
    return [index if index in active else last.pop() for index in range(count)]


def _propose_drafts(
    state: DecoderState, answers: list[list[int]], answer_cache: AnswerCache | None
) -> list[tuple[int, ...]]:
    """Draft tokens for each answer, equally many for all."""
    if answer_cache is None:
        return [()] * len(answers)
    if len(answers) == 1:
        drafts = [answer_cache.propose(answers[0])]
        count = DRAFT_TOKENS if state.pads_drafts else len(drafts[0])
    else:
        drafts = [answer_cache.propose(answer)[:BATCH_DRAFT_TOKENS] for answer in answers]
        count = max(len(draft) for draft in drafts)
    return [
        (*draft, *[answer[-1]] * (count - len(draft)))
        for answer, draft in zip(answers, drafts, strict=True)
    ]


def _count_accepted(draft: Sequence[int], chosen: Sequence[int]) -> int:
    """Count the draft tokens before the first that the model did not choose."""
    pairs = enumerate(zip(draft, chosen, strict=False))
    return next((n for n, (a, b) in pairs if a != b), len(draft))


@torch.inference_mode()
def answer_batch(
    language: LanguageModel,
    prompts: Sequence[Prompt],
    scenes: Tensor,
    image_tokens: int,
    sampling: Sampling,
    answer_cache: AnswerCache | None = None,
) -> list[str]:
    """Answer prompts at once, each about its scene of `[B, S, D]`.

    Args:
        language: the language model.
        prompts: the tokenized conversations.
        scenes: the scenes' vectors.
        image_tokens: how many of a scene's first vectors attend to each other in both directions.
        sampling: the length of the answers and how their tokens are chosen.
        answer_cache: earlier answers for prompt lookup decoding, to which these are added.

    Raises:
        ValueError: for a prompt that leaves no room for an answer in the context.
    """
    has_windows = _uses_sliding_windows(language.model)
    if sampling.temperature > 0 or has_windows:
        answer_cache = None
    shared = 0 if image_tokens or has_windows else _count_shared(prompts)
    inputs = [
        language.embed_around(
            torch.tensor(prompt.ids, device=scenes.device), scene, prompt.scene_at
        )
        for prompt, scene in zip(prompts, scenes, strict=True)
    ]
    lengths = [len(vectors) for vectors in inputs]
    longest = max(lengths)
    sampling = fit_to_context(sampling, longest, language.context)
    padding = None
    if min(lengths) < longest:
        padding = torch.tensor([longest - n for n in lengths], device=scenes.device)
    padded = torch.stack([F.pad(v[shared:], (0, 0, longest - len(v), 0)) for v in inputs])
    bidirectional_prefix = prompts[0].scene_at + image_tokens if image_tokens else 0
    state = TorchDecoderState(language.model, padding)
    if shared:
        state.forward_shared(inputs[0][:shared], len(inputs))
    logits = state.forward(padded, bidirectional_prefix)
    answers: list[list[int]] = [[] for _ in inputs]
    for step in decode(state, logits, language, sampling, answer_cache):
        for row, tokens in step.items():
            answers[row] += tokens
    if answer_cache is not None:
        for answer in answers:
            answer_cache.add(answer)
    texts = language.tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [text.strip() for text in texts]


def _count_shared(prompts: Sequence[Prompt]) -> int:
    """Count the tokens before the scene with which all prompts begin."""
    shortest = min(prompt.scene_at for prompt in prompts)
    columns = enumerate(zip(*(prompt.ids[:shortest] for prompt in prompts), strict=True))
    return next((n for n, ids in columns if len(set(ids)) > 1), shortest)


def _uses_sliding_windows(model: PreTrainedModel) -> bool:
    """Whether some layers attend to a window of tokens, which must not have gaps then."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None)
    return any(kind != "full_attention" for kind in kinds or ())
