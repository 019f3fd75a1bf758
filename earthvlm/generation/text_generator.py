"""Text generation about scenes: chats that keep their decoder state, and batches of prompts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache, partial

from torch import Tensor

from earthvlm.generation.decoding import DecoderState, TorchDecoderState, answer_batch
from earthvlm.generation.prompt_lookup import AnswerCache
from earthvlm.generation.sampling import Sampling, check_prompt
from earthvlm.generation.session import ChatSession, PrefixCache
from earthvlm.models.language.chat_templates import Message, Prompt
from earthvlm.models.language.language_model import LanguageModel
from earthvlm.scenes.scene import Scene
from earthvlm.storage.tensors import multiplies_bfloat16


class TextGenerator:
    """Generates answers about scenes with a language model.

    Scenes enter as the vectors that stand for them among the word embeddings, so this class knows
    nothing of how they were encoded.

    Args:
        language: the language model with its tokenizer.
        image_tokens: how many of a scene's first vectors attend to each other in both directions.

    Attributes:
        make_state: makes the decoder state of a new chat.
        prefix_cache: the decoder states of earlier chats.
        answer_cache: earlier answers, which prompt lookup decoding drafts from; None decodes one
            token at a time.
    """

    def __init__(self, language: LanguageModel, image_tokens: int = 0) -> None:
        self.language = language
        self.image_tokens = image_tokens
        self.prefix_cache = PrefixCache()
        self.use_torch()

    def use_torch(self) -> None:
        """Decode with torch, with an empty cache of answers."""
        self.make_state: Callable[[], DecoderState] = partial(
            TorchDecoderState, self.language.model
        )
        self.answer_cache: AnswerCache | None = AnswerCache()
        self._takes_turns = False

    def use_onnx(self) -> None:
        """Decode single answers with ONNX Runtime, where `OnnxDecoder` fits the language model.

        Weights are copied for the first answer; `use_torch` goes back, before they change.
        """
        # Training and GPUs never need it.
        from earthvlm.generation.onnx_decoding import OnnxDecoder, OnnxDecoderState

        model = self.language.model
        if not self.image_tokens and OnnxDecoder.fits(model):
            make_decoder = cache(lambda: OnnxDecoder(model))
            self.make_state = lambda: OnnxDecoderState(make_decoder())
            # In batches torch computes in bfloat16, which is worth it where that is fast.
            self._takes_turns = not multiplies_bfloat16(model.device)

    def encode_prompt(self, messages: Sequence[Message], context: str = "") -> Prompt:
        """Tokenize a conversation about a scene with this context.

        Raises ValueError for an empty or too long question.
        """
        for message in messages:
            if message["role"] == "user":
                check_prompt(message["content"])
        return self.language.encode(messages, context)

    def start_session(self, vectors: Tensor) -> ChatSession:
        """Start a chat about a scene of `[S, D]`."""
        return ChatSession(
            self.language, vectors, self.make_state(), self.image_tokens, self.answer_cache
        )

    def stream(
        self,
        scene: Scene,
        encode_scene: Callable[[], Tensor],
        messages: Sequence[Message],
        sampling: Sampling,
        stop: threading.Event | None = None,
        context: str = "",
    ) -> Iterator[str]:
        """Answer the last message piece by piece, until `stop` is set or the iterator is closed.

        Args:
            scene: the key under which the chat is cached, for as long as this object lives.
            encode_scene: returns the scene's vectors `[S, D]`; called only where no chat about the
                scene is cached.
            messages: the conversation, whose cached beginning is not computed again.
            sampling: the length of the answer and how its tokens are chosen.
            stop: ends the answer within a token once it is set.
            context: the scene's, which stands before the first question.

        Raises:
            ValueError: for an empty question or a conversation that exceeds the context.
        """
        prompt = self.encode_prompt(messages, context)
        session = self.prefix_cache.take(scene) or self.start_session(encode_scene())
        try:
            with closing(session.answer(prompt, sampling, stop)) as pieces:
                yield from pieces
        finally:
            self.prefix_cache.keep(scene, session)

    def answer(self, vectors: Tensor, prompt: Prompt, sampling: Sampling) -> str:
        """Answer one prompt about a scene of `[S, D]`."""
        return "".join(self.start_session(vectors).answer(prompt, sampling)).strip()

    def answer_batch(
        self, scenes: Tensor, prompts: Sequence[Prompt], sampling: Sampling
    ) -> list[str]:
        """Answer prompts about scenes of `[B, S, D]`, or about no scenes where S is 0.

        At once, or one after another where that is faster.
        """
        if self._takes_turns:
            pairs = zip(scenes, prompts, strict=True)
            return [self.answer(vectors, prompt, sampling) for vectors, prompt in pairs]
        image_tokens = self.image_tokens if scenes.shape[1] else 0
        return answer_batch(
            self.language, prompts, scenes, image_tokens, sampling, self.answer_cache
        )
