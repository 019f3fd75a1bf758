"""Decoding with llama.cpp: the same language model, quantized, several times as fast on a CPU.

Needs the package `llama-cpp-python`, an extra: `pip install earthvlm[llama]`. llama.cpp computes
the logits and keeps the keys and values; embedding and choosing tokens stay in torch.
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
from earthvlm.storage.files import cache_folder

if TYPE_CHECKING:
    from earthvlm.models.language.language_model import LanguageModel

# 8 bits: of the fast quantizations, the one whose answers are closest to torch's; see
# docs/decisions.md.
QUANTIZATION = "Q8_0"
# Answers that can be decoded at once, and the tokens they share: 0.1 GB for SmolLM2-135M.
MAX_SEQUENCES = 4
MAX_TOKENS = 4096
BATCH_TOKENS = 512  # tokens of one call


class LlamaEngine:
    """A language model in llama.cpp.

    Args:
        language: the language model, adapter merged.
        revision: of its weights, adapter included; names the GGUF file in the cache.
        quantization: GGUF's name of how matrices are stored.

    Raises:
        ModuleNotFoundError: where llama-cpp-python is not installed.
        ValueError: for a model that is not laid out like Llama.
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
        self.vocab_size = language.model.config.vocab_size
        self.lock = threading.Lock()
        self.free = list(range(MAX_SEQUENCES))
        llama_cpp.llama_log_set(_silence(llama_cpp), None)
        llama_cpp.llama_backend_init()
        model = _check(
            llama_cpp.llama_model_load_from_file(
                str(path).encode(), llama_cpp.llama_model_default_params()
            ),
            path,
        )
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = min(MAX_TOKENS, MAX_SEQUENCES * language.context)
        options.n_batch = options.n_ubatch = BATCH_TOKENS
        options.n_seq_max = MAX_SEQUENCES
        options.kv_unified = True
        options.n_threads = options.n_threads_batch = torch.get_num_threads()
        weakref.finalize(self, llama_cpp.llama_model_free, model)  # runs after the one below
        self.context = _check(llama_cpp.llama_init_from_model(model, options), path)
        weakref.finalize(self, llama_cpp.llama_free, self.context)
        self.memory = llama_cpp.llama_get_memory(self.context)

    def decode(self, vectors: np.ndarray, start: int, sequence: int) -> Tensor:
        """Process float32 `[L, D]` at `start` of a sequence; return the logits after it, `[V]`."""
        count = len(vectors)
        batch = self.llama.llama_batch_init(count, self.dim, 1)
        try:
            ctypes.memmove(batch.embd, vectors.ctypes.data, vectors.nbytes)
            batch.n_tokens = count
            for index in range(count):
                batch.pos[index] = start + index
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = sequence
                batch.logits[index] = index == count - 1
            if self.llama.llama_decode(self.context, batch):
                raise RuntimeError(
                    f"The chats that are being answered have more than {MAX_TOKENS:,} tokens "
                    "together: wait for an answer to end, or clear the conversation."
                )
            logits = self.llama.llama_get_logits_ith(self.context, -1)
            return torch.from_numpy(np.ctypeslib.as_array(logits, (self.vocab_size,)).copy())
        finally:
            self.llama.llama_batch_free(batch)


class LlamaDecoderState:
    """A `DecoderState` of one row; between answers its keys and values are outside llama.cpp."""

    max_draft = 0
    pads_drafts = False

    def __init__(self, engine: LlamaEngine) -> None:
        self.engine = engine
        self._sequence: int | None = None
        self._state: ctypes.Array | None = None
        self._length = 0

    @property
    def length(self) -> int:
        """The number of tokens in the state."""
        return self._length

    def forward(self, vectors: Tensor, bidirectional_prefix: int = 0) -> Tensor:
        """Process `[1, L, D]`; return the logits after the last token, `[1, V]`."""
        if bidirectional_prefix or len(vectors) != 1:
            raise ValueError("llama.cpp decodes one row at a time, with causal attention.")
        values = vectors[0].float().cpu().numpy()
        with self.engine.lock:
            sequence = self._restore()
            for start in range(0, len(values), BATCH_TOKENS):
                part = np.ascontiguousarray(values[start : start + BATCH_TOKENS])
                logits = self.engine.decode(part, self._length, sequence)
                self._length += len(part)
        return logits[None].to(vectors.device)

    def forward_each(self, vectors: Tensor) -> Tensor:
        """Process `[1, L, D]` token by token; return the logits after each, `[1, L, V]`."""
        return torch.stack([self.forward(token[None]) for token in vectors[0].split(1)], dim=1)

    def crop(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        self._length = length

    def rollback(self, counts: Sequence[int]) -> None:
        """Drop the last tokens of the only row."""
        (count,) = counts
        self.crop(self._length - count)

    def select_rows(self, rows: Sequence[int]) -> None:
        """Keep the only row."""

    def release(self) -> None:
        """Copy the state out of llama.cpp, so that another answer can take its sequence."""
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

    def _restore(self) -> int:
        """Take a free sequence, copy the state back into it and return its number."""
        engine, llama = self.engine, self.engine.llama
        if self._sequence is None:
            if not engine.free:
                raise RuntimeError(
                    f"llama.cpp is already decoding {MAX_SEQUENCES} answers: wait for one to end."
                )
            self._sequence = engine.free.pop()
            if self._state is not None and self._length:
                llama.llama_state_seq_set_data(
                    engine.context, self._state, len(self._state), self._sequence
                )
            self._state = None
        # Tokens that were cropped since.
        llama.llama_memory_seq_rm(engine.memory, self._sequence, self._length, -1)
        return self._sequence


@cache
def _silence(llama: ModuleType) -> Callable[..., None]:
    """A callback that drops llama.cpp's log; cached, because llama.cpp keeps only its address."""
    return llama.llama_log_callback(lambda *_: None)


def _check(pointer: int | None, path: Path) -> int:
    if not pointer:
        raise ValueError(f"llama.cpp cannot read {path}: delete the file, and it is written again.")
    return pointer
