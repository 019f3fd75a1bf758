"""The state of a decoder over a conversation, and the loop that generates every answer."""

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
from earthvlm.models.chat_templates import Prompt
from earthvlm.models.language_model import LanguageModel
from earthvlm.models.moondream2_vision import prefix_attention


class DecoderState(Protocol):
    """What a language model keeps of what it has read, in one conversation or several at once."""

    @property
    def length(self) -> int:
        """How many tokens it has read, padding included."""

    def forward(self, vectors: Tensor, bidirectional_prefix: int = 0) -> Tensor:
        """Read on, `[B, L, D]`; return logits of what comes next, `[B, V]`.

        bidirectional_prefix: so many of the first tokens attend to later ones among them too.
        """

    def crop(self, length: int) -> None:
        """Keep only the first `length` tokens."""

    def select_rows(self, rows: Sequence[int]) -> None:
        """Go on with these of the conversations alone."""

    def release(self) -> None:
        """Make room for others until it is read on."""


class TorchDecoderState:
    """A `DecoderState` by transformers, with its cache of keys and values.

    padding: `[B]`, how many of the first tokens of each conversation are padding, if any are; what
        `forward_shared` reads comes before it.
    """

    def __init__(self, model: PreTrainedModel, padding: Tensor | None = None) -> None:
        self.model = model
        self.padding = padding
        self.cache = start_cache(model, 1)
        # `[B, length]`: which of the tokens are to be seen, where that is not all of them.
        self._seen: Tensor | None = None

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self.cache.get_seq_length()

    def forward(self, vectors: Tensor, bidirectional_prefix: int = 0) -> Tensor:
        """Append `[B, L, D]` to the cache; return the logits `[B, V]` after the last token."""
        return self._forward(vectors, vectors.shape[1] - 1, bidirectional_prefix)[:, 0]

    def forward_shared(self, vectors: Tensor, conversations: int) -> None:
        """Read `[L, D]`, with which so many conversations begin, once for all of them."""
        once = TorchDecoderState(self.model)
        once.forward(vectors[None])
        self.cache = start_cache(self.model, conversations)
        for number, layer in enumerate(once.cache.layers):
            states = (s.expand(conversations, -1, -1, -1) for s in (layer.keys, layer.values))
            self.cache.update(*states, number)

    def forward_each(self, vectors: Tensor) -> Tensor:
        """Read on, `[B, L, D]`; return logits of what follows each of the tokens, `[B, L, V]`."""
        return self._forward(vectors, 0)

    def _forward(self, vectors: Tensor, first: int, bidirectional_prefix: int = 0) -> Tensor:
        """Logits of what follows the tokens from `first` on, `[B, L - first, V]`."""
        start, device = self.length, vectors.device
        if start == 0:
            self.cache = start_cache(self.model, len(vectors))
        mask = positions = None
        if self.padding is not None:
            seen = torch.arange(vectors.shape[1], device=device) >= self.padding[:, None]
            self._seen = torch.cat([seen.new_ones(len(vectors), start), seen], dim=1)
            self.padding = None
        elif self._seen is not None:
            self._seen = torch.cat([self._seen, self._seen.new_ones(vectors.shape[:2])], dim=1)
        if bidirectional_prefix or self._seen is not None:
            end = start + vectors.shape[1]
            seen = self._seen
            if seen is None:
                seen = torch.ones(len(vectors), end, dtype=torch.bool, device=device)
            positions = (seen.cumsum(1) - 1).clamp(min=0)[:, start:]
            mask = (
                prefix_attention(seen, bidirectional_prefix, vectors.dtype)
                if bidirectional_prefix
                else seen.long()
            )
        # By their indices: a slice would make torch copy the vocabulary's matrix, which takes as
        # long as the rest.
        kept = torch.arange(first, vectors.shape[1], device=device)
        output = self.model(
            inputs_embeds=vectors,
            attention_mask=mask,
            position_ids=positions,
            cache=self.cache,
            use_cache=True,
            logits_to_keep=kept,
        )
        return output.logits

    def crop(self, length: int) -> None:
        """Keep the first tokens only."""
        self.cache.crop(length - self.length)
        if self._seen is not None:
            self._seen = self._seen[:, :length]

    def rollback(self, counts: Sequence[int]) -> None:
        """Forget the last tokens of each conversation, so many of each.

        What others keep stays in the cache, and is not seen.
        """
        kept = self.length - min(counts)
        self.crop(kept)
        if max(counts) > min(counts):
            ends = torch.tensor(counts, device=self.model.device)[:, None]
            seen = torch.arange(kept, device=ends.device) < kept + min(counts) - ends
            self._seen = seen if self._seen is None else self._seen & seen

    def select_rows(self, rows: Sequence[int]) -> None:
        """Keep these conversations only, in this order."""
        kept = torch.tensor(rows, device=self.model.device)
        self.cache.batch_select_indices(kept)
        if self._seen is not None:
            self._seen = self._seen[kept]

    def release(self) -> None:
        """Its cache takes room anyway."""


