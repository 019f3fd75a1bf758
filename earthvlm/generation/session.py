"""Chat sessions about scenes, whose decoder state is kept so that later turns reuse it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor

from earthvlm.generation.decoding import DecoderState, decode
from earthvlm.generation.prompt_lookup import AnswerCache
from earthvlm.generation.sampling import Sampling, fit_to_context
from earthvlm.models.language.chat_templates import Prompt
from earthvlm.models.language.language_model import LanguageModel
from earthvlm.scenes.scene import Scene

# Stands for each of the scene's vectors among token ids, none of which is negative.
SCENE_TOKEN = -1
# Cached tokens of all scenes together: about twenty chats, 0.1 GB for SmolLM2-135M and 0.8 GB for
# Moondream2.
MAX_CACHED_TOKENS = 4096


@dataclass(eq=False)
class ChatSession:
    """A chat about a scene, with the decoder state of its conversation so far.

    Attributes:
        language: the language model.
        vectors: stand for the scene among the word embeddings, `[S, D]`.
        state: keys and values of the tokens in `tokens`.
        image_tokens: how many of the first vectors attend to each other in both directions.
        answer_cache: earlier answers for prompt lookup decoding; None decodes token by token.
        tokens: the token ids in the state, `SCENE_TOKEN` for each vector of the scene.
    """

    language: LanguageModel
    vectors: Tensor
    state: DecoderState
    image_tokens: int = 0
    answer_cache: AnswerCache | None = None
    tokens: list[int] = field(default_factory=list)

    def answer(
        self, prompt: Prompt, sampling: Sampling, stop: threading.Event | None = None
    ) -> Generator[str]:
        """Answer a prompt piece by piece, until `stop` is set.

        Tokens with which an earlier prompt began too are not processed again. Raises ValueError
        for a prompt that leaves no room for an answer in the context.
        """
        at = prompt.scene_at
        scene_end = at + len(self.vectors)
        tokens = [*prompt.ids[:at], *[SCENE_TOKEN] * len(self.vectors), *prompt.ids[at:]]
        prompt_length = len(tokens)
        sampling = fit_to_context(sampling, prompt_length, self.language.context)
        # The last token is always processed, because its logits are not kept.
        cached = _common_prefix_length(self.tokens, tokens[:-1])
        if cached < scene_end:
            cached = 0
        pieces = DecodeStream(skip_special_tokens=True)
        try:
            with torch.inference_mode():
                self.state.crop(cached)
                ids = torch.tensor(prompt.ids, device=self.vectors.device)
                vectors = self.language.embed_around(ids, self.vectors, at)
                prefix = at + self.image_tokens if self.image_tokens and not cached else 0
                logits = self.state.forward(vectors[None, cached:], prefix)
            for token in self._decode(logits, sampling):
                tokens.append(token)
                piece = pieces.step(self.language.tokenizer.backend_tokenizer, token)
                if piece:
                    yield piece
                if stop is not None and stop.is_set():
                    return
        finally:
            self.tokens = tokens[: self.state.length]
            self.state.release()
            if self.answer_cache is not None:
                self.answer_cache.add(tokens[prompt_length:])

    def _decode(self, logits: Tensor, sampling: Sampling) -> Iterator[int]:
        # Sampled tokens are seldom those of an earlier answer.
        answer_cache = None if sampling.temperature > 0 else self.answer_cache
        for step in decode(self.state, logits, self.language, sampling, answer_cache):
            yield from step[0]


class PrefixCache:
    """Keeps the latest session about each scene for as long as the Scene object is in use.

    A session that is answering is not in the cache, so two threads never share one.
    """

    def __init__(self, max_tokens: int = MAX_CACHED_TOKENS) -> None:
        self.max_tokens = max_tokens
        self._lock = threading.RLock()  # a scene may be collected while the lock is held
        self._sessions: dict[weakref.ref[Scene], ChatSession] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._sessions)

    def take(self, scene: Scene) -> ChatSession | None:
        """Remove the session about a scene and return it, if there is one."""
        with self._lock:
            return self._sessions.pop(weakref.ref(scene), None)

    def keep(self, scene: Scene, session: ChatSession) -> None:
        """Add a session; the oldest ones are dropped beyond `max_tokens`."""
        with self._lock:
            self._sessions[weakref.ref(scene, self._drop)] = session
            total = sum(len(session.tokens) for session in self._sessions.values())
            while total > self.max_tokens:
                total -= len(self._sessions.pop(next(iter(self._sessions))).tokens)

    def clear(self) -> None:
        """Drop all sessions."""
        with self._lock:
            self._sessions.clear()

    def _drop(self, scene: weakref.ref[Scene]) -> None:
        with self._lock:
            self._sessions.pop(scene, None)


def _common_prefix_length(a: list[int], b: list[int]) -> int:
    pairs = enumerate(zip(a, b, strict=False))
    return next((n for n, (x, y) in pairs if x != y), min(len(a), len(b)))
