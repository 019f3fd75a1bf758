"""Talks about scenes: what was read of one is kept, so that its next turn reads what is new."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor

from earthvlm.generation.decoding import DecoderState, decode
from earthvlm.generation.prompt_lookup import AnswerCache
from earthvlm.generation.sampling import Sampling, fit_to_context
from earthvlm.models.chat_templates import Prompt
from earthvlm.models.language_model import LanguageModel
from earthvlm.scenes.scene import Scene

# Stands for each of the scene's vectors among token ids, none of which is negative.
SCENE_TOKEN = -1
# Tokens that are kept of all scenes together: some twenty conversations, 0.1 GB for SmolLM2-135M
# and 0.8 GB for Moondream2.
MAX_CACHED_TOKENS = 4096


@dataclass(eq=False)
class ChatSession:
    """A talk about a scene, as far as the language model has read it.

    vectors: the scene as the language model reads it, `[S, D]`. bidirectional_prefix: how many of
    them attend to later ones among them too, after the tokens before the scene.
    drafts: answers that foretell how others go on, where reading several tokens at once pays.
    read: the tokens that `reading` holds.
    """

    language: LanguageModel
    vectors: Tensor
    state: DecoderState
    bidirectional_prefix: int = 0
    drafts: AnswerCache | None = None
    read: list[int] = field(default_factory=list)

    def answer(
        self, prompt: Prompt, sampling: Sampling, stop: threading.Event | None = None
    ) -> Iterator[str]:
        """Answer the last words of a prompt piece by piece, until `stop` is set.

        Of what was read before, all that the prompt begins with is not read again. Raises
        ValueError for a prompt that is too long.
        """
        scene = [SCENE_TOKEN] * len(self.vectors)
        at = prompt.scene_at
        asked = [*prompt.ids[:at], *scene, *prompt.ids[at:]]
        sampling = fit_to_context(sampling, len(asked), self.language.context)
        # The last token is read anew: what follows it is not kept.
        known = _common_prefix_length(self.read, asked[:-1])
        scene_end = at + len(scene)
        if known < scene_end:
            known = 0
        pieces = DecodeStream(skip_special_tokens=True)
        try:
            with torch.inference_mode():
                self.state.crop(known)
                ids = torch.tensor(prompt.ids, device=self.vectors.device)
                vectors = self.language.embed_around(ids, self.vectors, at)
                bidirectional_prefix = (
                    at + self.bidirectional_prefix if self.bidirectional_prefix and not known else 0
                )
                logits = self.state.forward(vectors[None, known:], bidirectional_prefix)
            for token in self._decode(logits, sampling):
                asked.append(token)
                piece = pieces.step(self.language.tokenizer.backend_tokenizer, token)
                if piece:
                    yield piece
                if stop is not None and stop.is_set():
                    return
        finally:
            self.read = asked[: self.state.length]
            self.state.release()
            if self.drafts is not None:
                self.drafts.add(asked[scene_end + len(prompt.ids) - at :])

    def _decode(self, logits: Tensor, sampling: Sampling) -> Iterator[int]:
        # What is drawn at random is seldom what was said before.
        drafts = None if sampling.temperature > 0 else self.drafts
        for step in decode(self.state, logits, self.language, sampling, drafts):
            yield from step[0]


class PrefixCache:
    """Keeps the latest conversation about each scene, as long as the scene itself is in use.

    A conversation that is being continued is not in the cache, so two threads never share one.
    """

    def __init__(self, max_tokens: int = MAX_CACHED_TOKENS) -> None:
        self.max_tokens = max_tokens
        self._lock = threading.RLock()  # a scene may be collected while the lock is held
        self._kept: dict[weakref.ref[Scene], ChatSession] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, scene: Scene) -> ChatSession | None:
        """The conversation about a scene, which leaves the cache, if there is one."""
        with self._lock:
            return self._kept.pop(weakref.ref(scene), None)

    def keep(self, scene: Scene, conversation: ChatSession) -> None:
        """Keep a conversation; the oldest ones are forgotten where there are too many."""
        with self._lock:
            self._kept[weakref.ref(scene, self._forget)] = conversation
            total = sum(len(kept.read) for kept in self._kept.values())
            while total > self.max_tokens:
                total -= len(self._kept.pop(next(iter(self._kept))).read)

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._kept.clear()

    def _forget(self, scene: weakref.ref[Scene]) -> None:
        with self._lock:
            self._kept.pop(scene, None)


def _common_prefix_length(read: list[int], asked: list[int]) -> int:
    """How many tokens two lists begin with alike."""
    pairs = enumerate(zip(read, asked, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(read), len(asked)))
