"""Prompt lookup decoding with an n-gram cache of earlier answers.

Answers about scenes resemble each other, and a language model on a CPU processes a few tokens in
hardly more time than one. So the tokens that followed the same n-gram in an earlier answer are
drafted, the model verifies them in one forward pass, and those it would not have chosen are
dropped: the answer is the same. After https://arxiv.org/abs/2304.04487, with earlier answers in
the place of the prompt.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

# Draft tokens of a single answer: nine tokens take 1.2 times as long as one (benchmarks.decoding).
DRAFT_TOKENS = 8
# Draft tokens of each answer in a batch, where every token of 32 rows takes longer.
BATCH_DRAFT_TOKENS = 3
# Lengths of the n-grams that are looked up, in this order.
NGRAM_LENGTHS = (8, 4, 2, 1)
MAX_NGRAMS = 40_000  # of about 150 answers, 7 megabytes
BEGINNING = -1  # stands before an answer's first token


class AnswerCache:
    """N-grams of earlier answers and the tokens that followed them; safe to share by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._following: dict[tuple[int, ...], tuple[int, ...]] = {}

    def add(self, answer: Sequence[int]) -> None:
        """Add an answer's token ids; beyond `MAX_NGRAMS`, the oldest n-grams are dropped."""
        tokens = (BEGINNING, *answer)
        with self._lock:
            for index in range(1, len(tokens)):
                following = tokens[index : index + DRAFT_TOKENS]
                for length in NGRAM_LENGTHS:
                    ngram = tokens[max(0, index - length) : index]
                    self._following.pop(ngram, None)  # so that the latest stand last
                    self._following[ngram] = following
            while len(self._following) > MAX_NGRAMS:
                del self._following[next(iter(self._following))]

    def propose(self, answer: Sequence[int]) -> tuple[int, ...]:
        """Draft tokens for an answer that begins with these ids; none where no n-gram is known."""
        tokens = (BEGINNING, *answer)
        with self._lock:
            ngrams = (tokens[max(0, len(tokens) - length) :] for length in NGRAM_LENGTHS)
            return next((self._following[n] for n in ngrams if n in self._following), ())
