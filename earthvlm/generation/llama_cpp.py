"""Answers by llama.cpp: the same language model, quantised, several times as fast on a CPU.

The package `llama-cpp-python` is an extra, `pip install earthvlm[llama]`. The scene still enters as
vectors, and words are still looked up and chosen here: llama.cpp reads and keeps what was read.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from earthvlm.generation.gguf import write_gguf
from earthvlm.models.smollm2 import cache_folder

if TYPE_CHECKING:
    from earthvlm.models.language_model import LanguageModel

# 8 bits: nearest to the plain path of what llama.cpp is fast with; see docs/decisions.md.
QUANTIZATION = "Q8_0"
# Answers that can be under way at once, and the tokens they share: 0.1 GB for SmolLM2-135M.
ANSWERS_AT_ONCE = 4
TOKENS_AT_ONCE = 4096
BATCH = 512  # tokens that are read at a time


class LlamaEngine:
    """A language model in llama.cpp.

    revision: of the weights the language model has now, adapter included; the file made of them is
    kept in the cache under that name.
    Raises ModuleNotFoundError where the package is missing, ValueError for a model of another kind.
    """

    def __init__(
        self, language: LanguageModel, revision: str, quantization: str = QUANTIZATION
    ) -> None:
        try:
            from llama_cpp import llama_cpp
        except ImportError as error:
            raise ModuleNotFoundError(
                "The engine 'llama' needs llama-cpp-python: pip install 'earthvlm[llama]'."
            ) from error
        path = cache_folder() / "llama" / f"{revision}-{language.revision}-{quantization}.gguf"
        if not path.is_file():
            write_gguf(language.model, path, quantization)
        self.llama = llama_cpp
        self.dim = language.dim
        self.vocabulary = language.model.config.vocab_size
        self.lock = threading.Lock()
        self.free = list(range(ANSWERS_AT_ONCE))
        llama_cpp.llama_log_set(_silence(llama_cpp), None)
        llama_cpp.llama_backend_init()
        model = _check(
            llama_cpp.llama_model_load_from_file(
                str(path).encode(), llama_cpp.llama_model_default_params()
            ),
            path,
        )
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = min(TOKENS_AT_ONCE, ANSWERS_AT_ONCE * language.context)
        options.n_batch = options.n_ubatch = BATCH
        options.n_seq_max = ANSWERS_AT_ONCE
        options.kv_unified = True
        options.n_threads = options.n_threads_batch = torch.get_num_threads()
        weakref.finalize(self, llama_cpp.llama_model_free, model)  # runs after the next
        self.context = _check(llama_cpp.llama_init_from_model(model, options), path)
        weakref.finalize(self, llama_cpp.llama_free, self.context)
        self.memory = llama_cpp.llama_get_memory(self.context)

    def decode(self, vectors: np.ndarray, start: int, sequence: int) -> Tensor:
        """Read float32 `[L, D]` from a place of a sequence on; logits of what follows, `[V]`."""
        count = len(vectors)
        batch = self.llama.llama_batch_init(count, self.dim, 1)
        try:
            ctypes.memmove(batch.embd, vectors.ctypes.data, vectors.nbytes)
            batch.n_tokens = count
            for place in range(count):
                batch.pos[place] = start + place
                batch.n_seq_id[place] = 1
                batch.seq_id[place][0] = sequence
                batch.logits[place] = place == count - 1
            if self.llama.llama_decode(self.context, batch):
                raise RuntimeError(
                    f"The answers under way have more than {TOKENS_AT_ONCE:,} tokens together: "
                    "wait for one to end, or clear the conversation."
                )
            logits = self.llama.llama_get_logits_ith(self.context, -1)
            return torch.from_numpy(np.ctypeslib.as_array(logits, (self.vocabulary,)).copy())
        finally:
            self.llama.llama_batch_free(batch)


class LlamaDecoderState:
    """A `DecoderState` of one conversation; while no answer is under way its state lies outside."""

    def __init__(self, engine: LlamaEngine) -> None:
        self.engine = engine
        self._sequence: int | None = None
        self._state: ctypes.Array | None = None
        self._length = 0

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._length

    def forward(self, vectors: Tensor, bidirectional_prefix: int = 0) -> Tensor:
        """Append `[1, L, D]` to the cache; return the logits `[1, V]` after the last token."""
        if bidirectional_prefix or len(vectors) != 1:
            raise ValueError("llama.cpp reads one conversation at a time, in one direction.")
        values = vectors[0].float().cpu().numpy()
        with self.engine.lock:
            self._wake()
            for start in range(0, len(values), BATCH):
                part = np.ascontiguousarray(values[start : start + BATCH])
                logits = self.engine.decode(part, self._length, self._sequence)
                self._length += len(part)
        return logits[None].to(vectors.device)

    def crop(self, length: int) -> None:
        """Keep the first tokens only."""
        self._length = length

    def select_rows(self, rows: Sequence[int]) -> None:
        """There is one only, and it is kept."""

    def release(self) -> None:
        """Move the sequence out of the engine's cache, so that another can use its place."""
        if self._sequence is None:
            return
        engine, llama = self.engine, self.engine.llama
        with engine.lock:
            size = llama.llama_state_seq_get_size(engine.context, self._sequence)
            self._state = (ctypes.c_uint8 * size)()
            llama.llama_state_seq_get_data(engine.context, self._state, size, self._sequence)
            llama.llama_memory_seq_rm(engine.memory, self._sequence, -1, -1)
            engine.free.append(self._sequence)
            self._sequence = None

    def _wake(self) -> None:
        """Take a place among the answers under way, with what was read before."""
        engine, llama = self.engine, self.engine.llama
        if self._sequence is None:
            if not engine.free:
                raise RuntimeError(
                    f"{ANSWERS_AT_ONCE} answers are under way already: wait for one to end."
                )
            self._sequence = engine.free.pop()
            if self._state is not None and self._length:
                llama.llama_state_seq_set_data(
                    engine.context, self._state, len(self._state), self._sequence
                )
            self._state = None
        # What was forgotten in between.
        llama.llama_memory_seq_rm(engine.memory, self._sequence, self._length, -1)


@cache
def _silence(llama: ModuleType) -> Callable[..., None]:
    """Takes what llama.cpp would print of each tensor; kept, for it is called from outside."""
    return llama.llama_log_callback(lambda *_: None)


def _check(pointer: int | None, path: Path) -> int:
    if not pointer:
        raise ValueError(f"llama.cpp cannot read {path}: delete it, and it is made anew.")
    return pointer
