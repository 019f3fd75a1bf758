"""What answers said before, looked up to foretell how another goes on.

Answers about scenes resemble each other. DecoderState a few tokens at once takes a language model
on a processor hardly longer than reading one, so tokens that were foretold right are had for
nothing; those that were not are forgotten, and the answer is the same. Known as prompt lookup
decoding, here with answers about other scenes in the prompt's place
(https://arxiv.org/abs/2304.04487).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

# Tokens foretold at a time: reading nine takes 1.2 times as long as one (benchmarks.decoding).
DRAFT_TOKENS = 8
# Of each of several answers at once: a reading takes longer with every token of 32.
BATCH_DRAFT_TOKENS = 3
# How many tokens are looked up: the longer first, the shorter where that was never said.
NGRAM_LENGTHS = (8, 4, 2, 1)
MAX_NGRAMS = 40_000  # some 150 answers, 7 megabytes
BEGINNING = -1  # stands before an answer's first token


class AnswerCache:
    """Remembers answers, token ids each, the latest best; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._following: dict[tuple[int, ...], tuple[int, ...]] = {}

    def add(self, said: Sequence[int]) -> None:
        """Remember an answer."""
        said = (BEGINNING, *said)
        with self._lock:
            for place in range(1, len(said)):
                following = said[place : place + DRAFT_TOKENS]
                for count in NGRAM_LENGTHS:
                    key = said[max(0, place - count) : place]
                    self._following.pop(key, None)  # the latest stand last
                    self._following[key] = following
            while len(self._following) > MAX_NGRAMS:
                del self._following[next(iter(self._following))]

    def propose(self, said: Sequence[int]) -> tuple[int, ...]:
        """How an answer that has begun with these tokens may go on: none where nothing is known."""
        said = (BEGINNING, *said)
        with self._lock:
            keys = (said[max(0, len(said) - count) :] for count in NGRAM_LENGTHS)
            return next((self._following[key] for key in keys if key in self._following), ())