def decode(
    state: DecoderState,
    logits: Tensor,
    language: LanguageModel,
    sampling: Sampling,
    drafts: AnswerCache | None = None,
) -> Iterator[dict[int, list[int]]]:
    """Yield what each conversation says next, token ids by row, until all have said all.

    logits: `[B, V]`, what may come first. A row that has stopped is read no further.
    drafts: foretell how answers go on, for a `TorchDecoderState`; each is then a few tokens further
    at a time. What was foretold is kept where it is what the model chooses, so answers stay the
    same, as far as rounding goes.
    """
    rows = list(range(len(logits)))
    said: list[list[int]] = [[] for _ in rows]
    read: list[tuple[int, ...]] = [() for _ in rows]  # of what was foretold
    logits = logits[:, None]
    while True:
        with torch.inference_mode():
            chosen = sampling.choose(logits.flatten(0, 1)).view(logits.shape[:2]).tolist()
            right = [_count_accepted(*pair) for pair in zip(read, chosen, strict=True)]
            wrong = [len(tokens) - n for tokens, n in zip(read, right, strict=True)]
            if any(wrong):
                state.rollback(wrong)
        step, going = {}, []
        for place, row in enumerate(rows):
            tokens = chosen[place][: right[place] + 1][: sampling.max_length - len(said[row])]
            ends = [n for n, token in enumerate(tokens) if token in language.stop_ids]
            tokens = tokens[: ends[0]] if ends else tokens
            said[row] += tokens
            if tokens:
                step[row] = tokens
            if not ends and len(said[row]) < sampling.max_length:
                going.append(place)
        if step:
            yield step
        if not going:
            return
        with torch.inference_mode():
            if len(going) < len(rows):
                going = _fill_gaps(going)
                rows = [rows[place] for place in going]
                state.select_rows(going)
            read = _propose_drafts([said[row] for row in rows], drafts)
            ids = [[said[row][-1], *tokens] for row, tokens in zip(rows, read, strict=True)]
            vectors = language.embed(torch.tensor(ids, device=logits.device))
            if drafts is None:
                logits = state.forward(vectors)[:, None]
            else:
                logits = state.forward_each(vectors)


def _fill_gaps(going: list[int]) -> list[int]:
    """The same places, the last ones in the gaps before them, so that few change theirs."""
    count = len(going)
    last = [place for place in going if place >= count]
    return [place if place in going else last.pop() for place in range(count)]


def _propose_drafts(said: list[list[int]], drafts: AnswerCache | None) -> list[tuple[int, ...]]:
    """How each of the answers may go on, equally many tokens for all."""
    if drafts is None:
        return [()] * len(said)
    if len(said) == 1:
        # Always as many: other sums round otherwise, and what was said before should not tell.
        count, foretold = DRAFT_TOKENS, [drafts.propose(said[0])]
    else:
        foretold = [drafts.propose(answer)[:BATCH_DRAFT_TOKENS] for answer in said]
        count = max(len(tokens) for tokens in foretold)
    return [
        (*tokens, *[answer[-1]] * (count - len(tokens)))
        for answer, tokens in zip(said, foretold, strict=True)
    ]


def _count_accepted(foretold: Sequence[int], chosen: Sequence[int]) -> int:
    """How many tokens were foretold right before the first that was not."""
    pairs = enumerate(zip(foretold, chosen, strict=False))
    return next((n for n, (a, b) in pairs if a != b), len(foretold))


@torch.inference_mode()
def answer_batch(
    language: LanguageModel,
    prompts: Sequence[Prompt],
    scenes: Tensor,
    picture_tokens: int,
    sampling: Sampling,
    drafts: AnswerCache | None = None,
) -> list[str]:
    """Answer several prompts at once, each with its scene of `[B, S, D]`.

    picture_tokens: so many of a scene's first are read in both directions.
    drafts: answers that foretell how others go on, where reading several tokens at once pays.
    Raises ValueError for a prompt that is too long.
    """
    windows = _uses_sliding_windows(language.model)
    shared = 0 if picture_tokens or windows else _count_shared(prompts)
    conversations = [
        language.embed_around(
            torch.tensor(prompt.ids, device=scenes.device), scene, prompt.scene_at
        )
        for prompt, scene in zip(prompts, scenes, strict=True)
    ]
    lengths = [len(vectors) for vectors in conversations]
    longest = max(lengths)
    sampling = fit_to_context(sampling, longest, language.context)
    padding = None
    if min(lengths) < longest:
        padding = torch.tensor([longest - n for n in lengths], device=scenes.device)
    padded = torch.stack([F.pad(v[shared:], (0, 0, longest - len(v), 0)) for v in conversations])
    bidirectional_prefix = prompts[0].scene_at + picture_tokens if picture_tokens else 0
    state = TorchDecoderState(language.model, padding)
    if shared:
        state.forward_shared(conversations[0][:shared], len(conversations))
    if sampling.temperature > 0 or windows:
        drafts = None
    said: list[list[int]] = [[] for _ in conversations]
    for step in decode(
        state, state.forward(padded, bidirectional_prefix), language, sampling, drafts
    ):
        for row, tokens in step.items():
            said[row] += tokens
    for answer in said if drafts is not None else ():
        drafts.add(answer)
    answers = language.tokenizer.batch_decode(said, skip_special_tokens=True)
    return [answer.strip() for answer in answers]


def _count_shared(prompts: Sequence[Prompt]) -> int:
    """How many tokens before their scenes all prompts begin with."""
    most = min(prompt.scene_at for prompt in prompts)
    places = enumerate(zip(*(prompt.ids[:most] for prompt in prompts), strict=True))
    return next((n for n, ids in places if len(set(ids)) > 1), most)


def _uses_sliding_windows(model: PreTrainedModel) -> bool:
    """Whether layers count the tokens they look back over, which then must lie side by side."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None)
    return any(kind != "full_attention" for kind in kinds or ())
