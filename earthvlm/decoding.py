"""Reading with a language model, token after token, and answering: one loop for all answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel

from earthvlm.drafts import DRAFTED, AnswerDrafts
from earthvlm.generation import Sampling
from earthvlm.language import LanguageModel
from earthvlm.moondream_vision import prefix_attention
from earthvlm.prompts import Prompt


class Reading(Protocol):
    """What a language model keeps of what it has read, in one conversation or several at once."""

    @property
    def length(self) -> int:
        """How many tokens it has read, padding included."""

    def read(self, vectors: Tensor, both_ways: int = 0) -> Tensor:
        """Read on, `[B, L, D]`; return logits of what comes next, `[B, V]`.

        both_ways: so many of the first tokens attend to later ones among them too.
        """

    def forget(self, length: int) -> None:
        """Keep only the first `length` tokens."""

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Go on with these of the conversations alone."""

    def rest(self) -> None:
        """Make room for others until it is read on."""


class TorchReading:
    """A `Reading` by transformers, with its cache of keys and values.

    padding: `[B]`, how many of the first tokens of each conversation are padding, if any are.
    """

    def __init__(self, model: PreTrainedModel, padding: Tensor | None = None) -> None:
        self.model = model
        self.padding = padding
        # Without the model's configuration every layer keeps all it read, so that any of it can
        # be forgotten; models with windows mask what they do not look at.
        self.cache = DynamicCache()

    @property
    def length(self) -> int:
        return self.cache.get_seq_length()

    def read(self, vectors: Tensor, both_ways: int = 0) -> Tensor:
        return self._read(vectors, vectors.shape[1] - 1, both_ways)[:, 0]

    def read_each(self, vectors: Tensor) -> Tensor:
        """Read on, `[1, L, D]`; return logits of what follows each of the tokens, `[L, V]`."""
        return self._read(vectors, 0)[0]

    def _read(self, vectors: Tensor, first: int, both_ways: int = 0) -> Tensor:
        """Logits of what follows the tokens from `first` on, `[B, L - first, V]`."""
        mask = positions = None
        if both_ways or self.padding is not None:
            start, end = self.length, self.length + vectors.shape[1]
            padding = 0 if self.padding is None else self.padding[:, None]
            real = torch.arange(end, device=vectors.device).expand(len(vectors), end) >= padding
            positions = (real.cumsum(1) - 1).clamp(min=0)[:, start:]
            mask = prefix_attention(real, both_ways, vectors.dtype) if both_ways else real.long()
        # By their indices: a slice would make torch copy the vocabulary's matrix, which takes as
        # long as the rest.
        kept = torch.arange(first, vectors.shape[1], device=vectors.device)
        output = self.model(
            inputs_embeds=vectors,
            attention_mask=mask,
            position_ids=positions,
            cache=self.cache,
            use_cache=True,
            logits_to_keep=kept,
        )
        return output.logits

    def forget(self, length: int) -> None:
        self.cache.crop(length - self.length)

    def keep_rows(self, rows: Sequence[int]) -> None:
        kept = torch.tensor(rows, device=self.model.device)
        self.cache.batch_select_indices(kept)
        if self.padding is not None:
            self.padding = self.padding[kept]

    def rest(self) -> None:
        """Its cache takes room anyway."""


def decode(
    reading: Reading, logits: Tensor, language: LanguageModel, sampling: Sampling
) -> Iterator[dict[int, int]]:
    """Yield what each conversation says next, token ids by row, until all have said all.

    logits: `[B, V]`, what may come first. A row that has stopped is read no further.
    """
    rows = list(range(len(logits)))
    for said in range(1, sampling.max_length + 1):
        with torch.inference_mode():
            chosen = sampling.choose(logits)
            ids = chosen.tolist()
        going = [place for place, token in enumerate(ids) if token not in language.stop_ids]
        if not going:
            return
        yield {rows[place]: ids[place] for place in going}
        if said == sampling.max_length:
            return
        with torch.inference_mode():
            if len(going) < len(rows):
                rows = [rows[place] for place in going]
                chosen = chosen[going]
                reading.keep_rows(going)
            logits = reading.read(language.embed(chosen[:, None]))


def decode_drafted(
    reading: TorchReading,
    logits: Tensor,
    language: LanguageModel,
    sampling: Sampling,
    drafts: AnswerDrafts,
) -> Iterator[int]:
    """Yield the tokens of one conversation's answer, several of which may be read at once.

    logits: `[1, V]`, what may come first. They are those that `decode` yields, as far as rounding
    goes: what was foretold is kept where it is what the model chooses.
    """
    said: list[int] = []
    draft: tuple[int, ...] = ()
    while True:
        with torch.inference_mode():
            chosen = sampling.choose(logits).tolist()
            right = 0
            while right < len(draft) and draft[right] == chosen[right]:
                right += 1
            if right < len(draft):
                reading.forget(reading.length - len(draft) + right)
        for token in chosen[: right + 1]:
            if token in language.stop_ids:
                return
            said.append(token)
            yield token
            if len(said) == sampling.max_length:
                return
        with torch.inference_mode():
            foretold = drafts.foretell(said)
            # Always as many: other sums round otherwise, and what was said before should not tell.
            draft = (*foretold, *[said[-1]] * (DRAFTED - len(foretold)))
            ids = torch.tensor([[said[-1], *draft]], device=logits.device)
            logits = reading.read_each(language.embed(ids))


@torch.inference_mode()
def answer_together(
    language: LanguageModel,
    prompts: Sequence[Prompt],
    scenes: Tensor,
    picture_tokens: int,
    sampling: Sampling,
) -> list[str]:
    """Answer several prompts at once, each with its scene of `[B, S, D]`.

    picture_tokens: so many of a scene's first are read in both directions. Raises ValueError for a
    prompt that is too long.
    """
    conversations = [
        language.embed_around(
            torch.tensor(prompt.ids, device=scenes.device), scene, prompt.scene_at
        )
        for prompt, scene in zip(prompts, scenes, strict=True)
    ]
    lengths = [len(vectors) for vectors in conversations]
    longest = max(lengths)
    sampling = language.fit(longest, sampling)
    padding = None
    if min(lengths) < longest:
        padding = torch.tensor([longest - n for n in lengths], device=scenes.device)
    padded = torch.stack([F.pad(v, (0, 0, longest - len(v), 0)) for v in conversations])
    both_ways = prompts[0].scene_at + picture_tokens if picture_tokens else 0
    reading = TorchReading(language.model, padding)
    said: list[list[int]] = [[] for _ in conversations]
    for step in decode(reading, reading.read(padded, both_ways), language, sampling):
        for row, token in step.items():
            said[row].append(token)
    answers = language.tokenizer.batch_decode(said, skip_special_tokens=True)
    return [answer.strip() for answer in answers]
